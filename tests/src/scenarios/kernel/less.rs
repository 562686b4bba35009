//! What is withheld under load: counted by its reason, told, and never at the cost of a count.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{able, calls, closes, container_closes, equal, of_container};
use crate::{
    context::{Context, eventually, pure_v2},
    metrics::Metrics,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "kernel::many_containers_close_the_identity",
        many_containers_close_the_identity,
    ),
    Scenario::new(
        "kernel::programs_of_many_containers",
        programs_of_many_containers,
    ),
    Scenario::new("kernel::rate_of_a_container", rate_of_a_container).alone(),
    Scenario::new(
        "kernel::pressure_withholds_what_can_be_done_without",
        pressure_withholds_what_can_be_done_without,
    )
    .alone(),
];

/// Several at once on few processors, each as fast as it can: each one's count is its own calls,
/// though a kernel that preempts itself passes over programs that a waiting task is inside of, and
/// over probes while the agent is inside a map: others come and go all the while.
fn many_containers_close_the_identity(context: &Context) -> Result<()> {
    const CONTAINERS: u32 = 8;
    const CALLS: u32 = 20_011;
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let names: Vec<_> = (0..CONTAINERS).map(|one| format!("many{one}")).collect();
    let count = CALLS.to_string();
    for name in &names {
        let mut args = able(name, &[&volume]);
        args.insert(1, "-d");
        args.extend(["/run/workload", "unshare-loop", "uts", &count]);
        context.ok(&args)?;
    }
    let ended = AtomicBool::new(false);
    let others = thread::scope(|scope| {
        let launching = scope.spawn(|| {
            let mut others = 0;
            while !ended.load(Ordering::Relaxed) {
                context.metrics()?;
                context.ok(&["run", "--rm", "host", "true"])?;
                others += 1;
            }
            anyhow::Ok(others)
        });
        let waited = names
            .iter()
            .try_for_each(|name| context.ok(&["wait", name]).map(drop));
        ended.store(true, Ordering::Relaxed);
        waited.and(launching.join().unwrap_or(Ok(0)))
    })?;
    println!("    {others} others");
    ensure!(others > 0, "no others");
    for name in &names {
        ensure!(context.ok(&["wait", name])?.trim() == "0", "{name}");
        let said = context.ok(&["logs", name])?;
        ensure!(said.trim() == format!("{CALLS} calls, 0 refused"), "{said}");
    }
    let metrics = context.metrics()?;
    for name in &names {
        equal(
            name,
            calls(&metrics, name, "unshare", "uts", "allowed"),
            CALLS,
        )?;
    }
    eventually("every account is even", || {
        let metrics = context.metrics()?;
        let each = names.iter().all(|name| container_closes(&metrics, name));
        Ok(each && closes(&metrics))
    })
}

/// Likewise with programs: each one's execs and exits are those that it ran.
fn programs_of_many_containers(context: &Context) -> Result<()> {
    const CONTAINERS: u32 = 6;
    context.start_agent(&["--detach-on-exit"])?;
    let flags = context.state.with_extension("flags");
    fs::create_dir_all(&flags)?;
    let names: Vec<_> = (0..CONTAINERS).map(|one| format!("runs{one}")).collect();
    let result = run_programs(context, &flags, &names);
    // Also for one that failed: they would never end.
    let _ = fs::write(flags.join("end"), "");
    let _ = fs::remove_dir_all(&flags);
    result
}

fn run_programs(context: &Context, flags: &Path, names: &[String]) -> Result<()> {
    let volumes = [
        context.workload_volume(),
        format!("{}:/flags", flags.display()),
    ];
    for name in names {
        let mut args = able(name, &[&volumes[0], &volumes[1]]);
        args.insert(1, "-d");
        args.extend(["/run/workload", "spawn-between"]);
        args.extend(["/flags/start", "/flags/end", "/bin/true"]);
        context.ok(&args)?;
    }
    // Its own exec is told by now: `run -d` returns after it.
    let metrics = context.metrics()?;
    let seen = |metrics: &Metrics, name: &str| of_container(metrics, name, "seen");
    let before: Vec<_> = names.iter().map(|name| seen(&metrics, name)).collect();
    fs::write(flags.join("start"), "")?;
    thread::sleep(Duration::from_secs(5));
    fs::write(flags.join("end"), "")?;
    for (name, before) in names.iter().zip(before) {
        eventually("it tells its count", || {
            Ok(context.ok(&["logs", name])?.contains("calls"))
        })?;
        let said = context.ok(&["logs", name])?;
        let ran = said.trim().strip_suffix(" calls, 0 refused");
        let ran: u32 = ran.with_context(|| said.clone())?.parse()?;
        ensure!(ran > 5, "{name} ran {ran} only");
        // Each is an exec and an exit.
        let metrics = context.metrics()?;
        equal(name, seen(&metrics, name) - before, 2 * ran)?;
        ensure!(container_closes(&metrics, name), "{name}: {}", metrics.0);
        println!("    {ran} programs");
    }
    Ok(())
}

