//! Find and drive cgroups on v1, hybrid and v2 hosts.
//!
//! A host's layout is a map from controller to hierarchy, never one of three modes: each
//! limit is written where its controller lives and read back. Fails with the path and the
//! operation; whatever a failed call had made is removed again.
#![forbid(unsafe_code)]

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What a container may use. Absent means the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes; `memory.max` or `memory.limit_in_bytes`.
    pub memory: Option<u64>,
    /// Docker's meaning: memory plus swap, bytes; `-1` is unlimited swap.
    pub memory_swap: Option<i64>,
    /// Quota and period in microseconds; `cpu.max` or `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
    pub cpu_quota: Option<CpuQuota>,
    /// Docker's shares, 2 to 262144; `cpu.shares`, or `cpu.weight` by the quadratic formula.
    pub cpu_shares: Option<u64>,
    /// A list such as `0-2,5`; `cpuset.cpus`.
    pub cpuset_cpus: Option<String>,
    /// `pids.max`; `-1` is unlimited.
    pub pids: Option<i64>,
}

/// `--cpus 0.5` is 50000 of every 100000 microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuQuota {
    pub quota: u64,
    pub period: u64,
}

/// How the host's controllers are spread, for people; code asks [`Hierarchies`] per controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    V1,
    Hybrid,
    V2,
}

/// The host's cgroup hierarchies, as mounted.
#[derive(Clone, Debug)]
pub struct Hierarchies {}

impl Hierarchies {
    /// Reads mountinfo and `/proc/cgroups` of the calling process.
    pub fn discover() -> Result<Self, Error> {
        todo!()
    }
    pub fn layout(&self) -> Layout {
        todo!()
    }
    /// Mount point of the v2 hierarchy, with or without controllers.
    pub fn unified(&self) -> Option<&Path> {
        todo!()
    }
}

/// One cgroup path, present in every hierarchy of the host.
#[derive(Debug)]
pub struct Cgroup {}

impl Cgroup {
    /// Makes `path` (relative, such as `paddock/default/ab12`) in every hierarchy, enabling
    /// the controllers on the way down; on failure removes what it made.
    pub fn create(hierarchies: &Hierarchies, path: &str) -> Result<Self, Error> {
        todo!()
    }
    /// Opens a path that exists in at least one hierarchy (found containers).
    pub fn open(hierarchies: &Hierarchies, path: &str) -> Result<Self, Error> {
        todo!()
    }
    pub fn path(&self) -> &str {
        todo!()
    }
    /// Writes the limits and reads them back; an error names file, value and the present use.
    pub fn apply(&self, limits: &Limits) -> Result<(), Error> {
        todo!()
    }
    /// The v2 directory for `CLONE_INTO_CGROUP`; `None` without a v2 hierarchy.
    pub fn unified_fd(&self) -> Result<Option<OwnedFd>, Error> {
        todo!()
    }
    /// Directories of this cgroup in the v1 hierarchies, whose `cgroup.procs` a child joins.
    pub fn v1_dirs(&self) -> Vec<PathBuf> {
        todo!()
    }
    /// The ids the kernel half keys on: inode numbers of the directories.
    pub fn ids(&self) -> Result<CgroupIds, Error> {
        todo!()
    }
    /// Moves a process in, in every hierarchy.
    pub fn attach(&self, pid: i32) -> Result<(), Error> {
        todo!()
    }
    /// Process ids in this cgroup and below.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        todo!()
    }
    /// Kills everything in it, by `cgroup.kill` where it is, else freeze, SIGKILL, thaw; waits until it is empty.
    pub fn kill(&self) -> Result<(), Error> {
        todo!()
    }
    /// Removes it and what is below, in every hierarchy. Gone already is no error.
    pub fn remove(&self) -> Result<(), Error> {
        todo!()
    }
    /// Reads use and limits now. A value the host does not offer is `None`.
    pub fn stats(&self) -> Result<Stats, Error> {
        todo!()
    }
}

/// Inode numbers of a cgroup's directories: kernel `cgroup_id`, unique per hierarchy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupIds {
    pub unified: Option<u64>,
    pub memory_v1: Option<u64>,
    pub pids_v1: Option<u64>,
}

/// Use and limits, base units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub cpu_usage_usec: Option<u64>,
    pub cpu_user_usec: Option<u64>,
    pub cpu_system_usec: Option<u64>,
    pub cpu_periods: Option<u64>,
    pub cpu_throttled_periods: Option<u64>,
    pub cpu_throttled_usec: Option<u64>,
    pub memory_usage_bytes: Option<u64>,
    /// `usage - inactive_file`, as docker shows it.
    pub memory_working_set_bytes: Option<u64>,
    pub memory_peak_bytes: Option<u64>,
    /// `None` when unlimited.
    pub memory_limit_bytes: Option<u64>,
    /// v2 `memory.events: oom_kill`, v1 `memory.oom_control: oom_kill`.
    pub memory_oom_kills: Option<u64>,
    pub pids_current: Option<u64>,
    pub pids_limit: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}
