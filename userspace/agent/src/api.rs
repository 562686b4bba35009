//! What crosses the agent's socket: HTTP/1.1 and JSON on `STATE/paddock.sock`, root only.
//!
//! | Method and path | Body | Answer |
//! |---|---|---|
//! | `POST /v1/containers` | [`CreateRequest`] | 201 [`Created`]: the monitor waits for its start |
//! | `POST /v1/containers/{ref}/start` | | 200 [`StartedReply`] |
//! | `GET /v1/containers?all=true` | | 200 `[ContainerSummary]` |
//! | `GET /v1/containers/{ref}` | | 200 [`ContainerDetail`] |
//! | `POST /v1/containers/{ref}/exec` | [`ExecRequest`] | 201 [`Created`] |
//! | `POST /v1/containers/{ref}/kill?signal=15` | | 204 |
//! | `POST /v1/containers/{ref}/stop?timeout=10` | | 204 |
//! | `POST /v1/containers/{ref}/pause`, `/unpause` | | 204 |
//! | `POST /v1/containers/{ref}/update` | [`Limits`] | 200 [`Limits`], all that it has now |
//! | `POST /v1/containers/{ref}/wait` | | 200 [`WaitReply`], when it ended |
//! | `DELETE /v1/containers/{ref}?force=false` | | 204 |
//! | `GET /v1/containers/{ref}/logs` | | 200, JSON lines of [`LogLine`] |
//! | `GET /v1/events?follow=true&container=REF` | | 200, JSON lines of [`crate::event::Event`] |
//! | `GET /v1/namespaces` | | 200 `[NamespaceEntry]` |
//! | `GET /v1/check` | | 200 [`CheckReport`] |
//! | `POST /v1/shutdown` | | 204, then the agent ends |
//!
//! `{ref}` is a name, a full id, or an id's unambiguous prefix. Failures carry [`ErrorBody`]
//! with 400 (bad input), 404 (no such container), 409 (name in use, wrong state) or 500.

use std::path::PathBuf;

use paddock_cgroups::{Layout, Limits, Stats};
use paddock_images::Digest;
use paddock_probe::CapabilityStatus;
use serde::{Deserialize, Serialize};

/// What `paddock run` asks for; the agent fills in id, cgroup and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of `run`, by docker's name"
)]
pub struct CreateRequest {
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
    pub volumes: Vec<Volume>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub no_new_privileges: bool,
    pub read_only: bool,
    pub rlimits: Vec<paddock_runtime::spec::Rlimit>,
    /// -1000 to 1000, its execs' too.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// The image's; nothing acts on it yet.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// As the image has it: `USER[:GROUP]`.
    #[serde(default)]
    pub user: Option<String>,
    pub labels: Vec<(String, String)>,
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

/// `-v SOURCE:TARGET[:ro]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The host's.
    pub source: PathBuf,
    /// Absolute, inside; made when missing, never followed out of the root.
    pub target: PathBuf,
    pub read_only: bool,
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
    pub terminal: bool,
    pub stdin: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Created,
    Running,
    /// Frozen, as its cgroup says; nothing keeps this but the kernel.
    Paused,
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
    pub state: State,
    /// First process, host pid; absent when it does not run.
    pub pid: Option<i32>,
    pub created_at_ns: u64,
    pub started_at_ns: Option<u64>,
    pub finished_at_ns: Option<u64>,
    pub exit_code: Option<i32>,
    /// The main process itself was a victim of the OOM killer.
    pub oom_killed: bool,
    /// Processes the OOM killer took, main and children.
    pub oom_kills: u64,
    pub escapes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerDetail {
    #[serde(flatten)]
    pub summary: ContainerSummary,
    pub cgroup: String,
    pub limits: Limits,
    /// `type -> inode number` as /proc/PID/ns shows.
    pub namespaces: std::collections::BTreeMap<String, u64>,
    /// The subset of `namespaces` that is the host's.
    pub host_namespaces: Vec<String>,
    pub stats: Option<Stats>,
    pub request: Option<CreateRequest>,
    /// The kernel half's small integer; absent when no kernel half runs.
    pub slot: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitReply {
    pub exit_code: i32,
    pub oom_killed: bool,
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
    pub controllers: std::collections::BTreeMap<String, String>,
    /// Host namespace inode numbers.
    pub namespaces: std::collections::BTreeMap<String, u64>,
    pub lsm: Vec<String>,
    pub btf: bool,
    pub capabilities: Vec<CapabilityStatus>,
    /// Present when an agent answered.
    pub agent: Option<AgentInfo>,
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
