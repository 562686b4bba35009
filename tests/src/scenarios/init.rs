//! `--init`: what the first process does for the program, read from the host's procfs.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::namespaces::pid;
use crate::{
    context::{Context, eventually},
    process::program_is_out_of_reach,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("init::reaps_orphans", reaps_orphans),
    Scenario::new(
        "init::hands_signals_and_codes_on",
        hands_signals_and_codes_on,
    ),
    Scenario::new("init::gives_the_terminal_away", gives_the_terminal_away),
    Scenario::new("init::out_of_memory", out_of_memory),
];

/// Children of `parent` that have ended and that nobody has waited for.
fn zombies(parent: &str) -> Result<usize> {
    let all = procfs::process::all_processes()?;
    let parent: i32 = parent.parse()?;
    Ok(all
        .flatten()
        .filter_map(|process| process.stat().ok())
        .filter(|stat| stat.ppid == parent && stat.state == 'Z')
        .count())
}

fn reaps_orphans(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let orphans = "for n in 1 2 3 4 5 6 7; do (sleep 0.1 &); done";
    context.ok(&["run", "-d", "--name", "bare", "host", "sleep", "600"])?;
    context.ok(&["exec", "bare", "sh", "-c", orphans])?;
    let bare = pid(context, "bare")?;
    eventually("sleep leaves seven zombies", || Ok(zombies(&bare)? == 7))?;

    context.ok(&[
        "run", "-d", "--init", "--name", "kept", "host", "sleep", "600",
    ])?;
    context.ok(&["exec", "kept", "sh", "-c", &format!("{orphans}; sleep 0.3")])?;
    let kept = pid(context, "kept")?;
    let comm = fs::read_to_string(format!("/proc/{kept}/comm"))?;
    ensure!(comm == "paddock-init\n", "the first process is {comm}");
    program_is_out_of_reach(&kept)?;
    eventually("no zombie is left", || Ok(zombies(&kept)? == 0))?;
    let children = fs::read_to_string(format!("/proc/{kept}/task/{kept}/children"))?;
    let only: Vec<_> = children.split_whitespace().collect();
    let [program] = only[..] else {
        anyhow::bail!("its children are {children}")
    };
    let comm = fs::read_to_string(format!("/proc/{program}/comm"))?;
    ensure!(comm == "sleep\n", "the program is {comm}");
    // Three descriptors of the program's and its own for signals and for the program.
    let descriptors = fs::read_dir(format!("/proc/{kept}/fd"))?.count();
    ensure!(descriptors == 5, "{descriptors} descriptors");
    let status = fs::read_to_string(format!("/proc/{kept}/status"))?;
    let effective = status.lines().find(|line| line.starts_with("CapEff:"));
    ensure!(
        effective == Some("CapEff:\t00000000a80425fb"),
        "more than docker's capabilities: {effective:?}"
    );
    Ok(())
}

fn hands_signals_and_codes_on(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    for (script, code) in [("exit 23", 23), ("kill -9 $$", 137), ("kill -15 $$", 143)] {
        let output = context.paddock(&["run", "--rm", "--init", "host", "sh", "-c", script])?;
        ensure!(output.code == Some(code), "{script}: {output:?}");
    }
    let output = context.paddock(&["run", "--rm", "--init", "host", "no-such-command"])?;
    ensure!(output.code == Some(127), "{output:?}");
    for (signal, number) in [("USR1", 10), ("TERM", 15), ("HUP", 1)] {
        let script = format!(
            "trap 'exit {}' {signal}; echo up; while :; do sleep 0.05; done",
            30 + number
        );
        context.ok(&[
            "run", "-d", "--init", "--name", signal, "host", "sh", "-c", &script,
        ])?;
        eventually("the trap is set", || {
            Ok(context.ok(&["logs", signal])?.contains("up"))
        })?;
        context.ok(&["kill", "--signal", signal, signal])?;
        let code = context.ok(&["wait", signal])?;
        ensure!(code.trim() == (30 + number).to_string(), "{signal}: {code}");
    }
    Ok(())
}

/// The foreground process group of the terminal is the program's.
fn gives_the_terminal_away(context: &Context) -> Result<()> {
    let said = context.ok(&[
        "run",
        "--rm",
        "-t",
        "--init",
        "host",
        "sh",
        "-c",
        "cat /proc/$$/stat",
    ])?;
    let fields: Vec<_> = said
        .rsplit(')')
        .next()
        .context("no stat")?
        .split_whitespace()
        .collect();
    let [_state, parent, group, session, _terminal, foreground] = fields[..6] else {
        anyhow::bail!("{said}")
    };
    ensure!(
        parent == "1" && session == "1" && group == foreground && group != "1",
        "{said}"
    );
    Ok(())
}

fn out_of_memory(context: &Context) -> Result<()> {
    let volume = context.workload_volume();
    let output = context.paddock(&[
        "run",
        "--rm",
        "--init",
        "--name",
        "greedy",
        "--memory",
        "64m",
        "-v",
        &volume,
        "host",
        "/run/workload",
        "alloc",
        "268435456",
    ])?;
    ensure!(
        output.code == Some(137) && output.stderr.contains("out of memory"),
        "{output:?}"
    );
    Ok(())
}
