//! What a container may use: one data model for `run`, `update` and OCI's `linux.resources`.
//!
//! Absent means "leave the kernel's value". Where OCI has -1 for unlimited, so has this. OCI's
//! kernel and TCP memory limits are not here: no kernel since 6.1 has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub memory: MemoryLimits,
    pub cpu: CpuLimits,
    pub cpuset: CpusetLimits,
    pub io: IoLimits,
    /// Tasks; `pids.max`. -1 is unlimited, 0 is a limit like any other: nothing can be forked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<i64>,
    /// Bytes of huge pages by their size as the kernel spells it, `2MB`; OCI's `hugepageLimits`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hugetlb: BTreeMap<String, u64>,
    /// By device, such as `mlx5_1`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rdma: BTreeMap<String, RdmaLimit>,
    /// `misc.max` by resource, such as `sev`; -1 is unlimited.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub misc: BTreeMap<String, i64>,
    /// cgroup v2 files by name, written last, as they are.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unified: BTreeMap<String, String>,
}

/// Bytes; -1 is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryLimits {
    /// `memory.max`, `memory.limit_in_bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Docker's and OCI's meaning: memory plus swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<i64>,
    /// What reclaim spares if it can: `memory.low`; v1's `memory.soft_limit_in_bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<i64>,
    /// Where the kernel begins to slow down and reclaim: `memory.high`, v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<i64>,
    /// What is never reclaimed: `memory.min`, v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// 0 to 100 (200 from 5.8 on); `memory.swappiness`, v1 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swappiness: Option<u64>,
    /// An OOM kill takes all of the container: `memory.oom.group`, v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_group: Option<bool>,
    /// Who is out of memory waits: `memory.oom_control`, v1 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill_disable: Option<bool>,
}

/// Times in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuLimits {
    /// Docker's shares, 2 to 262144; `cpu.shares`, or `cpu.weight` by the quadratic formula.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// Of each period; -1 is unlimited. `cpu.max`, `cpu.cfs_quota_us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
    /// Unused quota that may be saved up; `cpu.max.burst`, `cpu.cfs_burst_us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Runs only when nobody else wants to; `cpu.idle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<bool>,
    /// v1 only: `cpu.rt_runtime_us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rt_runtime: Option<i64>,
    /// v1 only: `cpu.rt_period_us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rt_period: Option<u64>,
}

/// Lists such as `0-2,5`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpusetLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// NUMA nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mems: Option<String>,
}

/// Bytes or operations a second; 0 is unlimited, as v1 has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoLimits {
    /// 10 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub device_weight: BTreeMap<Device, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub read_bps: BTreeMap<Device, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub write_bps: BTreeMap<Device, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub read_iops: BTreeMap<Device, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub write_iops: BTreeMap<Device, u64>,
}

/// A block device's numbers, `MAJOR:MINOR` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Device {
    pub major: u64,
    pub minor: u64,
}

/// Absent is unlimited, as in OCI.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RdmaLimit {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_handles: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_objects: Option<u32>,
}

/// How the host's controllers are spread, for people; code asks [`crate::Hierarchies`] per controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    V1,
    Hybrid,
    V2,
}

impl Limits {
    /// These, with each value that `newer` has in place of its own.
    #[must_use]
    pub fn merged(&self, newer: &Self) -> Self {
        let (memory, cpu) = (&newer.memory, &newer.cpu);
        Self {
            memory: MemoryLimits {
                limit: memory.limit.or(self.memory.limit),
                swap: memory.swap.or(self.memory.swap),
                reservation: memory.reservation.or(self.memory.reservation),
                high: memory.high.or(self.memory.high),
                min: memory.min.or(self.memory.min),
                swappiness: memory.swappiness.or(self.memory.swappiness),
                oom_group: memory.oom_group.or(self.memory.oom_group),
                oom_kill_disable: memory.oom_kill_disable.or(self.memory.oom_kill_disable),
            },
            cpu: CpuLimits {
                shares: cpu.shares.or(self.cpu.shares),
                quota: cpu.quota.or(self.cpu.quota),
                period: cpu.period.or(self.cpu.period),
                burst: cpu.burst.or(self.cpu.burst),
                idle: cpu.idle.or(self.cpu.idle),
                rt_runtime: cpu.rt_runtime.or(self.cpu.rt_runtime),
                rt_period: cpu.rt_period.or(self.cpu.rt_period),
            },
            cpuset: CpusetLimits {
                cpus: newer.cpuset.cpus.clone().or(self.cpuset.cpus.clone()),
                mems: newer.cpuset.mems.clone().or(self.cpuset.mems.clone()),
            },
            io: IoLimits {
                weight: newer.io.weight.or(self.io.weight),
                device_weight: both(&self.io.device_weight, &newer.io.device_weight),
                read_bps: both(&self.io.read_bps, &newer.io.read_bps),
                write_bps: both(&self.io.write_bps, &newer.io.write_bps),
                read_iops: both(&self.io.read_iops, &newer.io.read_iops),
                write_iops: both(&self.io.write_iops, &newer.io.write_iops),
            },
            pids: newer.pids.or(self.pids),
            hugetlb: both(&self.hugetlb, &newer.hugetlb),
            rdma: both(&self.rdma, &newer.rdma),
            misc: both(&self.misc, &newer.misc),
            unified: both(&self.unified, &newer.unified),
        }
    }
}

fn both<K: Ord + Clone, V: Clone>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    let mut all = old.clone();
    all.extend(new.iter().map(|(key, value)| (key.clone(), value.clone())));
    all
}

impl std::fmt::Display for Device {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.major, self.minor)
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.split_once(':')
            .and_then(|(major, minor)| {
                Some(Self {
                    major: major.parse().ok()?,
                    minor: minor.parse().ok()?,
                })
            })
            .ok_or_else(|| format!("{text:?}: expected MAJOR:MINOR"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_values_replace_and_the_rest_stays() {
        let device = |minor| Device { major: 8, minor };
        let mut old = Limits::default();
        old.memory.limit = Some(5);
        old.memory.swap = Some(9);
        old.io.read_bps.insert(device(0), 1);
        let mut new = Limits::default();
        new.memory.limit = Some(6);
        new.io.read_bps.insert(device(1), 2);
        let both = old.merged(&new);
        assert_eq!((both.memory.limit, both.memory.swap), (Some(6), Some(9)));
        assert_eq!(both.io.read_bps.len(), 2);
    }
}