/// One that makes too much is told so, start and stop, with the number; another is not touched.
fn rate_of_a_container(context: &Context) -> Result<()> {
    const BURST: f64 = 500.0;
    context.start_agent(&[
        "--detach-on-exit",
        "--event-rate",
        "100",
        "--event-burst",
        "500",
    ])?;
    let volume = context.workload_volume();
    for (name, count) in [("loud", "5003"), ("quiet", "53")] {
        let mut args = able(name, &[&volume]);
        args.extend(["/run/workload", "unshare-loop", "uts", count]);
        context.ok(&args)?;
    }
    let metrics = context.metrics()?;
    equal(
        "loud",
        calls(&metrics, "loud", "unshare", "uts", "allowed"),
        5003,
    )?;
    equal(
        "quiet",
        of_container(&metrics, "quiet", "lost_rate_limited"),
        0,
    )?;
    let withheld = of_container(&metrics, "loud", "lost_rate_limited");
    let submitted = of_container(&metrics, "loud", "submitted");
    // A tenth of the burst is kept for what the agent needs; the rate adds a little meanwhile.
    ensure!(
        submitted > BURST * 0.8 && submitted < 5003.0 - 1000.0 && withheld > 1000.0,
        "{submitted} submitted, {withheld} withheld"
    );
    ensure!(container_closes(&metrics, "loud"), "{}", metrics.0);
    let told = || -> Result<Vec<Value>> {
        let events = context.events()?;
        let events = events.lines().map(serde_json::from_str::<Value>);
        let all: Vec<_> = events.collect::<Result<_, _>>()?;
        Ok(all
            .into_iter()
            .filter(|event| event["event"] == "limited")
            .collect())
    };
    eventually("start and stop are told", || Ok(told()?.len() == 2))?;
    let told = told()?;
    for (event, action) in told.iter().zip(["started", "stopped"]) {
        ensure!(
            event["container"] == "loud"
                && event["reason"] == "rate_limited"
                && event["action"] == action,
            "{event}"
        );
    }
    let number = told[1]["withheld"].as_f64().context("no number")?;
    ensure!(
        (number - withheld).abs() < 0.5,
        "{number} told, {withheld} counted"
    );
    Ok(())
}

/// Nobody reads: namespace calls are withheld before the ring is full, so that a cgroup made
/// meanwhile is still told of.
fn pressure_withholds_what_can_be_done_without(context: &Context) -> Result<()> {
    let agent = context.start_agent(&["--detach-on-exit", "--event-rate", "0"])?;
    let agent = Pid::from_raw(agent);
    let volume = context.workload_volume();
    let mut args = able("flood", &[&volume]);
    args.insert(1, "-d");
    args.extend([
        "sh",
        "-c",
        "while [ ! -e /go ]; do sleep 0.05; done; /run/workload unshare-loop uts 20011; \
         touch /gone; sleep 600",
    ]);
    context.ok(&args)?;
    let said = context.inspect("flood")?;
    let pid = said["pid"].as_i64().context("no pid")?;
    let cgroup = said["cgroup"].as_str().context("no cgroup")?;
    let inside = |file: &str| Path::new("/proc").join(format!("{pid}/root/{file}"));
    let root = Path::new(if pure_v2() {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/unified"
    });
    let nested = |one: u32| root.join(cgroup).join(format!("nested-{one}"));
    kill(agent, Signal::SIGSTOP)?;
    let flooded = fs::write(inside("go"), "")
        .map_err(anyhow::Error::from)
        .and_then(|()| eventually("the flood is over", || Ok(inside("gone").exists())));
    let made = (0..20).try_for_each(|one| fs::create_dir(nested(one)));
    let gone = (0..20).try_for_each(|one| fs::remove_dir(nested(one)));
    kill(agent, Signal::SIGCONT)?;
    flooded?;
    made.and(gone)?;
    eventually("the account is even", || Ok(closes(&context.metrics()?)))?;
    let metrics = context.metrics()?;
    equal(
        "unshare",
        calls(&metrics, "flood", "unshare", "uts", "allowed"),
        20_011,
    )?;
    let withheld = of_container(&metrics, "flood", "lost_pressure");
    ensure!(withheld > 1000.0, "{withheld} withheld by pressure");
    ensure!(container_closes(&metrics, "flood"), "{}", metrics.0);
    let lost = metrics.sum("paddock_records_total", &[("stage", "lost_ring_full")]);
    equal("lost to a full ring", lost, 0)?;
    let events = context.ok(&["events", "--format", "json", "--container", "flood"])?;
    for action in ["mkdir", "rmdir"] {
        let action = format!("\"action\":\"{action}\"");
        let told = events
            .lines()
            .filter(|line| line.contains(&action) && line.contains("/nested-"));
        equal(&action, f64::from(u32::try_from(told.count())?), 20)?;
    }
    Ok(())
}
