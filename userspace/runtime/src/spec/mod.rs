//! What the agent asks the zygote for, written as JSON into the request's memfd.
//!
//! It is what a launcher needs and no more: whoever fills it in (`paddock run`, an OCI bundle)
//! has decided every default, so the plan has one way through it. Ids and paths are the
//! container's own unless said otherwise. The container's cgroup is the agent's to make before
//! each run, and to remove when `launch` itself fails; once a monitor listens, it is the monitor's.
#![forbid(unsafe_code)]

mod account;
mod log;
mod mount;
mod namespace;
mod process;

use std::path::PathBuf;

use paddock_cgroups::DeviceRule;
use serde::{Deserialize, Serialize};

use crate::{network::Networks, trace::Trace};

pub use self::{
    account::{Account, InvalidAccount, Reference, Wanted, id},
    log::LogLimits,
    mount::{Device, Mount, MountSource, Propagation},
    namespace::{IdMap, IdMaps, Joined, Namespace, Namespaces},
    process::{Capabilities, Label, Process, Rlimit, User},
};

/// One process to start under a monitor: a container's first, or one more by `exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// 64 hex digits, docker's form.
    pub id: String,
    /// The monitor's directory, mode 0700, made by the agent: `STATE/containers/ID` or `STATE/containers/ID/exec/EID`.
    pub dir: PathBuf,
    pub process: Process,
    pub target: Target,
    #[serde(default)]
    pub log: LogLimits,
    /// What was done before; its beginning asks for the rest to be told. A container's only.
    #[serde(default)]
    pub trace: Option<Trace>,
    /// To put its new network namespace on. A container's only.
    #[serde(default)]
    pub networks: Option<Networks>,
    /// Each setns of its programs is to be judged before it happens.
    #[serde(default)]
    pub asking: Option<Asking>,
}

/// How the monitor hears of a setns, and whom it asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// Beside the process' own one.
    pub filter: paddock_seccomp::Filter,
    /// Pin of the kernel half's program that judges; where nothing is there, every setns goes on.
    pub program: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Container(Box<ContainerSpec>),
    /// Join a running container.
    Exec(ExecSpec),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub rootfs: Rootfs,
    /// Shows the root's files with their owners taken through these maps; `None`: as on disk.
    #[serde(default)]
    pub root_maps: Option<IdMaps>,
    /// The root mount itself, not what is mounted below it.
    pub read_only: bool,
    /// Needs a UTS namespace that is not the host's, likewise `domainname`.
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// A process of paddock's stays the first one: it reaps and hands signals on (`--init`).
    pub init: bool,
    /// Relative path the agent has made in every hierarchy; the monitor removes it at the end.
    pub cgroup: String,
    pub namespaces: Namespaces,
    /// Of the container's user namespace, whether new or another's; the host's has none.
    pub id_maps: IdMaps,
    /// In the order they are made; /dev, /proc and /sys are among them.
    pub mounts: Vec<Mount>,
    /// Made in the [`MountSource::Dev`] mount, beside docker's six.
    pub devices: Vec<Device>,
    /// Hidden where they exist: a file behind /dev/null, a directory behind an empty one.
    pub masked_paths: Vec<PathBuf>,
    /// Read-only where they exist.
    pub read_only_paths: Vec<PathBuf>,
    /// Name with dots or slashes and value, written below /proc/sys of the container's namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Which devices it may use, later ones counting more; none at all is no limit.
    pub device_rules: Vec<DeviceRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// The host's root as read-only lower layer of a throwaway overlay.
    Host,
    /// A directory, used as it is.
    Directory(PathBuf),
    /// An image's layers below what the container writes.
    Layers(Layers),
}

/// Directories of an overlay, all absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// Read-only, the topmost first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    /// On the file system of `upper`, and empty.
    pub work: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The container's first process and its start time, checked through a pidfd.
    pub pid: i32,
    pub start_time: u64,
    pub cgroup: String,
    /// Names in /proc/PID/ns of the types to join; none at all is all of them. Without `mnt` the
    /// program, its terminal and its /dev/null are the host's.
    #[serde(default)]
    pub types: Vec<String>,
}

impl ExecSpec {
    pub fn joins(&self, name: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|one| one == name)
    }
}
