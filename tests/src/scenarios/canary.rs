//! The escape that the agent plays itself: heard of, counted, and nobody's else. The witness is
//! strace: as many were played as were counted.

use std::{fs, path::PathBuf};

use anyhow::{Result, ensure};

use crate::{
    context::{Context, cgroup_mounts, eventually},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "canary::is_heard_and_told_to_nobody",
        is_heard_and_told_to_nobody,
    )
    .alone(),
    Scenario::new(
        "canary::is_not_waited_for_at_the_end",
        is_not_waited_for_at_the_end,
    )
    .alone(),
];

const ENOUGH: f64 = 3.0;

fn is_heard_and_told_to_nobody(context: &Context) -> Result<()> {
    let trace = context.state.with_extension("trace");
    let name = trace.display().to_string();
    // The tracer goes to the background, and the agent is this process' child.
    let strace = ["strace", "-D", "-f", "-e", "trace=setns", "-o", &name];
    context.start_agent_by(&strace, &["--detach-on-exit", "--canary-interval", "1"])?;
    let runs = |outcome: &str| -> Result<f64> {
        let labels = [("outcome", outcome)];
        Ok(context.metrics()?.sum("paddock_canary_runs_total", &labels))
    };
    eventually("it is heard of again and again", || {
        Ok(runs("seen")? >= ENOUGH)
    })?;
    let metrics = context.metrics()?;
    let delay = metrics.value("paddock_canary_delay_seconds", &[]);
    ensure!(
        delay.is_some_and(|delay| delay > 0.0 && delay < 10.0),
        "{delay:?}"
    );
    ensure!(
        runs("missed")? + runs("failed")? < 0.5,
        "{}",
        context.agent_log()
    );
    let escapes = metrics.sum("paddock_container_escapes_total", &[]);
    ensure!(escapes < 0.5, "{escapes} escapes of containers");
    let told = context.ok(&["events", "--format", "json"])?;
    ensure!(
        !told.contains("setns") && !told.contains("canary"),
        "{told}"
    );
    let known = context.ok(&["ps", "-a"])?;
    ensure!(!known.contains("canary"), "{known}");

    context.stop_agent()?;
    let played = fs::read_to_string(&trace)?;
    fs::remove_file(&trace)?;
    let played = played
        .lines()
        .filter(|line| line.contains("setns") && line.ends_with("= 0"))
        .count();
    let played = f64::from(u32::try_from(played)?);
    ensure!(played >= ENOUGH, "strace saw {played}");
    let left = stages()?;
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

/// An agent's reader ends before it: what is played then is heard by nobody, and not waited for.
fn is_not_waited_for_at_the_end(context: &Context) -> Result<()> {
    let slow = [
        "strace",
        "-D",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=setns",
        "-e",
    ];
    let slow = [&slow[..], &["inject=setns:delay_enter=1s"]].concat();
    context.start_agent_by(&slow, &["--detach-on-exit", "--canary-interval", "600"])?;
    eventually("it is played", || {
        let stages = stages()?.into_iter();
        let on_stage = stages.flat_map(|stage| fs::read_to_string(stage.join("cgroup.procs")));
        Ok(on_stage.into_iter().any(|pids| !pids.is_empty()))
    })?;
    context.stop_agent()?;
    let log = context.agent_log();
    ensure!(!log.contains("cut off"), "{log}");
    ensure!(!log.contains("nothing was heard"), "{log}");
    let left = stages()?;
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

/// The cgroups that it is played in.
fn stages() -> Result<Vec<PathBuf>> {
    let mut stages = vec![];
    for (_, dir) in cgroup_mounts()? {
        for instance in fs::read_dir(dir.join("paddock")).into_iter().flatten() {
            stages.extend(Some(instance?.path().join("canary")).filter(|stage| stage.exists()));
        }
    }
    Ok(stages)
}
