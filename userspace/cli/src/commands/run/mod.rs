//! `paddock run`: make a container, start it, stay with it (or not, with `-d`).
//!
//! Exit codes are docker's: the workload's own, 128 + signal, 127 and 126 for a command that is
//! not there or cannot be executed, 125 for everything before.

mod flags;
mod request;

use paddock_agent::api::{ContainerSummary, Created, StartedReply};
use paddock_runtime::record::Exit;

use self::flags::{Choice, Image, Network};
pub(crate) use self::request::environment;
use super::Context;
use crate::{
    attach::{self, Attach, End, Mode},
    client::{Client, Error, container_path},
    ephemeral, exit,
    output::print,
};

/// Run a program in a container
///
/// IMAGE is 'host' (the host's files, changes thrown away) or the path of a root file system.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    override_usage = "paddock run [OPTIONS] IMAGE [COMMAND [ARG]...]",
    after_help = "Examples:\n  \
        paddock run --rm --memory 256m --cpus 0.5 host make test\n  \
        paddock run -d --name web -v /srv:/srv:ro ./rootfs /bin/server\n  \
        paddock run --rm -it host bash"
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Run {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,

    /// Name to call it by (default: made up)
    #[arg(long)]
    name: Option<String>,
    /// Remove it when it ends
    #[arg(long)]
    rm: bool,
    /// Run in the background and print its id
    #[arg(short, long)]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Label to find it by
    #[arg(short, long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<String>,

    /// Memory limit, such as 256m
    #[arg(short, long, value_name = "BYTES", value_parser = paddock_cgroups::parse::memory, help_heading = "Limits")]
    memory: Option<u64>,
    /// Memory and swap together; -1 is unlimited swap
    #[arg(long, value_name = "BYTES", value_parser = paddock_cgroups::parse::memory_swap, allow_hyphen_values = true, requires = "memory", help_heading = "Limits")]
    memory_swap: Option<i64>,
    /// CPUs' worth of time, such as 0.5
    #[arg(long, value_name = "NUMBER", value_parser = paddock_cgroups::parse::cpus, help_heading = "Limits")]
    cpus: Option<paddock_cgroups::CpuQuota>,
    /// Weight against others, 2 to 262144 (default: 1024)
    #[arg(long, value_name = "SHARES", value_parser = paddock_cgroups::parse::cpu_shares, help_heading = "Limits")]
    cpu_shares: Option<u64>,
    /// CPUs to run on, such as 0-2,5
    #[arg(long, value_name = "LIST", value_parser = paddock_cgroups::parse::cpuset, help_heading = "Limits")]
    cpuset_cpus: Option<String>,
    /// Most processes and threads; -1 is unlimited
    #[arg(long, value_name = "NUMBER", value_parser = paddock_cgroups::parse::pids_limit, allow_hyphen_values = true, help_heading = "Limits")]
    pids_limit: Option<i64>,
    /// Resource limit, such as nofile=1024:4096
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = flags::ulimit, help_heading = "Limits")]
    ulimits: Vec<paddock_runtime::spec::Rlimit>,

    /// Set a variable, or pass one on
    #[arg(
        short,
        long = "env",
        value_name = "KEY[=VALUE]",
        help_heading = "Process"
    )]
    env: Vec<String>,
    /// Directory to start in
    #[arg(short, long, value_name = "DIR", value_parser = flags::workdir, help_heading = "Process")]
    workdir: Option<String>,
    /// Give a capability more, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',', value_parser = flags::capability, help_heading = "Process")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',', value_parser = flags::capability, help_heading = "Process")]
    cap_drop: Vec<String>,
    /// no-new-privileges[=false] (default: true)
    #[arg(long = "security-opt", value_name = "OPTION", value_parser = flags::no_new_privileges, help_heading = "Process")]
    no_new_privileges: Vec<bool>,

    /// Show a host's file or directory inside
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET[:ro]", value_parser = flags::volume, help_heading = "Files")]
    volumes: Vec<paddock_runtime::spec::Bind>,
    /// No writing to the root file system
    #[arg(long, help_heading = "Files")]
    read_only: bool,

    /// Host name (default: the id's first 12 digits)
    #[arg(short = 'h', long, value_name = "NAME", value_parser = flags::hostname, help_heading = "Namespaces")]
    hostname: Option<String>,
    /// A user namespace of its own, or the host's
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHOSE",
        help_heading = "Namespaces",
        hide_possible_values = true
    )]
    userns: Choice,
    /// Private (default) or host
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHOSE",
        help_heading = "Namespaces",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pid: Choice,
    /// Private (default; also none) or host
    #[arg(
        long,
        visible_alias = "net",
        value_enum,
        default_value_t,
        value_name = "WHOSE",
        help_heading = "Namespaces",
        hide_default_value = true,
        hide_possible_values = true
    )]
    network: Network,
    /// Private (default) or host
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHOSE",
        help_heading = "Namespaces",
        hide_default_value = true,
        hide_possible_values = true
    )]
    ipc: Choice,
    /// Private (default) or host
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHOSE",
        help_heading = "Namespaces",
        hide_default_value = true,
        hide_possible_values = true
    )]
    uts: Choice,
    /// Private (default) or host
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHOSE",
        help_heading = "Namespaces",
        hide_default_value = true,
        hide_possible_values = true
    )]
    cgroupns: Choice,

    /// 'host' or the path of a root file system
    #[arg(value_parser = flags::image)]
    image: Image,
    /// What to run in it (default: /bin/sh)
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Run {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        if !self.detach {
            attach::check_input(self.interactive, self.tty)?;
        }
        let client = Client::new(&context.state_dir)?;
        let created = self.create(context, &client)?;
        if self.detach {
            let path = container_path(&created.id, "/start");
            let _: StartedReply = client.post(&path)?;
            print(&format!("{}\n", created.id))?;
            return Ok(0);
        }
        let attach = Attach {
            name: &created.name,
            monitor: &created.monitor_socket,
            terminal: self.tty,
            stdin: self.interactive,
            mode: Mode::Start,
        };
        match attach.run()? {
            End::Exited(exit) => {
                let main = was_main_process(&client, &created.id, &exit);
                if let Some(line) = attach::out_of_memory(&created.name, &exit, main) {
                    exit::note(&line);
                }
                Ok(exit::from_workload(exit.exit_code))
            }
            End::Failed(failed) => {
                Err(attach::failed(&created.name, self.program(), &failed).into())
            }
            End::ReaderLeft => Ok(exit::BROKEN_PIPE),
            End::Detached => Ok(0),
            End::MonitorGone => Err(attach::monitor_gone(&created.name)),
        }
    }

    /// An agent that is about to end can take the connection and not the request: asked twice.
    fn create(&self, context: &Context, client: &Client) -> anyhow::Result<Created> {
        let request = self.request();
        ephemeral::ensure(&context.state_dir)?;
        match client.post_json("/v1/containers", &request) {
            Err(Error::NoAgent { .. } | Error::Broken { .. }) => {
                ephemeral::ensure(&context.state_dir)?;
                Ok(client.post_json("/v1/containers", &request)?)
            }
            answer => Ok(answer?),
        }
    }
}

/// Whether the main process itself was a victim. The agent saw it in the kernel; where it is
/// gone or has forgotten, SIGKILL and a kill in the cgroup's own count have to do.
fn was_main_process(client: &Client, id: &str, exit: &Exit) -> bool {
    if exit.signal != Some(9) || exit.stats.memory_oom_kills.unwrap_or(0) == 0 {
        return false;
    }
    client
        .get::<ContainerSummary>(&container_path(id, ""))
        .map_or(true, |container| container.oom_killed)
}
