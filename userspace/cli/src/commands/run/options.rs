//! `run`'s flags, in the groups that its help shows. Names are docker's.

use paddock_agent::api::{NamespaceMode, Volume};
use paddock_runtime::spec::Rlimit;

use super::flags;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Process")]
pub(crate) struct ProcessFlags {
    /// Resource limit of each process, such as nofile=1024:4096
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = flags::ulimit)]
    pub(crate) ulimits: Vec<Rlimit>,
    /// How soon the OOM killer takes it, -1000 (never) to 1000
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(-1000..=1000), allow_negative_numbers = true)]
    pub(crate) oom_score_adj: Option<i32>,
    /// Set a variable, or pass one on
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = flags::variable)]
    pub(crate) env: Vec<String>,
    /// Program to run the command by, in place of the image's; '' is none
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Directory to start in (default: the image's, else /; with 'host' the current one)
    #[arg(short, long, value_name = "DIR", value_parser = flags::workdir)]
    pub(crate) workdir: Option<String>,
    /// A first process that reaps and hands signals on
    #[arg(long)]
    pub(crate) init: bool,
    /// One capability more, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',', value_parser = flags::capability)]
    pub(crate) cap_add: Vec<String>,
    /// One capability less, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',', value_parser = flags::capability)]
    pub(crate) cap_drop: Vec<String>,
    /// no-new-privileges[=false]; it is on by default
    #[arg(long = "security-opt", value_name = "OPTION", value_parser = flags::no_new_privileges)]
    pub(crate) no_new_privileges: Vec<bool>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FileFlags {
    /// Show a file or directory of the host inside
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET[:ro]", value_parser = flags::volume)]
    pub(crate) volumes: Vec<Volume>,
    /// No writing to the root file system
    #[arg(long)]
    pub(crate) read_only: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Namespaces (private by default)")]
pub(crate) struct NamespaceFlags {
    /// Host name (default: the id's first 12 digits)
    #[arg(short = 'h', long, value_name = "NAME", value_parser = flags::hostname)]
    pub(crate) hostname: Option<String>,
    /// Users and capabilities (default: private, or that of a container joined below)
    #[arg(long, value_name = "MODE", value_parser = flags::whose)]
    pub(crate) userns: Option<NamespaceMode>,
    /// Processes: private, host or container:NAME; likewise all that follow
    #[arg(long, value_name = "MODE", value_parser = flags::whose)]
    pub(crate) pid: Option<NamespaceMode>,
    /// Network (none is private too)
    #[arg(long, visible_alias = "net", value_name = "MODE", value_parser = flags::network)]
    pub(crate) network: Option<NamespaceMode>,
    /// System V IPC, POSIX queues and shared memory
    #[arg(long, value_name = "MODE", value_parser = flags::whose)]
    pub(crate) ipc: Option<NamespaceMode>,
    /// Host name
    #[arg(long, value_name = "MODE", value_parser = flags::whose)]
    pub(crate) uts: Option<NamespaceMode>,
    /// The view of /sys/fs/cgroup
    #[arg(long, value_name = "MODE", value_parser = flags::whose)]
    pub(crate) cgroupns: Option<NamespaceMode>,
    /// Clocks since boot (default: host)
    #[arg(long, value_name = "MODE", value_parser = flags::whose)]
    pub(crate) timens: Option<NamespaceMode>,
}
