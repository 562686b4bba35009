//! Stop signals and timeouts. Witness: the workload's own traps and exit codes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    context::{Context, eventually},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("life::stop_signal", stop_signal),
    Scenario::new("life::stop_timeout", stop_timeout),
];

fn up(context: &Context, name: &str, flags: &[&str], traps: &str) -> Result<()> {
    let script = format!("{traps}; echo up; while :; do sleep 0.05; done");
    let args = [
        &["run", "-d", "--name", name],
        flags,
        &["host", "sh", "-c", &script],
    ]
    .concat();
    context.ok(&args)?;
    eventually("the trap is set", || {
        Ok(context.ok(&["logs", name])?.contains("up"))
    })
}

fn stop_signal(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    // 35 is RTMIN+1.
    for (number, (signal, trap)) in [
        ("USR1", "USR1"),
        ("sigquit", "QUIT"),
        ("12", "USR2"),
        ("RTMIN+1", "35"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("own{number}");
        up(
            context,
            &name,
            &["--stop-signal", signal],
            &format!("trap 'exit 4' {trap}; trap 'exit 5' TERM"),
        )?;
        context.ok(&["stop", &name])?;
        let code = context.ok(&["wait", &name])?;
        ensure!(code.trim() == "4", "{signal}: {code}");
    }
    up(
        context,
        "other",
        &["--stop-signal", "USR1"],
        "trap 'exit 4' USR1; trap 'exit 6' 35",
    )?;
    context.ok(&["stop", "-s", "SIGRTMIN+1", "other"])?;
    ensure!(context.ok(&["wait", "other"])?.trim() == "6");
    // A signal that is not its own asks for nothing: the policy holds.
    let flags = ["--stop-signal", "USR1", "--restart", "on-failure"];
    up(context, "reloads", &flags, "trap 'exit 7' HUP")?;
    context.ok(&["kill", "-s", "HUP", "reloads"])?;
    eventually("it runs again", || {
        Ok(context.inspect("reloads")?["restart_count"] == 1)
    })
}

fn stop_timeout(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    up(context, "deaf", &["--stop-timeout", "1"], "trap '' TERM")?;
    let start = Instant::now();
    context.ok(&["stop", "deaf"])?;
    let took = start.elapsed();
    ensure!(took >= Duration::from_secs(1), "killed after {took:?}");
    ensure!(
        took < Duration::from_secs(9),
        "its own timeout was not used: {took:?}"
    );
    ensure!(context.ok(&["wait", "deaf"])?.trim() == "137");
    // Without an end, where its own would have killed it.
    up(
        context,
        "slow",
        &["--stop-timeout", "1"],
        "trap 'sleep 3; exit 8' TERM",
    )?;
    context.ok(&["stop", "-t", "-1", "slow"])?;
    ensure!(context.ok(&["wait", "slow"])?.trim() == "8");
    Ok(())
}
