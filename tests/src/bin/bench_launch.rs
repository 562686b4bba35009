//! `paddock-bench-launch ROUNDS AT-ONCE-ROUNDS SOAK`: what it takes to start and enter a
//! container, by paddock, its peers and the floor, in turn, one run.
//!
//! Started by `cargo xtask bench launch`, which also boots it in a guest whose clock counts
//! instructions. See `launchers.rs` for what each of them starts.
#![forbid(unsafe_code)]

use std::{
    fs,
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use paddock_tests::{
    context::{Context, cgroup_mounts, finish},
    launchers::{Launcher, Stage, hide_v2},
};

const AT_ONCE: u32 = 32;
const KEPT: u32 = 20;
/// The first argument of the one that runs one command and tells its peak.
const PEAK: &str = "peak";

/// Names are used once.
static NEXT: AtomicU32 = AtomicU32::new(0);

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("paddock-bench-launch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [first, program, rest @ ..] = args.as_slice()
        && first == PEAK
    {
        return peak_of(program, rest);
    }
    let [rounds, many, soak] = args.as_slice() else {
        bail!("usage: paddock-bench-launch ROUNDS AT-ONCE-ROUNDS SOAK");
    };
    let (rounds, many, soak): (usize, u32, u32) = (rounds.parse()?, many.parse()?, soak.parse()?);
    let context = Context::new()?;
    context.start_agent(&["--detach-on-exit"])?;
    let done = measure(&context, rounds, many, soak);
    let closed = context.close();
    done.and(closed)
}

fn measure(context: &Context, rounds: usize, many: u32, soak: u32) -> Result<()> {
    let stage = Stage::new(context)?;
    let runs = in_turn(rounds, |launcher| timed(stage.run(launcher, &name())))?;
    let execs = execs(&stage, rounds)?;
    println!("             run p50 ms  p95 ms  of crun  of floor  peak KiB  exec p50 ms  of floor");
    let (floor, crun) = (&runs[0], &runs[3]);
    for (index, launcher) in Launcher::ALL.into_iter().enumerate() {
        let (run, exec) = (&runs[index], &execs[index]);
        println!(
            "{:<12} {:>10.2} {:>7.2} {:>8.2} {:>9.2} {:>9} {:>12.2} {:>9.2}",
            launcher.name(),
            at(run, 50),
            at(run, 95),
            at(run, 50) / at(crun, 50),
            at(run, 50) / at(floor, 50),
            peak(&stage, launcher)?,
            at(exec, 50),
            at(exec, 50) / at(&execs[0], 50),
        );
    }
    if many > 0 {
        println!("\n{AT_ONCE} at once: launches a second, in turn, median of {many}");
        let rates = in_turn(many as usize, |launcher| at_once(&stage, launcher))?;
        for (launcher, rates) in Launcher::ALL.into_iter().zip(&rates) {
            println!("{:<12} {:>8.1}", launcher.name(), at(rates, 50));
        }
    }
    kept(context, &stage)?;
    smallest(&stage)?;
    if soak > 0 {
        grow(context, &stage, soak)?;
    }
    Ok(())
}

fn name() -> String {
    format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Rounds in which each launcher has its turn; a first one does not count.
fn in_turn(
    rounds: usize,
    mut once: impl FnMut(Launcher) -> Result<f64> + Send,
) -> Result<Vec<Vec<f64>>> {
    let mut all = vec![Vec::new(); Launcher::ALL.len()];
    for round in 0..=rounds {
        for (launcher, values) in Launcher::ALL.into_iter().zip(&mut all) {
            let value = placed(launcher, || once(launcher))?;
            if round > 0 {
                values.push(value);
            }
        }
    }
    for values in &mut all {
        values.sort_by(f64::total_cmp);
    }
    Ok(all)
}

/// On a thread of its own that sees what the launcher can do with.
fn placed<T: Send>(launcher: Launcher, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if launcher == Launcher::Crun {
                hide_v2()?;
            }
            work()
        });
        thread
            .join()
            .unwrap_or_else(|_| bail!("{} panicked", launcher.name()))
    })
}

/// Milliseconds.
fn timed(mut command: Command) -> Result<f64> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let took = start.elapsed();
    ensure!(status.success(), "{command:?}: {status}");
    Ok(took.as_secs_f64() * 1000.0)
}

fn execs(stage: &Stage<'_>, rounds: usize) -> Result<Vec<Vec<f64>>> {
    let mut started = Vec::new();
    for launcher in Launcher::ALL {
        let name = name();
        let pid = placed(launcher, || stage.start(launcher, &name))?;
        started.push((launcher, name, pid));
    }
    let of = |launcher: Launcher| {
        started
            .iter()
            .find(|(other, ..)| *other == launcher)
            .context("not started")
    };
    let times = in_turn(rounds, |launcher| {
        let (_, name, pid) = of(launcher)?;
        timed(stage.exec(launcher, name, *pid))
    });
    for (launcher, name, _) in &started {
        placed(*launcher, || stage.remove(*launcher, name))?;
    }
    times
}

