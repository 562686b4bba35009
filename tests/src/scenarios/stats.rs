//! `paddock stats`: what it says is what the kernel's files say, and it says so at once.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::limits::flags::cgroup_of;
use crate::{
    context::{Context, cgroup_file, eventually},
    runner::Scenario,
    terminal::Terminal,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("stats::are_what_the_files_say", are_what_the_files_say),
    Scenario::new("stats::on_a_terminal", on_a_terminal),
    Scenario::new("stats::refusals_are_one_line", refusals_are_one_line),
];

const BUSY: &str = "while :; do :; done";

fn start(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run", "-d", "--name", "busy", "--memory", "64m", "--cpus", "0.5", "host", "sh", "-c", BUSY,
    ])?;
    context
        .ok(&["run", "-d", "--name", "idle", "host", "sleep", "600"])
        .map(drop)
}

/// CPU time in microseconds, by the kernel.
fn used(cgroup: &str) -> Result<f64> {
    let path = cgroup_file(cgroup, "cpu.stat", ("cpuacct", "cpuacct.usage"));
    let text = fs::read_to_string(&path)?;
    if let Ok(nanos) = text.trim().parse::<f64>() {
        return Ok(nanos / 1e3);
    }
    let mut lines = text.lines();
    let usage = lines.find_map(|line| line.strip_prefix("usage_usec "));
    Ok(usage.context("no usage")?.parse()?)
}

fn are_what_the_files_say(context: &Context) -> Result<()> {
    start(context)?;
    let cgroup = cgroup_of(context, "busy")?;
    // The agent has looked, or looks now.
    let first: Value = context.json(&["stats", "--format", "json"])?;
    ensure!(
        first.as_array().is_some_and(|all| all.len() == 2),
        "{first}"
    );
    let (before, began) = (used(&cgroup)?, Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let all: Value = context.json(&["stats", "busy", "--format", "json"])?;
    let (after, took) = (used(&cgroup)?, began.elapsed());
    let busy = &all[0];
    let percent = busy["cpu_percent"].as_f64().context("no cpu_percent")?;
    let truth = (after - before) / 1e4 / took.as_secs_f64();
    // Half a CPU; each over its own three seconds.
    ensure!(
        percent > truth / 2.0 && percent < truth * 2.0 + 5.0,
        "{percent}, by the files {truth}: {busy}"
    );
    let memory = busy["memory_usage_bytes"].as_f64().context("no memory")?;
    let path = cgroup_file(
        &cgroup,
        "memory.current",
        ("memory", "memory.usage_in_bytes"),
    );
    let truth: f64 = fs::read_to_string(&path)?.trim().parse()?;
    ensure!(
        (memory - truth).abs() < 1e6 && busy["memory_limit_bytes"] == 67_108_864,
        "{truth}: {busy}"
    );
    let table = context.ok(&["stats"])?;
    let names: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().next().unwrap_or_default())
        .collect();
    ensure!(names == ["NAME", "busy", "idle"], "{table}");
    // One that is paused is still there and uses nothing.
    context.ok(&["pause", "busy"])?;
    // Looks that come close together keep the older one.
    std::thread::sleep(Duration::from_secs(1));
    context.ok(&["stats", "busy"])?;
    std::thread::sleep(Duration::from_secs(1));
    let paused: Value = context.json(&["stats", "busy", "--format", "json"])?;
    ensure!(
        paused[0]["cpu_percent"]
            .as_f64()
            .is_some_and(|now| now < 10.0),
        "{paused}"
    );
    context.ok(&["unpause", "busy"])?;
    context.ok(&["rm", "-f", "busy", "idle"]).map(drop)
}

/// At two widths: a line is never wider, and the numbers come again.
fn on_a_terminal(context: &Context) -> Result<()> {
    start(context)?;
    for (columns, io) in [(80, false), (200, true)] {
        let terminal = Terminal::of(context, &["stats"], columns)?;
        eventually("two tables", || {
            Ok(terminal.shown().matches("NAME").count() >= 2)
        })?;
        let shown = terminal.shown();
        ensure!(shown.contains("READ / WRITTEN") == io, "{columns}: {shown}");
        for line in plain(&shown).lines() {
            let width = line.trim_end().chars().count();
            ensure!(width <= usize::from(columns), "{columns}: {width}: {line}");
        }
    }
    context.ok(&["rm", "-f", "busy", "idle"]).map(drop)
}

/// Without the terminal's own commands.
fn plain(shown: &str) -> String {
    shown
        .replace("\u{1b}[H", "\n")
        .replace("\u{1b}[J", "")
        .replace("\u{1b}[K", "")
}

fn refusals_are_one_line(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let absent = context.paddock(&["stats", "nobody"])?;
    ensure!(
        absent.code == Some(1) && absent.stderr == "paddock: no container nobody\n",
        "{absent:?}"
    );
    let odd = context.paddock(&["stats", "no/body ?"])?;
    ensure!(
        odd.code == Some(1) && odd.stderr == "paddock: no container no/body ?\n",
        "{odd:?}"
    );
    context.ok(&["run", "--name", "over", "host", "true"])?;
    let ended = context.paddock(&["stats", "over"])?;
    ensure!(
        ended.code == Some(1) && ended.stderr == "paddock: over is not running\n",
        "{ended:?}"
    );
    ensure!(context.json(&["stats", "--format", "json"])? == serde_json::json!([]));
    context.ok(&["rm", "over"]).map(drop)
}
