//! Use and limits of a cgroup, each from where its controller lives.

use serde::{Deserialize, Serialize};

use crate::{
    Cgroup, Error,
    controllers::{Place, blkio, cpu, memory, pids},
    discovery::Version,
};

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
    #[serde(default)]
    pub memory_swap_bytes: Option<u64>,
    /// `None` when unlimited.
    pub memory_limit_bytes: Option<u64>,
    /// v2 `memory.events: oom_kill`, v1 `memory.oom_control: oom_kill`.
    pub memory_oom_kills: Option<u64>,
    /// v2 `memory.events: oom_group_kill`, from 5.17 on: whole cgroups killed at once.
    #[serde(default)]
    pub memory_oom_group_kills: Option<u64>,
    pub pids_current: Option<u64>,
    pub pids_limit: Option<u64>,
    /// Of all devices together.
    #[serde(default)]
    pub io_read_bytes: Option<u64>,
    #[serde(default)]
    pub io_write_bytes: Option<u64>,
    #[serde(default)]
    pub io_reads: Option<u64>,
    #[serde(default)]
    pub io_writes: Option<u64>,
}

pub(crate) fn read(cgroup: &Cgroup) -> Result<Stats, Error> {
    let mut stats = Stats::default();
    if let Some(dir) = cgroup.unified_dir() {
        let place = Place {
            dir,
            version: Version::V2,
        };
        cpu::stats_v2(&place, &mut stats)?;
    }
    // Where v1 has them, its numbers replace those of a v2 tree without the controllers.
    if let Some(place) = v1(cgroup, "cpuacct") {
        cpu::stats_cpuacct(&place, &mut stats)?;
    }
    if let Some(place) = v1(cgroup, "cpu") {
        cpu::stats_v1(&place, &mut stats)?;
    }
    if let Some(place) = cgroup.place("memory") {
        memory::stats(&place, &mut stats)?;
    }
    if let Some(place) = cgroup.place("pids") {
        pids::stats(&place, &mut stats)?;
    }
    if let Some(place) = v1(cgroup, "blkio").or_else(|| cgroup.place("io")) {
        blkio::stats(&place, &mut stats)?;
    }
    Ok(stats)
}

fn v1(cgroup: &Cgroup, controller: &str) -> Option<Place> {
    cgroup
        .place(controller)
        .filter(|place| place.version == Version::V1)
}