fn at_once(stage: &Stage<'_>, launcher: Launcher) -> Result<f64> {
    let start = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|_| scope.spawn(|| timed(stage.run(launcher, &name()))))
            .collect();
        for thread in threads {
            thread.join().unwrap_or_else(|_| bail!("panicked"))?;
        }
        anyhow::Ok(())
    })?;
    Ok(f64::from(AT_ONCE) / start.elapsed().as_secs_f64())
}

/// The largest resident set of a launch, as the kernel tells the parent.
fn peak(stage: &Stage<'_>, launcher: Launcher) -> Result<u64> {
    placed(launcher, || {
        let run = stage.run(launcher, &name());
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(PEAK)
            .arg(run.get_program())
            .args(run.get_args());
        if let Some(directory) = run.get_current_dir() {
            command.current_dir(directory);
        }
        for (key, value) in run.get_envs() {
            command.env(key, value.unwrap_or_default());
        }
        let output = finish(&mut command)?;
        let last = output.stdout.trim().lines().last().unwrap_or_default();
        last.parse().with_context(|| format!("{output:?}"))
    })
}

fn peak_of(program: &str, args: &[String]) -> Result<()> {
    let status = Command::new(program).args(args).status()?;
    ensure!(status.success(), "{program}: {status}");
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
    Ok(())
}

/// What paddock holds for each container that runs: proportional set sizes.
fn kept(context: &Context, stage: &Stage<'_>) -> Result<()> {
    let before = of_paddock()?;
    let names: Vec<_> = (0..KEPT).map(|_| name()).collect();
    for name in &names {
        stage.start(Launcher::Paddock, name)?;
    }
    let after = of_paddock()?;
    for name in &names {
        context.ok(&["rm", "-f", name])?;
    }
    println!(
        "\nkept per running container: {} KiB (agent, zygote and {KEPT} monitors, by Pss)",
        (after - before) / u64::from(KEPT)
    );
    Ok(())
}

/// KiB of every process of the agent's.
fn of_paddock() -> Result<u64> {
    let mut sum = 0;
    for process in procfs::process::all_processes()?.flatten() {
        let Ok(stat) = process.stat() else { continue };
        if !stat.comm.starts_with("paddock") || stat.comm.starts_with("paddock-bench") {
            continue;
        }
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid));
        let text = text.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        sum += kib.unwrap_or(0);
    }
    Ok(sum)
}

/// The smallest memory limit, in steps of 64 KiB, under which `true` ends well.
fn smallest(stage: &Stage<'_>) -> Result<()> {
    println!("\nsmallest memory limit for a static true, KiB");
    for launcher in [
        Launcher::Paddock,
        Launcher::PaddockOci,
        Launcher::Crun,
        Launcher::Runc,
    ] {
        let found = placed(launcher, || {
            let (mut fails, mut works) = (0_u64, 1024_u64);
            while works - fails > 1 {
                let middle = u64::midpoint(fails, works);
                let command = stage.run_within(launcher, &name(), middle * 65536)?;
                if timed(command).is_ok() {
                    works = middle;
                } else {
                    fails = middle;
                }
            }
            Ok(works * 64)
        })?;
        println!("{:<12} {found:>6}", launcher.name());
    }
    Ok(())
}

/// Many launches one after the other: what the agent and the machine hold before and after.
fn grow(context: &Context, stage: &Stage<'_>, launches: u32) -> Result<()> {
    let run = || timed(stage.run(Launcher::Paddock, &name()));
    // What is allocated once is allocated by then.
    for _ in 0..200 {
        run()?;
    }
    let before = held(context)?;
    let mut times = Vec::new();
    for _ in 0..launches {
        times.push(run()?);
    }
    // The agent's history and clean-up are a moment behind.
    thread::sleep(Duration::from_secs(2));
    let after = held(context)?;
    let tenth = times.len() / 10;
    let median = |part: &[f64]| {
        let mut part = part.to_vec();
        part.sort_by(f64::total_cmp);
        at(&part, 50)
    };
    println!("\n{launches} launches     before    after");
    for ((what, before), (_, after)) in before.iter().zip(&after) {
        println!("{what:<16} {before:>9} {after:>8}");
    }
    println!(
        "p50 ms           {:>9.2} {:>8.2}  (first and last tenth)",
        median(&times[..tenth]),
        median(&times[times.len() - tenth..])
    );
    Ok(())
}

fn held(context: &Context) -> Result<Vec<(&'static str, u64)>> {
    let pid = context.agent_pid()?;
    let mut cgroups = 0;
    for (_, root) in cgroup_mounts()? {
        cgroups += directories(&root.join("paddock"));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?.lines().count();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok(vec![
        ("Pss KiB", of_paddock()?),
        ("descriptors", u64::try_from(descriptors)?),
        ("cgroups", cgroups),
        ("mounts", u64::try_from(mounts)?),
    ])
}

fn directories(path: &std::path::Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    let inner = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| directories(&entry.path()));
    1 + inner.sum::<u64>()
}

/// The percentile of sorted values.
fn at(sorted: &[f64], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
