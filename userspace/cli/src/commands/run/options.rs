//! `run`'s flags, in the groups that its help shows. Names are docker's.

use paddock_agent::{
    api::{HostDevice, NamespaceMode, Volume},
    life::RestartPolicy,
};
use paddock_cgroups::DeviceRule;
use paddock_runtime::spec::Rlimit;

use super::flags::{self, SecurityOption};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Life")]
pub(crate) struct LifeFlags {
    /// Run it again when it ends: no, on-failure[:NUMBER], always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = str::parse::<RestartPolicy>, default_value = "no", hide_default_value = true)]
    pub(crate) restart: RestartPolicy,
    /// Signal that asks it to end (default: TERM)
    #[arg(long, value_name = "SIGNAL", value_parser = paddock_agent::signal::parse)]
    pub(crate) stop_signal: Option<i32>,
    /// Seconds between that and SIGKILL, -1 for ever (default: 10)
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) stop_timeout: Option<i32>,
    /// max-size=BYTES (default: 10m) or max-file=NUMBER (default: 2) of its log
    #[arg(long = "log-opt", value_name = "OPTION", value_parser = flags::log_option)]
    pub(crate) log_options: Vec<flags::LogOption>,
}

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
    /// Directory to start in (default: / or, with 'host', the current one)
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
    /// All capabilities and devices, nothing masked, no seccomp, the host's user namespace: no
    /// boundary against its root
    #[arg(long)]
    pub(crate) privileged: bool,
    /// no-new-privileges[=false], on by default; seccomp=default, unconfined or a profile's FILE
    #[arg(long = "security-opt", value_name = "OPTION", value_parser = flags::security_option)]
    pub(crate) security_options: Vec<SecurityOption>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FileFlags {
    /// Show a file or directory of the host inside
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET[:ro]", value_parser = flags::volume)]
    pub(crate) volumes: Vec<Volume>,
    /// Let it use a device of the host's
    #[arg(long = "device", value_name = "SOURCE[:TARGET[:rwm]]", value_parser = flags::device)]
    pub(crate) devices: Vec<HostDevice>,
    /// Let it use what it makes by mknod, such as 'c 42:* rwm'
    #[arg(long = "device-cgroup-rule", value_name = "RULE", value_parser = flags::device_rule)]
    pub(crate) device_rules: Vec<DeviceRule>,
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
