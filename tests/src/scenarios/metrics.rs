//! What a container's metrics say of its cgroup is what the kernel's own files say, of a container
//! that stands still meanwhile.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::limits::flags::cgroup_of;
use crate::{
    context::{Context, cgroup_file, cgroup_mounts, eventually, pure_v2},
    metrics::Metrics,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("metrics::are_what_the_files_say", are_what_the_files_say),
    Scenario::new("metrics::a_series_begins_when", a_series_begins_when),
];

/// A file of the kernel's, in v2 and in v1, with the unit of each (what one of it is).
struct Source {
    family: &'static str,
    labels: &'static [(&'static str, &'static str)],
    v2: Option<(&'static str, Key, f64)>,
    v1: Option<(&'static str, &'static str, Key, f64)>,
    /// Whether what was done below must have made it move.
    moves: bool,
}

/// Where in the file.
#[derive(Clone, Copy)]
enum Key {
    /// All that there is.
    Whole,
    /// `NAME VALUE`.
    Flat(&'static str),
    /// `LINE … total=VALUE`.
    Total(&'static str),
    /// The word at this place of the one line.
    Word(usize),
    /// `NAME=VALUE`, over all lines.
    Nested(&'static str),
    /// `DEVICE NAME VALUE`, over all lines.
    Device(&'static str),
}

impl Key {
    fn of(self, text: &str) -> Option<f64> {
        let number = |word: &str| word.trim().parse::<f64>().ok();
        let words = || text.split_whitespace();
        match self {
            Self::Whole => number(text),
            Self::Flat(name) => text.lines().find_map(|line| {
                let (key, value) = line.split_once(' ')?;
                number(value).filter(|_| key == name)
            }),
            Self::Total(name) => text.lines().find_map(|line| {
                let rest = line.strip_prefix(name)?;
                number(rest.split_once("total=")?.1)
            }),
            Self::Word(place) => number(words().nth(place)?),
            Self::Nested(name) => Some(
                words()
                    .filter_map(|word| number(word.strip_prefix(name)?.strip_prefix('=')?))
                    .sum(),
            ),
            Self::Device(name) => Some(
                text.lines()
                    .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
                        [_, key, value] if key == name => number(value),
                        _ => None,
                    })
                    .sum(),
            ),
        }
    }
}

const fn source(
    family: &'static str,
    v2: (&'static str, Key, f64),
    v1: Option<(&'static str, &'static str, Key, f64)>,
    moves: bool,
) -> Source {
    Source {
        family,
        labels: &[],
        v2: Some(v2),
        v1,
        moves,
    }
}

const MICRO: f64 = 1e-6;
const NANO: f64 = 1e-9;

const SOURCES: [Source; 24] = [
    source(
        "cpu_usage_seconds_total",
        ("cpu.stat", Key::Flat("usage_usec"), MICRO),
        Some(("cpuacct", "cpuacct.usage", Key::Whole, NANO)),
        true,
    ),
    source(
        "cpu_user_seconds_total",
        ("cpu.stat", Key::Flat("user_usec"), MICRO),
        Some(("cpuacct", "cpuacct.usage_user", Key::Whole, NANO)),
        true,
    ),
    source(
        "cpu_system_seconds_total",
        ("cpu.stat", Key::Flat("system_usec"), MICRO),
        Some(("cpuacct", "cpuacct.usage_sys", Key::Whole, NANO)),
        false,
    ),
    source(
        "cpu_cfs_periods_total",
        ("cpu.stat", Key::Flat("nr_periods"), 1.0),
        Some(("cpu", "cpu.stat", Key::Flat("nr_periods"), 1.0)),
        true,
    ),
    source(
        "cpu_cfs_throttled_periods_total",
        ("cpu.stat", Key::Flat("nr_throttled"), 1.0),
        Some(("cpu", "cpu.stat", Key::Flat("nr_throttled"), 1.0)),
        true,
    ),
    source(
        "cpu_cfs_throttled_seconds_total",
        ("cpu.stat", Key::Flat("throttled_usec"), MICRO),
        Some(("cpu", "cpu.stat", Key::Flat("throttled_time"), NANO)),
        true,
    ),
    source(
        "spec_cpu_quota",
        ("cpu.max", Key::Word(0), 1.0),
        Some(("cpu", "cpu.cfs_quota_us", Key::Whole, 1.0)),
        true,
    ),
    source(
        "spec_cpu_period",
        ("cpu.max", Key::Word(1), 1.0),
        Some(("cpu", "cpu.cfs_period_us", Key::Whole, 1.0)),
        true,
    ),
    source(
        "pressure_cpu_waiting_seconds_total",
        ("cpu.pressure", Key::Total("some"), MICRO),
        None,
        true,
    ),
    source(
        "pressure_memory_waiting_seconds_total",
        ("memory.pressure", Key::Total("some"), MICRO),
        None,
        false,
    ),
    source(
        "pressure_io_stalled_seconds_total",
        ("io.pressure", Key::Total("full"), MICRO),
        None,
        false,
    ),
    source(
        "memory_usage_bytes",
        ("memory.current", Key::Whole, 1.0),
        Some(("memory", "memory.usage_in_bytes", Key::Whole, 1.0)),
        true,
    ),
    source(
        "memory_rss_bytes",
        ("memory.stat", Key::Flat("anon"), 1.0),
        Some(("memory", "memory.stat", Key::Flat("total_rss"), 1.0)),
        true,
    ),
    source(
        "memory_cache_bytes",
        ("memory.stat", Key::Flat("file"), 1.0),
        Some(("memory", "memory.stat", Key::Flat("total_cache"), 1.0)),
        true,
    ),
    source(
        "memory_major_faults_total",
        ("memory.stat", Key::Flat("pgmajfault"), 1.0),
        Some(("memory", "memory.stat", Key::Flat("total_pgmajfault"), 1.0)),
        false,
    ),
    source(
        "spec_memory_limit_bytes",
        ("memory.max", Key::Whole, 1.0),
        Some(("memory", "memory.limit_in_bytes", Key::Whole, 1.0)),
        true,
    ),
    Source {
        family: "memory_events_total",
        labels: &[("event", "max")],
        v2: Some(("memory.events", Key::Flat("max"), 1.0)),
        v1: Some(("memory", "memory.failcnt", Key::Whole, 1.0)),
        moves: true,
    },
    source(
        "memory_oom_kill_events_total",
        ("memory.events", Key::Flat("oom_kill"), 1.0),
        Some(("memory", "memory.oom_control", Key::Flat("oom_kill"), 1.0)),
        true,
    ),
    source(
        "processes",
        ("pids.current", Key::Whole, 1.0),
        Some(("pids", "pids.current", Key::Whole, 1.0)),
        true,
    ),
    source(
        "threads_max",
        ("pids.max", Key::Whole, 1.0),
        Some(("pids", "pids.max", Key::Whole, 1.0)),
        true,
    ),
    source(
        "io_read_bytes_total",
        ("io.stat", Key::Nested("rbytes"), 1.0),
        Some((
            "blkio",
            "blkio.throttle.io_service_bytes_recursive",
            Key::Device("Read"),
            1.0,
        )),
        false,
    ),
    source(
        "io_written_bytes_total",
        ("io.stat", Key::Nested("wbytes"), 1.0),
        Some((
            "blkio",
            "blkio.throttle.io_service_bytes_recursive",
            Key::Device("Write"),
            1.0,
        )),
        false,
    ),
    source(
        "io_reads_total",
        ("io.stat", Key::Nested("rios"), 1.0),
        Some((
            "blkio",
            "blkio.throttle.io_serviced_recursive",
            Key::Device("Read"),
            1.0,
        )),
        false,
    ),
    source(
        "io_writes_total",
        ("io.stat", Key::Nested("wios"), 1.0),
        Some((
            "blkio",
            "blkio.throttle.io_serviced_recursive",
            Key::Device("Write"),
            1.0,
        )),
        false,
    ),
];

/// What the file says now, in the metric's unit; `None` where this kernel has no such file.
fn truth(cgroup: &str, source: &Source) -> Result<Option<f64>> {
    let v1 = source.v1.filter(|_| !pure_v2());
    let (path, key, unit) = match (v1, source.v2) {
        (Some((controller, name, key, unit)), _) => {
            (cgroup_file(cgroup, "", (controller, name)), key, unit)
        }
        (None, Some((name, key, unit))) => {
            let mounts = cgroup_mounts()?;
            let unified = mounts.iter().find(|(controllers, _)| controllers.is_none());
            let Some((_, mount)) = unified else {
                return Ok(None);
            };
            (mount.join(cgroup).join(name), key, unit)
        }
        (None, None) => return Ok(None),
    };
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(None);
    };
    let value = key.of(&text);
    let value = value.with_context(|| format!("{}: {text:?}", path.display()))?;
    Ok(Some(value * unit))
}

fn are_what_the_files_say(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    // A child that is killed for its memory, a page cache, memory of its own, more to do than it
    // may, each process the others' way.
    let script = "tail /dev/zero; dd if=/dev/zero of=/dev/shm/file bs=1M count=4 2>/dev/null; \
                  for each in 1 2 3; do (while :; do :; done) & done; wait";
    context.ok(&[
        "run",
        "-d",
        "--name",
        "busy",
        "--memory",
        "64m",
        "--cpus",
        "0.2",
        "--pids-limit",
        "30",
        "host",
        "sh",
        "-c",
        script,
    ])?;
    let cgroup = cgroup_of(context, "busy")?;
    eventually("all that is to move has moved", || {
        for source in SOURCES.iter().filter(|source| source.moves) {
            if truth(&cgroup, source)?.is_some_and(|value| value <= 0.0) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    context.ok(&["pause", "busy"])?;
    let before: Vec<_> = SOURCES
        .iter()
        .map(|source| truth(&cgroup, source))
        .collect::<Result<_>>()?;
    let metrics = context.metrics()?;
    for (source, before) in SOURCES.iter().zip(before) {
        let after = truth(&cgroup, source)?;
        let name = format!("paddock_container_{}", source.family);
        let told = of(&metrics, &name, source.labels);
        let (Some(before), Some(after)) = (before, after) else {
            ensure!(told.is_none(), "{name}: {told:?} without a file");
            continue;
        };
        // Nothing moved, or what the metric says is on the way.
        let (least, most) = (before.min(after) - MICRO, before.max(after) + MICRO);
        ensure!(
            told.is_some_and(|value| value >= least && value <= most),
            "{name}: {told:?}, its file {before} and {after}"
        );
    }
    context.ok(&["unpause", "busy"])?;
    context.ok(&["rm", "-f", "busy"]).map(drop)
}

fn of(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut all = vec![("container", "busy")];
    all.extend(labels);
    metrics.value(name, &all)
}

/// At birth what alerts ask for is there at zero, and nothing of what never happened.
fn a_series_begins_when(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let script = "read go; /run/workload setns-loop /proc/self/ns/uts uts 7; read go";
    let mut args = vec![
        "run",
        "-d",
        "-i",
        "--name",
        "newborn",
        "--cap-add",
        "SYS_ADMIN",
    ];
    args.extend(["-v", &volume, "host", "sh", "-c", script]);
    context.ok(&args)?;
    let label = [("container", "newborn")];
    let metrics = context.metrics()?;
    let births = metrics
        .0
        .lines()
        .filter(|line| line.contains("container=\"newborn\"") && line.ends_with(" 0"));
    for family in ["oom_kills_total", "escapes_total"] {
        let name = format!("paddock_container_{family}{{");
        ensure!(
            births.clone().any(|line| line.starts_with(&name)),
            "{name}: {births:?}"
        );
    }
    let calls = "paddock_container_namespace_calls_total";
    ensure!(metrics.value(calls, &label).is_none(), "{calls} at birth");
    // The whole of a container is at most this much, that many scrape without a thought.
    let series = metrics
        .0
        .lines()
        .filter(|line| line.contains("container=\"newborn\""));
    let series = series.count();
    ensure!(series <= 44, "{series} series");
    let started = metrics.value("paddock_container_start_time_seconds", &label);
    let pid = context.inspect("newborn")?["pid"]
        .as_i64()
        .context("no pid")?;
    let started = started.context("no start time")?;
    let want = start_time(pid)?;
    ensure!((started - want).abs() < 2.0, "{started}, not {want}");
    context.ok(&["rm", "-f", "newborn"]).map(drop)
}

/// When a process began, by procfs, in seconds since the epoch.
fn start_time(pid: i64) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let ticks: f64 = rest.split(' ').nth(20).context("short")?.parse()?;
    let boot = fs::read_to_string("/proc/stat")?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "));
    let boot: f64 = boot.context("no btime")?.parse()?;
    let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no ticks")?;
    let second = u32::try_from(second)?;
    Ok(boot + ticks / f64::from(second))
}
