//! `run`'s flags, in the groups that its help shows. Names are docker's.

use std::net::IpAddr;

use paddock_agent::{
    api::{HostDevice, NamespaceMode, Tmpfs, Volume},
    life::RestartPolicy,
    mount::{self, Mounted},
};
use paddock_cgroups::DeviceRule;
use paddock_runtime::spec::Rlimit;

use super::{
    env_file::{EnvFile, env_file},
    flags::{self, Network, Ports, SecurityOption},
};

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
    /// Variables from a file, a line each
    #[arg(long = "env-file", value_name = "FILE", value_parser = env_file)]
    pub(crate) env_files: Vec<EnvFile>,
    /// Program to run the command by, in place of the image's; '' is none
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Directory to start in (default: the image's, else /; with 'host' the current one)
    #[arg(short, long, value_name = "DIR", value_parser = flags::workdir)]
    pub(crate) workdir: Option<String>,
    /// A first process that reaps and hands signals on
    #[arg(long)]
    pub(crate) init: bool,
    /// Who runs it (default: root), names by the container's own files
    #[arg(short, long, value_name = "UID[:GID]|NAME[:GROUP]", value_parser = flags::user, allow_hyphen_values = true)]
    pub(crate) user: Option<String>,
    /// One more group of the user's
    #[arg(long, value_name = "GROUP", value_parser = flags::group)]
    pub(crate) group_add: Vec<String>,
    /// One capability more, or ALL; a user who is not root has only these
    #[arg(long, value_name = "CAP", value_delimiter = ',', value_parser = flags::capability)]
    pub(crate) cap_add: Vec<String>,
    /// One capability less, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',', value_parser = flags::capability)]
    pub(crate) cap_drop: Vec<String>,
    /// Kernel parameter of its own namespaces
    #[arg(long = "sysctl", value_name = "NAME=VALUE", value_parser = flags::sysctl)]
    pub(crate) sysctls: Vec<(String, String)>,
    /// All capabilities and devices, nothing masked, no seccomp, no AppArmor profile, the host's
    /// user namespace: no boundary against its root
    #[arg(long)]
    pub(crate) privileged: bool,
    /// no-new-privileges[=false], on by default; seccomp=default, hardened, unconfined or a
    /// profile's FILE; apparmor=PROFILE, one that is loaded, or unconfined (default: none is set)
    #[arg(long = "security-opt", value_name = "OPTION", value_parser = flags::security_option)]
    pub(crate) security_options: Vec<SecurityOption>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FileFlags {
    /// Show a file or directory of the host inside
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET[:ro,...]", value_parser = flags::volume)]
    pub(crate) volumes: Vec<Volume>,
    /// Let it use a device of the host's
    #[arg(long = "device", value_name = "SOURCE[:TARGET[:rwm]]", value_parser = flags::device)]
    pub(crate) devices: Vec<HostDevice>,
    /// Let it use what it makes by mknod, such as 'c 42:* rwm'
    #[arg(long = "device-cgroup-rule", value_name = "RULE", value_parser = flags::device_rule)]
    pub(crate) device_rules: Vec<DeviceRule>,
    /// An empty directory in memory
    #[arg(long, value_name = "TARGET[:size=64m,...]", value_parser = mount::tmpfs)]
    pub(crate) tmpfs: Vec<Tmpfs>,
    /// Either of these two, in words: type=bind|tmpfs,source=,target=
    #[arg(long = "mount", value_name = "KEY=VALUE,...", value_parser = flags::mounted)]
    pub(crate) mounts: Vec<Mounted>,
    /// Size of /dev/shm (default: 64m)
    #[arg(long, value_name = "BYTES", value_parser = flags::shm_size, allow_hyphen_values = true)]
    pub(crate) shm_size: Option<u64>,
    /// A line more for /etc/hosts
    #[arg(long = "add-host", value_name = "NAME:ADDRESS", value_parser = flags::add_host)]
    pub(crate) hosts: Vec<(String, IpAddr)>,
    /// Name server for /etc/resolv.conf (default: the host's)
    #[arg(long = "dns", value_name = "ADDRESS")]
    pub(crate) dns: Vec<IpAddr>,
    /// Domain to look names up in; . is none
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Option for /etc/resolv.conf
    #[arg(long = "dns-option", visible_alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_options: Vec<String>,
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
    /// Domain name
    #[arg(long, value_name = "NAME")]
    pub(crate) domainname: Option<String>,
    /// Other ids outside than inside: auto, a user of /etc/subuid, or UID[:SIZE]
    #[arg(long, value_name = "IDS", allow_hyphen_values = true)]
    pub(crate) userns_remap: Option<String>,
    /// Users and capabilities (default: private, or that of a container joined below)
    #[arg(long, value_name = "MODE", value_parser = flags::whose)]
    pub(crate) userns: Option<NamespaceMode>,
    /// Processes: private, host or container:NAME; likewise all that follow
    #[arg(long, value_name = "MODE", value_parser = flags::whose)]
    pub(crate) pid: Option<NamespaceMode>,
    /// Network: also none, private too, or by name a CNI network, or several
    #[arg(long, visible_alias = "net", value_name = "MODE|NAME", value_parser = flags::network)]
    pub(crate) network: Vec<Network>,
    /// Port of the host for one of its own, by the plugin portmap: [ADDRESS:][HOSTPORT:]PORT[/udp]
    #[arg(short = 'p', long = "publish", value_name = "PORTS", value_parser = flags::ports)]
    pub(crate) ports: Vec<Ports>,
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
