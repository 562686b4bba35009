//! What a container may use, and the words for a host's layout.

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

/// How the host's controllers are spread, for people; code asks [`crate::Hierarchies`] per controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    V1,
    Hybrid,
    V2,
}
