//! Families of the cgroup, under cAdvisor's suffixes; a value the host has not got has no series.

use paddock_cgroups::{Stats, Totals};
use prometheus::proto::MetricFamily;

use super::{
    container::Reading,
    exposition::Exposition,
    family::{Family, Labels, float, seconds},
};

/// What tells a series apart from the others of its family, and where its value is.
type One<T> = (Option<(&'static str, &'static str)>, fn(&T) -> Option<f64>);
type Series<T> = &'static [One<T>];

const COUNTERS: [(Family, Series<Totals>); 19] = [
    (
        Family::counter(
            "paddock_container_cpu_usage_seconds_total",
            "CPU time used.",
        ),
        &[(None, |totals| totals.cpu_usage_usec.map(seconds))],
    ),
    (
        Family::counter(
            "paddock_container_cpu_user_seconds_total",
            "CPU time used in user mode.",
        ),
        &[(None, |totals| totals.cpu_user_usec.map(seconds))],
    ),
    (
        Family::counter(
            "paddock_container_cpu_system_seconds_total",
            "CPU time used in the kernel.",
        ),
        &[(None, |totals| totals.cpu_system_usec.map(seconds))],
    ),
    (
        Family::counter(
            "paddock_container_cpu_cfs_periods_total",
            "Periods of the CPU quota that passed; no series where there never was one.",
        ),
        &[(None, |totals| quota(totals, totals.cpu_periods).map(float))],
    ),
    (
        Family::counter(
            "paddock_container_cpu_cfs_throttled_periods_total",
            "Periods in which the CPU quota was used up.",
        ),
        &[(None, |totals| {
            quota(totals, totals.cpu_throttled_periods).map(float)
        })],
    ),
    (
        Family::counter(
            "paddock_container_cpu_cfs_throttled_seconds_total",
            "Time for which the CPU quota held processes back.",
        ),
        &[(None, |totals| {
            quota(totals, totals.cpu_throttled_usec).map(seconds)
        })],
    ),
    (
        Family::counter(
            "paddock_container_pressure_cpu_waiting_seconds_total",
            "Time in which a task of the container waited for a CPU (PSI some).",
        ),
        &[(None, |totals| totals.cpu_waiting_usec.map(seconds))],
    ),
    (
        Family::counter(
            "paddock_container_pressure_memory_waiting_seconds_total",
            "Time in which a task of the container waited for memory (PSI some).",
        ),
        &[(None, |totals| totals.memory_waiting_usec.map(seconds))],
    ),
    (
        Family::counter(
            "paddock_container_pressure_memory_stalled_seconds_total",
            "Time in which all tasks of the container waited for memory at once (PSI full).",
        ),
        &[(None, |totals| totals.memory_stalled_usec.map(seconds))],
    ),
    (
        Family::counter(
            "paddock_container_pressure_io_waiting_seconds_total",
            "Time in which a task of the container waited for a disk (PSI some).",
        ),
        &[(None, |totals| totals.io_waiting_usec.map(seconds))],
    ),
    (
        Family::counter(
            "paddock_container_pressure_io_stalled_seconds_total",
            "Time in which all tasks of the container waited for a disk at once (PSI full).",
        ),
        &[(None, |totals| totals.io_stalled_usec.map(seconds))],
    ),
    (
        Family::counter(
            "paddock_container_memory_oom_kill_events_total",
            "OOM kills by the cgroup's own count: the cross-check of paddock_container_oom_kills_total.",
        ),
        &[(None, |totals| totals.memory_oom_kills.map(float))],
    ),
    (
        Family::counter(
            "paddock_container_memory_events_total",
            "What memory limits came to: low (reclaimed below its protection), high (slowed down), max (the limit was met), oom (no room was found). A series begins with its first one.",
        ).by(&["event"]),
        &[
            (Some(("event", "low")), |totals| {
                any(totals.memory_low_events)
            }),
            (Some(("event", "high")), |totals| {
                any(totals.memory_high_events)
            }),
            (Some(("event", "max")), |totals| {
                any(totals.memory_max_events)
            }),
            (Some(("event", "oom")), |totals| {
                any(totals.memory_oom_events)
            }),
        ],
    ),
    (
        Family::counter(
            "paddock_container_memory_major_faults_total",
            "Pages that had to be read from a disk; many of them near the limit are thrashing.",
        ),
        &[(None, |totals| totals.memory_major_faults.map(float))],
    ),
    (
        Family::counter(
            "paddock_container_io_read_bytes_total",
            "Bytes read from block devices.",
        ),
        &[(None, |totals| totals.io_read_bytes.map(float))],
    ),
    (
        Family::counter(
            "paddock_container_io_written_bytes_total",
            "Bytes written to block devices.",
        ),
        &[(None, |totals| totals.io_write_bytes.map(float))],
    ),
    (
        Family::counter(
            "paddock_container_io_reads_total",
            "Reads from block devices.",
        ),
        &[(None, |totals| totals.io_reads.map(float))],
    ),
    (
        Family::counter(
            "paddock_container_io_writes_total",
            "Writes to block devices.",
        ),
        &[(None, |totals| totals.io_writes.map(float))],
    ),
    (
        Family::counter(
            "paddock_container_memory_oom_group_kills_total",
            "Times that the cgroup was killed as a whole for want of memory (memory.oom.group). The series begins with the first one.",
        ),
        &[(None, |totals| any(totals.memory_oom_group_kills))],
    ),
];

