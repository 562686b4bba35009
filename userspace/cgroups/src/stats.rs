//! Use and limits of a cgroup, each from where its controller lives.

use serde::{Deserialize, Serialize};

use crate::{
    Cgroup, Error,
    controllers::{Place, blkio, cpu, hugetlb, memory, pids, pressure},
    discovery::Version,
    readable::Readable,
};

/// Declares [`Totals`], so that no field can be left out of a sum.
macro_rules! totals {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What only grows; `None` where the host has not got it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Totals {
            $($(#[$doc])* #[serde(default)] pub $name: Option<u64>,)*
        }

        impl Totals {
            /// What is absent in both stays so.
            pub fn add(&mut self, other: &Self) {
                $(if let Some(value) = other.$name {
                    self.$name = Some(self.$name.unwrap_or(0).saturating_add(value));
                })*
            }
        }
    };
}

totals! {
    cpu_usage_usec,
    cpu_user_usec,
    cpu_system_usec,
    cpu_periods,
    cpu_throttled_periods,
    cpu_throttled_usec,
    /// Of `cpu.pressure`: some task waited.
    cpu_waiting_usec,
    /// All tasks did, at once.
    cpu_stalled_usec,
    memory_waiting_usec,
    memory_stalled_usec,
    io_waiting_usec,
    io_stalled_usec,
    /// v2 `memory.events: low`: taken from below what is protected.
    memory_low_events,
    /// Slowed down for being over `memory.high`.
    memory_high_events,
    /// The limit was met: v2 `max`, v1 `memory.failcnt` and `memory.memsw.failcnt`.
    memory_max_events,
    /// No room within the limit after all was tried; what follows may be a kill.
    memory_oom_events,
    /// v2 `memory.events: oom_kill`, v1 `memory.oom_control: oom_kill`.
    memory_oom_kills,
    /// v2 `memory.events: oom_group_kill`, from 5.17 on: whole cgroups killed at once.
    memory_oom_group_kills,
    /// Pages that had to be read from a disk.
    memory_major_faults,
    /// Of all devices together, as are those below.
    io_read_bytes,
    io_write_bytes,
    io_reads,
    io_writes,
}

/// Use and limits, base units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    #[serde(flatten)]
    pub totals: Totals,
    /// Of each period; `None` when unlimited.
    #[serde(default)]
    pub cpu_quota_usec: Option<u64>,
    #[serde(default)]
    pub cpu_period_usec: Option<u64>,
    /// Share of the last ten seconds in which some task waited, in hundredths of a percent.
    #[serde(default)]
    pub cpu_waiting_avg10: Option<u32>,
    #[serde(default)]
    pub memory_waiting_avg10: Option<u32>,
    #[serde(default)]
    pub io_waiting_avg10: Option<u32>,
    pub memory_usage_bytes: Option<u64>,
    /// `usage - inactive_file`, as docker shows it.
    pub memory_working_set_bytes: Option<u64>,
    pub memory_peak_bytes: Option<u64>,
    /// Of no file: v2 `anon`, v1 `total_rss`.
    #[serde(default)]
    pub memory_anon_bytes: Option<u64>,
    /// Page cache: v2 `file`, v1 `total_cache`.
    #[serde(default)]
    pub memory_file_bytes: Option<u64>,
    #[serde(default)]
    pub memory_swap_bytes: Option<u64>,
    /// `None` when unlimited.
    pub memory_limit_bytes: Option<u64>,
    pub pids_current: Option<u64>,
    pub pids_limit: Option<u64>,
    /// In the order of their sizes' names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub huge_pages: Vec<HugePages>,
}

/// Of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugePages {
    /// As the kernel's files have it, `2MB`.
    pub size: String,
    pub usage_bytes: u64,
}

pub(crate) fn read(cgroup: &Cgroup) -> Result<Stats, Error> {
    let mut stats = Stats::default();
    if let Some(dir) = cgroup.unified_dir() {
        let files = Readable::open(dir, Version::V2)?;
        cpu::stats_v2(&files, &mut stats)?;
        pressure::stats(&files, &mut stats)?;
    }
    // Where v1 has them, its numbers replace those of a v2 tree without the controllers.
    if let Some(place) = v1(cgroup, "cpuacct") {
        cpu::stats_cpuacct(&place.open()?, &mut stats)?;
    }
    if let Some(place) = v1(cgroup, "cpu") {
        cpu::stats_v1(&place.open()?, &mut stats)?;
    }
    if let Some(place) = cgroup.place("memory") {
        memory::stats(&place.open()?, &mut stats)?;
    }
    if let Some(place) = cgroup.place("pids") {
        pids::stats(&place.open()?, &mut stats)?;
    }
    if let Some(place) = v1(cgroup, "blkio").or_else(|| cgroup.place("io")) {
        blkio::stats(&place.open()?, &mut stats)?;
    }
    if let Some(place) = cgroup.place("hugetlb") {
        hugetlb::stats(&place.open()?, &mut stats)?;
    }
    Ok(stats)
}

/// What [`Totals::cpu_usage_usec`] is.
pub(crate) fn cpu_usage(cgroup: &Cgroup) -> Result<Option<u64>, Error> {
    if let Some(place) = v1(cgroup, "cpuacct") {
        return cpu::usage_v1(&place.open()?);
    }
    match cgroup.unified_dir() {
        Some(dir) => cpu::usage_v2(&Readable::open(dir, Version::V2)?),
        None => Ok(None),
    }
}

fn v1(cgroup: &Cgroup, controller: &str) -> Option<Place> {
    cgroup
        .place(controller)
        .filter(|place| place.version == Version::V1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_zero_differ_in_sums() {
        let with = |cpu_usage_usec| Totals {
            cpu_usage_usec,
            ..Totals::default()
        };
        let mut sum = Totals::default();
        sum.add(&with(None));
        assert_eq!(sum.cpu_usage_usec, None);
        sum.add(&with(Some(0)));
        sum.add(&with(Some(7)));
        assert_eq!((sum.cpu_usage_usec, sum.cpu_user_usec), (Some(7), None));
    }
}
