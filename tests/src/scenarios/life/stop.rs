//! Stop signals and timeouts. Witness: the workload's own traps and exit codes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    context::{Context, eventually},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("life::stop_signal", stop_signal),
    Scenario::new("life::stop_timeout", stop_timeout),
    Scenario::new("life::stop_of_what_is_ending", stop_of_what_is_ending),
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

/// At any moment of its end: the agent learns of it and takes the cgroup away meanwhile.
fn stop_of_what_is_ending(context: &Context) -> Result<()> {
    const ROUNDS: u32 = 40;
    const STEP: Duration = Duration::from_micros(500);
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["create", "--name", "brief", "host", "sleep", "600"])?;
    for round in 0..ROUNDS {
        context.ok(&["start", "brief"])?;
        let pid = context.inspect("brief")?["pid"]
            .as_i64()
            .context("no pid")?;
        let stop = thread::scope(|scope| {
            let stop = scope.spawn(|| context.paddock(&["stop", "brief"]));
            thread::sleep(STEP * round);
            let killed = kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL);
            let stop = stop.join().ok().context("the thread panicked")??;
            // The stop may have been the end.
            ensure!(killed.is_ok() || killed == Err(Errno::ESRCH), "{killed:?}");
            Ok(stop)
        })?;
        ensure!(stop.code == Some(0), "{stop:?}");
        ensure!(context.inspect("brief")?["state"] == "exited");
    }
    context.ok(&["rm", "brief"]).map(drop)
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
