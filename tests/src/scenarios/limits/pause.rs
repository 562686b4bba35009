//! `paddock pause` and `unpause`: the freezer's own file is the witness, and a counter that
//! stands still.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::flags::cgroup_of;
use crate::{
    context::{Context, cgroup_file, eventually, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "limits::pause_stops_and_unpause_goes_on",
        pause_stops_and_unpause_goes_on,
    )
    .alone(),
    Scenario::new("limits::paused_ones_can_be_ended", paused_ones_can_be_ended),
];

/// The kernel's word on it.
fn frozen(cgroup: &str) -> Result<bool> {
    let path = cgroup_file(cgroup, "cgroup.events", ("freezer", "freezer.state"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(if pure_v2() {
        text.lines().any(|line| line == "frozen 1")
    } else {
        text.trim() == "FROZEN"
    })
}

fn says(context: &Context, words: &[&str], want: &str) -> Result<()> {
    let output = context.paddock(words)?;
    ensure!(
        output.code != Some(0) && output.stderr.trim_end() == want,
        "{words:?}: {output:?}, not {want}"
    );
    Ok(())
}

fn pause_stops_and_unpause_goes_on(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let count = "while :; do echo tick; sleep 0.1; done";
    context.ok(&["run", "-d", "--name", "clock", "host", "sh", "-c", count])?;
    let cgroup = cgroup_of(context, "clock")?;
    let ticks = || Ok::<_, anyhow::Error>(context.ok(&["logs", "clock"])?.lines().count());
    eventually("it ticks", || Ok(ticks()? > 2))?;
    says(
        context,
        &["unpause", "clock"],
        "paddock: clock is not paused",
    )?;
    ensure!(context.ok(&["pause", "clock"])?.trim() == "clock");
    ensure!(frozen(&cgroup)?);
    // What was on its way through the monitor is in the log by then.
    thread::sleep(Duration::from_millis(300));
    let before = ticks()?;
    thread::sleep(Duration::from_secs(1));
    ensure!(ticks()? == before, "it ticks while it is paused");
    ensure!(context.ok(&["ps"])?.contains("Paused, up"));
    ensure!(context.inspect("clock")?["state"] == "paused");
    says(
        context,
        &["pause", "clock"],
        "paddock: clock is paused already",
    )?;
    says(
        context,
        &["exec", "clock", "true"],
        "paddock: clock is paused: `paddock unpause clock` first",
    )?;
    // The kernel keeps it, so another agent knows.
    context.kill_agent()?;
    context.start_agent(&["--detach-on-exit"])?;
    ensure!(context.inspect("clock")?["state"] == "paused");
    context.ok(&["update", "--pids-limit=50", "clock"])?;
    ensure!(context.ok(&["unpause", "clock"])?.trim() == "clock");
    ensure!(!frozen(&cgroup)?);
    eventually("it ticks again", || Ok(ticks()? > before))?;
    ensure!(context.inspect("clock")?["state"] == "running");
    let events = context.ok(&["events", "--container", "clock", "--format", "json"])?;
    ensure!(events.contains("\"action\":\"unpaused\""), "{events}");
    Ok(())
}

fn paused_ones_can_be_ended(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let trap = "trap 'exit 7' TERM; trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done";
    let paused = |name: &str| -> Result<()> {
        context.ok(&["run", "-d", "--name", name, "host", "sh", "-c", trap])?;
        eventually("it is ready", || {
            Ok(context.ok(&["logs", name])?.contains("ready"))
        })?;
        context.ok(&["pause", name])?;
        Ok(())
    };
    // SIGTERM reaches it, and it goes on to heed it.
    paused("stopped")?;
    context.ok(&["stop", "-t", "30", "stopped"])?;
    ensure!(context.inspect("stopped")?["exit_code"] == 7);

    paused("killed")?;
    // This one waits with it.
    context.ok(&["kill", "-s", "HUP", "killed"])?;
    ensure!(frozen(&cgroup_of(context, "killed")?)?);
    context.ok(&["unpause", "killed"])?;
    eventually("it heeds SIGHUP", || {
        Ok(context.ok(&["logs", "killed"])?.contains("hup"))
    })?;
    context.ok(&["pause", "killed"])?;
    context.ok(&["kill", "killed"])?;
    ensure!(context.ok(&["wait", "killed"])?.trim() == "137");

    paused("removed")?;
    let cgroup = cgroup_of(context, "removed")?;
    context.ok(&["rm", "-f", "removed"])?;
    let gone = cgroup_file(&cgroup, "", ("freezer", ""));
    ensure!(!gone.exists(), "{} is still there", gone.display());
    Ok(())
}