const GAUGES: [(Family, Series<Stats>); 11] = [
    (
        Family::gauge(
            "paddock_container_spec_cpu_quota",
            "CPU time allowed in each period, in microseconds as cpu.max has it; no series when there is no limit.",
        ),
        &[(None, |stats| stats.cpu_quota_usec.map(float))],
    ),
    (
        Family::gauge(
            "paddock_container_spec_cpu_period",
            "Length of the CPU quota's period, in microseconds as cpu.max has it; no series when there is no limit.",
        ),
        &[(None, |stats| {
            stats.cpu_quota_usec.and(stats.cpu_period_usec).map(float)
        })],
    ),
    (
        Family::gauge(
            "paddock_container_memory_usage_bytes",
            "Memory in use, page cache included.",
        ),
        &[(None, |stats| stats.memory_usage_bytes.map(float))],
    ),
    (
        Family::gauge(
            "paddock_container_memory_working_set_bytes",
            "Memory in use without inactive page cache.",
        ),
        &[(None, |stats| stats.memory_working_set_bytes.map(float))],
    ),
    (
        Family::gauge(
            "paddock_container_memory_max_usage_bytes",
            "Most memory ever in use.",
        ),
        &[(None, |stats| stats.memory_peak_bytes.map(float))],
    ),
    (
        Family::gauge(
            "paddock_container_memory_rss_bytes",
            "Memory of no file: heap, stacks and the like.",
        ),
        &[(None, |stats| stats.memory_anon_bytes.map(float))],
    ),
    (
        Family::gauge(
            "paddock_container_memory_cache_bytes",
            "Page cache, tmpfs and shared memory included.",
        ),
        &[(None, |stats| stats.memory_file_bytes.map(float))],
    ),
    (
        Family::gauge(
            "paddock_container_memory_swap_bytes",
            "Swap in use; no series where the host has no swap accounting.",
        ),
        &[(None, |stats| stats.memory_swap_bytes.map(float))],
    ),
    (
        Family::gauge(
            "paddock_container_spec_memory_limit_bytes",
            "Memory limit; no series when there is none.",
        ),
        &[(None, |stats| stats.memory_limit_bytes.map(float))],
    ),
    (
        Family::gauge(
            "paddock_container_processes",
            "Processes and threads, as the pids limit counts them.",
        ),
        &[(None, |stats| stats.pids_current.map(float))],
    ),
    (
        Family::gauge(
            "paddock_container_threads_max",
            "Most processes and threads allowed; no series when there is no limit.",
        ),
        &[(None, |stats| stats.pids_limit.map(float))],
    ),
];

const HUGE_PAGES: Family = Family::gauge(
    "paddock_container_hugetlb_usage_bytes",
    "Huge pages in use, by size; a series where any are.",
)
.by(&["pagesize"]);

/// Without a quota the kernel says 0 of all three.
fn quota(totals: &Totals, value: Option<u64>) -> Option<u64> {
    value.filter(|_| totals.cpu_periods.is_some_and(|periods| periods > 0))
}

fn any(count: Option<u64>) -> Option<f64> {
    count.filter(|count| *count > 0).map(float)
}

#[cfg(test)]
pub(super) fn families() -> impl Iterator<Item = &'static Family> {
    let counters = COUNTERS.iter().map(|(family, _)| family);
    let gauges = GAUGES.iter().map(|(family, _)| family);
    counters.chain(gauges).chain([&HUGE_PAGES])
}

pub(super) fn expose(readings: &[Reading], page: &mut Exposition) {
    for (family, series) in &COUNTERS {
        let of = |one: &Reading| values(one, series, &one.counters.cgroup);
        page.add(&family.with(readings.iter().flat_map(of)));
    }
    for (family, series) in &GAUGES {
        let of = |one: &Reading| {
            let gauges = one.gauges.as_ref();
            gauges.map_or_else(Vec::new, |stats| values(one, series, stats))
        };
        page.add(&family.with(readings.iter().flat_map(of)));
    }
    page.add(&huge_pages(readings));
}

fn values<T>(reading: &Reading, series: Series<T>, read: &T) -> Vec<(Labels, f64)> {
    let one = |(apart, value): &One<T>| {
        let value = value(read)?;
        let mut labels = vec![("container", reading.name.clone())];
        labels.extend(apart.map(|(name, value)| (name, value.to_owned())));
        Some((labels, value))
    };
    series.iter().filter_map(one).collect()
}

fn huge_pages(readings: &[Reading]) -> MetricFamily {
    let mut series = Vec::new();
    for reading in readings {
        let gauges = reading.gauges.iter();
        for pages in gauges.flat_map(|stats| &stats.huge_pages) {
            if pages.usage_bytes > 0 {
                let labels = vec![
                    ("container", reading.name.clone()),
                    ("pagesize", pages.size.clone()),
                ];
                series.push((labels, float(pages.usage_bytes)));
            }
        }
    }
    HUGE_PAGES.with(series)
}
