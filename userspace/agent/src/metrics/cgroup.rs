//! Families of the cgroup, under cAdvisor's suffixes; a value the host has not got has no series.

use paddock_cgroups::Stats;
use prometheus::proto::MetricFamily;

use super::{
    container::Reading,
    family::{Family, Labels, float, seconds},
};
use crate::counters::Counters;

type Count = (Family, fn(&Counters) -> Option<f64>);
type Gauge = (Family, fn(&Stats) -> Option<f64>);

const COUNTERS: [Count; 7] = [
    (
        Family::counter(
            "paddock_container_cpu_usage_seconds_total",
            "CPU time used.",
        ),
        |counters| counters.cpu.usage_usec.map(seconds),
    ),
    (
        Family::counter(
            "paddock_container_cpu_user_seconds_total",
            "CPU time used in user mode.",
        ),
        |counters| counters.cpu.user_usec.map(seconds),
    ),
    (
        Family::counter(
            "paddock_container_cpu_system_seconds_total",
            "CPU time used in the kernel.",
        ),
        |counters| counters.cpu.system_usec.map(seconds),
    ),
    (
        Family::counter(
            "paddock_container_cpu_cfs_periods_total",
            "Periods of the CPU quota that passed.",
        ),
        |counters| counters.cpu.periods.map(float),
    ),
    (
        Family::counter(
            "paddock_container_cpu_cfs_throttled_periods_total",
            "Periods in which the CPU quota was used up.",
        ),
        |counters| counters.cpu.throttled_periods.map(float),
    ),
    (
        Family::counter(
            "paddock_container_cpu_cfs_throttled_seconds_total",
            "Time for which the CPU quota held processes back.",
        ),
        |counters| counters.cpu.throttled_usec.map(seconds),
    ),
    (
        Family::counter(
            "paddock_container_memory_oom_kill_events_total",
            "OOM kills by the cgroup's own count: the cross-check of paddock_container_oom_kills_total.",
        ),
        |counters| counters.memory_oom_kills.map(float),
    ),
];

const GAUGES: [Gauge; 6] = [
    (
        Family::gauge(
            "paddock_container_memory_usage_bytes",
            "Memory in use, page cache included.",
        ),
        |stats| stats.memory_usage_bytes.map(float),
    ),
    (
        Family::gauge(
            "paddock_container_memory_working_set_bytes",
            "Memory in use without inactive page cache.",
        ),
        |stats| stats.memory_working_set_bytes.map(float),
    ),
    (
        Family::gauge(
            "paddock_container_memory_max_usage_bytes",
            "Most memory ever in use.",
        ),
        |stats| stats.memory_peak_bytes.map(float),
    ),
    (
        Family::gauge(
            "paddock_container_spec_memory_limit_bytes",
            "Memory limit; no series when there is none.",
        ),
        |stats| stats.memory_limit_bytes.map(float),
    ),
    (
        Family::gauge(
            "paddock_container_processes",
            "Processes and threads, as the pids limit counts them.",
        ),
        |stats| stats.pids_current.map(float),
    ),
    (
        Family::gauge(
            "paddock_container_threads_max",
            "Most processes and threads allowed; no series when there is no limit.",
        ),
        |stats| stats.pids_limit.map(float),
    ),
];

pub(super) const FAMILIES: [Family; 13] = {
    let mut families = [COUNTERS[0].0; 13];
    let mut index = 0;
    while index < COUNTERS.len() {
        families[index] = COUNTERS[index].0;
        index += 1;
    }
    while index < families.len() {
        families[index] = GAUGES[index - COUNTERS.len()].0;
        index += 1;
    }
    families
};

pub(super) fn collect(readings: &[Reading]) -> Vec<MetricFamily> {
    let counters = COUNTERS.iter().map(|(family, value)| {
        family.with(
            readings
                .iter()
                .filter_map(|one| Some((labels(one), value(&one.counters)?))),
        )
    });
    let gauges = GAUGES.iter().map(|(family, value)| {
        family.with(
            readings
                .iter()
                .filter_map(|one| Some((labels(one), value(one.gauges.as_ref()?)?))),
        )
    });
    counters.chain(gauges).collect()
}

fn labels(reading: &Reading) -> Labels {
    vec![("container", reading.name.clone())]
}
