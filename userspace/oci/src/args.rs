//! The command line, as runc has it: callers know that one.

use std::path::PathBuf;

use clap::{Args as Group, Parser, Subcommand, ValueEnum};

/// The OCI runtime of paddock, for podman, containerd and whoever calls runc.
#[derive(Debug, Parser)]
#[command(
    name = "paddock-oci",
    version = concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0"),
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub(crate) struct Args {
    /// Where the containers' states are
    #[arg(long, default_value = "/run/paddock/oci", value_name = "DIR")]
    pub(crate) root: PathBuf,
    /// Also write failures to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Log what is done
    #[arg(long)]
    pub(crate) debug: bool,
    /// Refused: cgroups are made through their file system
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Who makes a container's cgroup: cgroupfs; disabled, nobody, it stays in the caller's
    #[arg(
        long,
        value_enum,
        default_value_t = CgroupManager::Cgroupfs,
        hide_possible_values = true,
        value_name = "NAME"
    )]
    pub(crate) cgroup_manager: CgroupManager,
    /// runc's; always as root here
    #[arg(long, value_name = "BOOL", hide = true)]
    pub(crate) rootless: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// crun's option, and its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CgroupManager {
    Cgroupfs,
    /// Refused.
    Systemd,
    /// There is no cgroup: nothing is limited, frozen or counted.
    Disabled,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a container; its program waits for `start`
    Create(Create),
    /// Let a created container's program go
    Start(Named),
    /// Create, start, wait for the end, delete
    Run(Run),
    /// Print a container's state as JSON
    State(Named),
    /// Send a signal to a container's first process
    Kill(Kill),
    /// Remove a container that has ended
    Delete(Delete),
    /// Run one more process in a container
    Exec(Exec),
    /// Freeze a container
    Pause(Named),
    /// Let a frozen container go on
    Resume(Named),
    /// Change a container's limits
    Update(Update),
    /// List the processes of a container
    Ps(Ps),
    /// List the containers
    List(List),
    /// Print a container's use of resources
    Events(Events),
    /// Print what this runtime can do, as JSON
    Features,
    /// Write a config.json to begin with
    Spec(Spec),
}

#[derive(Debug, Group)]
pub(crate) struct Named {
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Debug, Group)]
pub(crate) struct Create {
    /// The bundle's directory
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(crate) bundle: PathBuf,
    /// The config's name in the bundle
    #[arg(
        short = 'f',
        long,
        default_value = "config.json",
        value_name = "FILE",
        hide = true
    )]
    pub(crate) config: PathBuf,
    /// Send the terminal's master to this unix socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Write the first process' id to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Let the program keep this many descriptors from 3 on
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) preserve_fds: u8,
    /// Refused: without it a root can be left
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Debug, Group)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) create: Create,
    /// Do not wait for its end
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not delete it after its end
    #[arg(long)]
    pub(crate) keep: bool,
    #[arg(long, hide = true)]
    pub(crate) no_subreaper: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Kill {
    /// To all of its processes
    #[arg(short, long)]
    pub(crate) all: bool,
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// By name or number
    #[arg(
        default_value = "SIGTERM",
        value_name = "SIGNAL",
        allow_hyphen_values = true
    )]
    pub(crate) signal: String,
}

#[derive(Debug, Group)]
pub(crate) struct Delete {
    /// End it first, if it runs; unknown ids are no failure
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Debug, Group)]
#[expect(clippy::struct_excessive_bools, reason = "runc's flags are many")]
pub(crate) struct Exec {
    /// Read the process from this JSON file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// UID or UID:GID
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    #[arg(short = 'g', long, value_name = "GID", value_delimiter = ',')]
    pub(crate) additional_gids: Vec<u32>,
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Do not wait for its end
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Add a capability
    #[arg(short, long, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) preserve_fds: u8,
    /// Into a frozen container: it waits until that is thawed
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    #[arg(long, hide = true)]
    pub(crate) no_subreaper: bool,
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Group)]
pub(crate) struct Update {
    /// Read `linux.resources` from this file; - is stdin
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Memory and swap together
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,
    #[arg(long, value_name = "N")]
    pub(crate) cpu_share: Option<u64>,
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_period: Option<u64>,
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_burst: Option<u64>,
    #[arg(long, value_name = "0|1")]
    pub(crate) cpu_idle: Option<i64>,
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    #[arg(long, value_name = "N")]
    pub(crate) blkio_weight: Option<u16>,
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Debug, Group)]
pub(crate) struct Ps {
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// For ps(1)
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Group)]
pub(crate) struct List {
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Ids alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Group)]
pub(crate) struct Events {
    /// Once, instead of every interval
    #[arg(long)]
    pub(crate) stats: bool,
    #[arg(long, default_value = "5s", value_name = "TIME")]
    pub(crate) interval: String,
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Debug, Group)]
pub(crate) struct Spec {
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(crate) bundle: PathBuf,
    /// With a user namespace that maps the caller
    #[arg(long)]
    pub(crate) rootless: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_by_name() {
        let parse = |words: &[&str]| {
            Args::try_parse_from([&["paddock-oci"], words, &["state", "x"]].concat())
                .map(|args| args.cgroup_manager)
        };
        assert_eq!(parse(&[]).unwrap(), CgroupManager::Cgroupfs);
        for (name, manager) in [
            ("cgroupfs", CgroupManager::Cgroupfs),
            ("systemd", CgroupManager::Systemd),
            ("disabled", CgroupManager::Disabled),
        ] {
            assert_eq!(parse(&["--cgroup-manager", name]).unwrap(), manager);
        }
        for name in ["", "none", "Disabled"] {
            assert!(parse(&["--cgroup-manager", name]).is_err(), "{name:?}");
        }
    }
}
