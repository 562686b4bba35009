//! What crosses the agent's socket: HTTP/1.1 and JSON on `STATE/paddock.sock`, root only.
//!
//! | Method and path | Body | Answer |
//! |---|---|---|
//! | `POST /v1/containers?prepare=true` | [`CreateRequest`] | 201 [`Created`]: the monitor waits for its start; with `false`, none is there yet |
//! | `POST /v1/containers/{ref}/prepare` | | 200 [`Created`]: the same for another run, or the first |
//! | `POST /v1/containers/{ref}/start` | | 200 [`StartedReply`] |
//! | `GET /v1/containers?all=true` | | 200 `[ContainerSummary]` |
//! | `GET /v1/containers/{ref}` | | 200 [`ContainerDetail`] |
//! | `GET /v1/containers/{ref}/stats` | | 200 [`ContainerStats`], null where it does not run |
//! | `GET /v1/stats` | | 200 `[ContainerStats]`, of all that run |
//! | `POST /v1/containers/{ref}/exec` | [`ExecRequest`] | 201 [`Created`] |
//! | `POST /v1/containers/{ref}/kill?signal=15` | | 204 |
//! | `POST /v1/containers/{ref}/stop?timeout=10&signal=15` | | 204 |
//! | `POST /v1/containers/{ref}/restart?timeout=10&signal=15` | | 200 [`StartedReply`] |
//! | `POST /v1/containers/{ref}/pause`, `/unpause` | | 204 |
//! | `POST /v1/containers/{ref}/update` | [`Limits`] | 200 [`Limits`], all that it has now |
//! | `POST /v1/containers/{ref}/wait?ended_at_ns=N` | | 200 [`WaitReply`], when it ended, or its present run did, or a run that ended at N or later |
//! | `DELETE /v1/containers/{ref}?force=false` | | 204 |
//! | `GET /v1/containers/{ref}/logs` | | 200, JSON lines of [`LogLine`] |
//! | `GET /v1/events?follow=true&container=REF&kind=K,K&verdict=V,V&since_ns=N&until_ns=N` | | 200, JSON lines of [`crate::event::Event`] |
//! | `GET /v1/events/{id}/explain` | | 200 [`Explanation`] |
//! | `GET /v1/policies` | | 200 `[PolicySummary]` |
//! | `PUT /v1/policies?mode=M&when_unenforceable=W` | a policy file | 200 [`PolicySummary`]: in force, in the place of one of its name |
//! | `GET /v1/policies/{name}` | | 200 [`PolicyDetail`] |
//! | `POST /v1/policies/check` | a policy file | 200 [`PolicyCheck`], nothing in force |
//! | `POST /v1/policies/{name}/mode?mode=M&when_unenforceable=W` | | 200 [`PolicySummary`] |
//! | `DELETE /v1/policies/{name}` | | 204 |
//! | `GET /v1/namespaces` | | 200 `[NamespaceEntry]` |
//! | `GET /v1/check` | | 200 [`CheckReport`] |
//! | `POST /v1/shutdown` | | 204, then the agent ends |
//!
//! `{ref}` is a name, a full id, or an id's unambiguous prefix. Failures carry [`ErrorBody`]
//! with 400 (bad input), 404 (no such container), 409 (name in use, wrong state) or 500.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use paddock_cgroups::{DeviceAccess, DeviceRule, Layout, Limits, Stats};
pub use paddock_cni::{PortMapping, is_name as is_network, parse_port};
use paddock_images::Digest;
use paddock_probe::{CapabilityStatus, MapMemory};
use serde::{Deserialize, Serialize};

mod policies;

pub use self::policies::{
    Allow, Explanation, HeldRule, PolicyCheck, PolicyDetail, PolicyOverrides, PolicySummary,
    RuleSummary,
};
use crate::life::LifeOptions;
pub use crate::mount::{MountFlags, Tmpfs, Volume};

