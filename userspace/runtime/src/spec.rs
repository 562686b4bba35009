//! What the agent asks the zygote for, written as JSON into the request's memfd.
//!
//! The container's cgroup is the agent's to make before, and to remove when `launch` itself
//! fails; once a monitor listens, it is the monitor's.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One process to start under a monitor: a container's first, or one more by `exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// 64 hex digits, docker's form.
    pub id: String,
    /// The monitor's directory, mode 0700, made by the agent: `STATE/containers/ID` or `STATE/containers/ID/exec/EID`.
    pub dir: PathBuf,
    pub process: Process,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Container(Box<ContainerSpec>),
    /// Join a running container.
    Exec(ExecSpec),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub args: Vec<String>,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    /// Made in a container when missing; for an exec a missing one is a failure (126).
    pub cwd: String,
    /// A terminal (`-t`); else three pipes.
    pub terminal: bool,
    /// Keep stdin open for clients (`-i`); else it is /dev/null.
    pub stdin: bool,
    /// Effective, permitted and bounding set by name (`CAP_CHOWN`); inheritable stays empty.
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
    pub rlimits: Vec<Rlimit>,
}

/// Name as in `RLIMIT_NOFILE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub rootfs: Rootfs,
    pub hostname: String,
    /// Relative path the agent has made in every hierarchy; the monitor removes it at the end.
    pub cgroup: String,
    pub namespaces: Namespaces,
    pub binds: Vec<Bind>,
    pub read_only: bool,
    /// Bytes of /dev/shm; docker's default is [`crate::defaults::SHM_SIZE`].
    pub shm_size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// The host's root as read-only lower layer of a throwaway overlay.
    Host,
    /// A directory, used as it is.
    Directory(PathBuf),
}

/// `true`: a new one; `false`: the host's.
#[expect(
    clippy::struct_excessive_bools,
    reason = "one independent choice a namespace"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    pub cgroup: bool,
    pub ipc: bool,
    pub net: bool,
    pub pid: bool,
    /// New ones map 0..=4294967294 to itself: a boundary for capabilities, not for file owners.
    pub user: bool,
    pub uts: bool,
}

/// `-v SOURCE:TARGET[:ro]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    pub source: PathBuf,
    /// Absolute, inside the rootfs; made in it when missing, never followed out of it.
    pub target: PathBuf,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The container's first process and its start time, checked through a pidfd.
    pub pid: i32,
    pub start_time: u64,
    pub cgroup: String,
}
