//! `paddock-bench-scale CONTAINERS...`: what an agent costs beside so many containers: idle, a
//! scrape, `ps` and `stats`; beside a straight reader of the same files.
//!
//! Started by `cargo xtask bench scale`.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use paddock_tests::{
    bench::resident,
    context::{Context, cgroup_mounts},
};

const IDLE: Duration = Duration::from_secs(20);
const SCRAPES: usize = 50;
const COMMANDS: usize = 10;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("paddock-bench-scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .map(|size| Ok(size.parse()?))
        .collect::<Result<_>>()?;
    if sizes.is_empty() {
        bail!("usage: paddock-bench-scale CONTAINERS...");
    }
    let context = Context::new()?;
    let agent = context.start_agent(&["--detach-on-exit"])?;
    let done = measure(&context, agent, &sizes);
    let closed = context.close();
    done.and(closed)
}

fn measure(context: &Context, agent: i32, sizes: &[usize]) -> Result<()> {
    println!(
        "{:>10} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "containers",
        "series",
        "idle %",
        "idle RSS",
        "busy RSS",
        "scrape",
        "p99",
        "straight",
        "ps",
        "stats"
    );
    println!(
        "{:>37} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "MiB", "MiB", "ms", "ms", "ms", "ms", "ms"
    );
    let mut there = 0;
    for &size in sizes {
        while there < size {
            let name = format!("scale-{there}");
            context.ok(&[
                "run", "-d", "--name", &name, "--memory", "64m", "host", "sleep", "86400",
            ])?;
            there += 1;
        }
        thread::sleep(Duration::from_secs(3));
        let before = cpu(agent)?;
        thread::sleep(IDLE);
        let idle = (cpu(agent)? - before) / IDLE.as_secs_f64() * 100.0;
        let at_rest = resident(agent)?;
        let mut series = 0;
        let scrapes = timed(SCRAPES, || {
            let metrics = context.metrics()?;
            series = metrics
                .0
                .lines()
                .filter(|line| !line.starts_with('#'))
                .count();
            Ok(())
        })?;
        let files = files(there)?;
        let straight = timed(COMMANDS, || {
            read(&files);
            Ok(())
        })?;
        let ps = timed(COMMANDS, || context.ok(&["ps"]).map(drop))?;
        let stats = timed(COMMANDS, || {
            context.ok(&["stats", "--format", "json"]).map(drop)
        })?;
        println!(
            "{there:>10} {series:>8} {idle:>8.2} {at_rest:>8.1} {:>8.1} {:>9.2} {:>9.2} {:>9.2} {:>9.1} {:>9.1}",
            resident(agent)?,
            middle(&scrapes),
            scrapes[scrapes.len() * 99 / 100],
            middle(&straight),
            middle(&ps),
            middle(&stats)
        );
    }
    Ok(())
}

/// In milliseconds, sorted.
fn timed(times: usize, mut action: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        action()?;
        all.push(start.elapsed().as_secs_f64() * 1e3);
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}

fn middle(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// Seconds of CPU that a process has used.
fn cpu(pid: i32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |place: usize| {
        fields
            .get(place)
            .and_then(|field| field.parse::<f64>().ok())
    };
    let user = ticks(11).context("short")?;
    let system = ticks(12).context("short")?;
    Ok((user + system) / 100.0)
}

/// What cAdvisor reads of each container, as far as this host has it.
fn files(containers: usize) -> Result<Vec<PathBuf>> {
    const NAMES: [&str; 16] = [
        "cpu.stat",
        "cpu.pressure",
        "memory.pressure",
        "io.pressure",
        "cpuacct.usage",
        "cpuacct.usage_user",
        "cpuacct.usage_sys",
        "memory.usage_in_bytes",
        "memory.max_usage_in_bytes",
        "memory.stat",
        "memory.oom_control",
        "memory.current",
        "memory.events",
        "pids.current",
        "io.stat",
        "blkio.throttle.io_service_bytes_recursive",
    ];
    let mut found = Vec::new();
    for (_, mount) in cgroup_mounts()? {
        for instance in list(&mount.join("paddock")) {
            for container in list(&instance).into_iter().take(containers) {
                let all = NAMES.iter().map(|name| container.join(name));
                found.extend(all.filter(|file| file.exists()));
            }
        }
    }
    Ok(found)
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn read(files: &[PathBuf]) {
    for file in files {
        // One that cannot be read takes its time as well.
        let _ = fs::read(file);
    }
}