/// What `paddock run` asks for; the agent fills in id, cgroup and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of `run`, by docker's name"
)]
pub struct CreateRequest {
    /// What chose the defaults below; they are resolved.
    #[serde(default)]
    pub profile: Profile,
    /// Absent: made up, docker's way (`brave_otter`).
    pub name: Option<String>,
    pub rootfs: Root,
    /// As the user typed it: `host`, the path, or the image's name.
    pub image: String,
    /// After the entrypoint; empty: the image's own.
    pub args: Vec<String>,
    /// Absent: the image's; one empty word: none.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    pub env: Vec<String>,
    pub cwd: Option<String>,
    /// Absent: the id's first 12 digits.
    pub hostname: Option<String>,
    pub terminal: bool,
    pub stdin: bool,
    /// A first process that reaps and hands signals on, before the command.
    #[serde(default)]
    pub init: bool,
    /// Remove it when it ends.
    pub remove: bool,
    pub limits: Limits,
    pub namespaces: NamespaceModes,
    /// CNI networks to put a private network on, by name: eth0, eth1…
    #[serde(default)]
    pub networks: Vec<String>,
    /// Of the host, that lead to the container's.
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// `auto`, a user of /etc/subuid, or `UID[:SIZE]`; absent: ids inside are those outside.
    pub userns_remap: Option<String>,
    pub volumes: Vec<Volume>,
    pub tmpfs: Vec<Tmpfs>,
    /// Of /dev/shm, in bytes.
    pub shm_size: Option<u64>,
    pub lookup: Lookup,
    /// Of the container's own namespaces only.
    pub sysctls: Vec<(String, String)>,
    /// Absent: root. In [`paddock_runtime::spec::Wanted`]'s notation.
    pub user: Option<String>,
    /// More groups of the user's, by name or number.
    pub group_add: Vec<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub no_new_privileges: bool,
    pub read_only: bool,
    pub rlimits: Vec<paddock_runtime::spec::Rlimit>,
    /// -1000 to 1000, its execs' too.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    pub labels: Vec<(String, String)>,
    #[serde(default)]
    pub life: LifeOptions,
    #[serde(default)]
    pub seccomp: Seccomp,
    /// `--security-opt apparmor=`: a loaded profile's name, or `unconfined`; absent: the agent's
    /// own.
    #[serde(default)]
    pub apparmor: Option<String>,
    #[serde(default)]
    pub devices: Vec<HostDevice>,
    /// `--device-cgroup-rule`, after the defaults and those of `devices`.
    #[serde(default)]
    pub device_rules: Vec<DeviceRule>,
    /// Every device of the host's, nothing masked, /proc and /sys writable.
    #[serde(default)]
    pub privileged: bool,
    /// The first run tells what was done for it: [`paddock_runtime::record::Started::steps`].
    #[serde(default)]
    pub trace: bool,
}

/// `--profile`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Docker's defaults.
    #[default]
    Default,
    /// What a server can do without is gone.
    Hardened,
}

/// `--device SOURCE[:TARGET[:rwm]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDevice {
    /// The host's node; a symlink is followed.
    pub source: PathBuf,
    /// Below /dev, inside.
    pub target: PathBuf,
    pub access: DeviceAccess,
}

/// `--security-opt seccomp=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// Docker's rules for the container's capabilities.
    #[default]
    Default,
    /// Fewer: no tracing, four socket families, the machine's own calls only.
    Hardened,
    Unconfined,
    /// A profile's JSON, Docker's form or OCI's.
    Profile(String),
}

/// Whose namespaces the container gets, by docker's flags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceModes {
    pub cgroup: NamespaceMode,
    pub ipc: NamespaceMode,
    pub network: NamespaceMode,
    pub pid: NamespaceMode,
    pub time: NamespaceMode,
    /// Absent: private, or that of the container whose namespaces are joined.
    pub user: Option<NamespaceMode>,
    pub uts: NamespaceMode,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    Private,
    Host,
    /// A running one's, by name or id.
    Container(String),
}

/// What a container finds in /etc/hosts and /etc/resolv.conf beside the usual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    pub domainname: Option<String>,
    pub hosts: Vec<(String, IpAddr)>,
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl Lookup {
    /// More than a name: something that files have to tell.
    pub(crate) fn is_asked(&self) -> bool {
        !(self.hosts.is_empty()
            && self.servers.is_empty()
            && self.search.is_empty()
            && self.options.is_empty())
    }
}

impl Default for NamespaceModes {
    /// All private but the time namespace, as with docker.
    fn default() -> Self {
        let private = NamespaceMode::Private;
        Self {
            cgroup: private.clone(),
            ipc: private.clone(),
            network: private.clone(),
            pid: private.clone(),
            time: NamespaceMode::Host,
            user: None,
            uts: private,
        }
    }
}

