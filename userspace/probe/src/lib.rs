//! Load the kernel half, choose each capability's hook by what the kernel offers, decode records.
//!
//! Knows nothing of containers: it deals in cgroup ids, slots and namespace inode numbers.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use paddock_abi::namespace::NS_TYPES;
use serde::{Deserialize, Serialize};

/// How to load.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the instance's own bpffs (mounted here by `load` when it is not), holding pins.
    pub pin_dir: PathBuf,
    /// Tests force a lower rung: `(capability, rung)`.
    pub force: Vec<(String, String)>,
    /// aya-log lines of the programs at this level, `None` for verifier-dead code.
    pub program_log: bool,
}

/// What serves a capability on this kernel, and why nothing better does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityStatus {
    /// `setns`, `unshare`, `clone`, `oom`, `cgroup`, `exec`, `exit`.
    pub capability: String,
    /// `fentry`, `btf_tracepoint`, `tracepoint`; `None` is off.
    pub rung: Option<String>,
    /// Higher rungs that were tried, each with its reason and errno.
    pub refused: Vec<Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub rung: String,
    /// Symbolic, such as `EPERM`, where a syscall refused.
    pub errno: Option<String>,
    pub reason: String,
}

/// Kernel identity of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CgroupKey {
    Unified(u64),
    MemoryV1(u64),
    PidsV1(u64),
}

/// Small integer of a tracked container; 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Slot(pub u32);

/// Namespace inode numbers in [`paddock_abi::namespace::NsType`] order; 0 is unknown.
pub type NsInums = [u32; NS_TYPES];
