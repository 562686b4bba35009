//! The escape that the agent plays itself: heard of, counted, and nobody's else. The witness is
//! strace: as many were played as were counted.

use std::fs;

use anyhow::{Result, ensure};

use crate::{
    context::{Context, cgroup_mounts, eventually},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[Scenario::new(
    "canary::is_heard_and_told_to_nobody",
    is_heard_and_told_to_nobody,
)
.alone()];

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
    for (_, dir) in cgroup_mounts()? {
        let left = dir.join("paddock").exists()
            && fs::read_dir(dir.join("paddock"))?
                .flatten()
                .any(|entry| entry.path().join("canary").exists());
        ensure!(!left, "its cgroup is left in {}", dir.display());
    }
    Ok(())
}