/// What a container's root is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// The host's, with a throwaway over it.
    Host,
    /// A directory, used as it is.
    Directory(PathBuf),
    /// An image in the agent's data directory, by its id.
    Image(Digest),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Created {
    pub id: String,
    pub name: String,
    /// What it runs: the entrypoint and its arguments.
    pub command: Vec<String>,
    /// Where the monitor listens: clients attach and start through it or through the API.
    pub monitor_socket: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartedReply {
    pub pid: i32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecRequest {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: Option<String>,
    /// Absent: the container's.
    pub user: Option<String>,
    pub terminal: bool,
    pub stdin: bool,
    /// Namespaces to join, as /proc/PID/ns names them; none at all is all of them.
    #[serde(default)]
    pub types: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Created,
    Running,
    /// Frozen, as its cgroup says; nothing keeps this but the kernel.
    Paused,
    /// Between two runs.
    Restarting,
    Exited,
}

/// Who started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Launched,
    Found,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerSummary {
    pub id: String,
    pub name: String,
    pub image: String,
    pub command: Vec<String>,
    pub origin: Origin,
    /// Name of the container that it is nested in; what is counted of it is counted there, too.
    #[serde(default)]
    pub parent: Option<String>,
    pub state: State,
    /// First process, host pid; absent when it does not run.
    pub pid: Option<i32>,
    pub created_at_ns: u64,
    pub started_at_ns: Option<u64>,
    pub finished_at_ns: Option<u64>,
    pub exit_code: Option<i32>,
    /// The main process itself was a victim of the OOM killer.
    pub oom_killed: bool,
    /// What the OOM killer did in its present run, or the last.
    #[serde(default)]
    pub oom: Option<OomReport>,
    /// Processes the OOM killer took, main and children, of all runs.
    pub oom_kills: u64,
    /// By its restart policy, since somebody started it.
    #[serde(default)]
    pub restart_count: u32,
    pub escapes: u64,
    /// Of the host that lead to it while it runs.
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    #[serde(default)]
    pub labels: Vec<(String, String)>,
}

/// The OOM killer in one run of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomReport {
    pub victim: OomVictim,
    /// `memcg`: a limit of the container's or of a cgroup above; `host`: the machine had no
    /// more; absent when nobody saw.
    pub constraint: Option<String>,
    /// Bytes of the limit that was hit.
    pub limit_bytes: Option<u64>,
    pub kills: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OomVictim {
    MainProcess,
    /// Others; the main process went on.
    Child,
    /// All of it at once: `memory.oom.group`.
    Group,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerDetail {
    #[serde(flatten)]
    pub summary: ContainerSummary,
    pub cgroup: String,
    pub limits: Limits,
    /// `type -> inode number` as /proc/PID/ns shows.
    pub namespaces: BTreeMap<String, u64>,
    /// The subset of `namespaces` that is the host's.
    pub host_namespaces: Vec<String>,
    pub stats: Option<Stats>,
    pub request: Option<CreateRequest>,
    /// The kernel half's small integer; absent when no kernel half runs.
    pub slot: Option<u32>,
    /// CNI networks that it is on.
    #[serde(default)]
    pub networks: Vec<NetworkDetail>,
}

/// What a running container uses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerStats {
    pub id: String,
    pub name: String,
    /// As its summary has it, as do the next four.
    #[serde(default)]
    pub image: String,
    pub origin: Origin,
    #[serde(default)]
    pub parent: Option<String>,
    /// Running or paused.
    #[serde(default = "running")]
    pub state: State,
    #[serde(default)]
    pub started_at_ns: Option<u64>,
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// 100 is one CPU's whole time; absent where the host counts none.
    pub cpu_percent: Option<f64>,
    /// Over which it is: since somebody last looked, which the agent does every ten seconds.
    pub cpu_window_ns: Option<u64>,
    #[serde(flatten)]
    pub stats: Stats,
    /// What its sockets took and sent, of all runs; absent where nobody counts it.
    #[serde(default)]
    pub network: Option<Traffic>,
    /// Processes the OOM killer took, of all runs.
    pub oom_kills: u64,
    pub escapes: u64,
}

/// Packets of IP, and their bytes with IP's headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub received_bytes: u64,
    pub received_packets: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
}

/// What an older agent does not say.
fn running() -> State {
    State::Running
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkDetail {
    pub name: String,
    /// Inside.
    pub interface: String,
    pub addresses: Vec<IpAddr>,
    pub mac: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitReply {
    pub exit_code: i32,
    pub oom_killed: bool,
    #[serde(default)]
    pub oom: Option<OomReport>,
    /// Set when it ended otherwise than by itself: `monitor was killed`.
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    pub time_ns: u64,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Lossy UTF-8, with its line feed when it had one.
    pub text: String,
}

/// Whose a namespace is, by the processes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceOwner {
    /// The first of its type, whoever is in it.
    Host,
    /// One container's alone.
    Own,
    /// Several containers', or a container's and others'.
    Shared,
    /// No container's.
    Other,
}

/// One namespace that has a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamespaceEntry {
    /// As in /proc/PID/ns.
    pub namespace: String,
    pub inode: u64,
    pub owner: NamespaceOwner,
    /// Names of those with a process in it.
    pub containers: Vec<String>,
    pub processes: u64,
    /// The lowest one in it, its user on the host, its arguments.
    pub pid: i32,
    pub user: u32,
    pub command: String,
}

/// `paddock check`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckReport {
    pub schema_version: u32,
    pub version: String,
    pub kernel: String,
    pub cgroup_layout: Layout,
    /// `controller -> mount point`.
    pub controllers: BTreeMap<String, String>,
    /// Where containers' cgroups are in each hierarchy, and why there.
    pub cgroup_parent: String,
    pub cgroup_parent_reason: String,
    /// Host namespace inode numbers.
    pub namespaces: BTreeMap<String, u64>,
    pub lsm: Vec<String>,
    pub btf: bool,
    pub capabilities: Vec<CapabilityStatus>,
    /// Of the kernel half's maps and rings.
    pub memory: Memory,
    /// Present when an agent answered.
    pub agent: Option<AgentInfo>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    pub total_bytes: u64,
    /// The largest first.
    pub maps: Vec<MapMemory>,
}

impl From<Vec<MapMemory>> for Memory {
    fn from(maps: Vec<MapMemory>) -> Self {
        Self {
            total_bytes: maps.iter().map(|map| map.bytes).sum(),
            maps,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentInfo {
    pub pid: i32,
    pub state_dir: PathBuf,
    pub metrics_address: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// One line: what, where, what to do.
    pub error: String,
    /// Docker's exit code for the command that met it, where one applies (125, 126, 127).
    pub exit_code: Option<i32>,
}
