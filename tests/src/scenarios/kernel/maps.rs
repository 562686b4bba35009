//! How the agent is inside its maps, as strace sees it.

use std::{
    collections::HashMap,
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{signal::Signal, utsname::uname};

use crate::{
    context::{Context, TIMEOUT, eventually, finish},
    process::Running,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[Scenario::new(
    "kernel::the_agent_keeps_its_processor_inside_its_maps",
    keeps_its_processor,
)];

/// Calls for which the kernel keeps probes off: `bpf_disable_instrumentation` in
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/syscall.c>.
const INSIDE: [&str; 3] = [
    "bpf(BPF_MAP_LOOKUP_ELEM",
    "bpf(BPF_MAP_UPDATE_ELEM",
    "bpf(BPF_MAP_DELETE_ELEM",
];

/// A launch and a scrape: where the kernel preempts itself, each look into a map is one of a
/// thread that no ordinary task takes the processor from; elsewhere nothing is changed for it.
fn keeps_its_processor(context: &Context) -> Result<()> {
    let agent = context.start_agent(&["--detach-on-exit"])?.to_string();
    let seen = context.state.with_extension("strace");
    let path = seen.display().to_string();
    let filter = "trace=bpf,sched_setscheduler";
    let strace = Running::start(Command::new("strace").args([
        "-f",
        "-qq",
        "-e",
        filter,
        "-e",
        "signal=none",
        "-o",
        &path,
        "-p",
        &agent,
    ]))?;
    eventually("strace is there", || {
        let status = fs::read_to_string(format!("/proc/{agent}/status"))?;
        Ok(!status.contains("TracerPid:\t0\n"))
    })?;
    context.ok(&["run", "--rm", "host", "true"])?;
    context.metrics()?;
    strace.signal(Signal::SIGINT)?;
    strace.wait(TIMEOUT)?;
    let text = fs::read_to_string(&seen)?;
    fs::remove_file(&seen)?;

    // By thread: whether it keeps its processor, once it said so, and how often it was in a map.
    let mut threads: HashMap<&str, (Option<bool>, u32)> = HashMap::new();
    let mut inside = 0;
    for line in text.lines() {
        let (thread, call) = line.split_once(' ').context("a line without a thread")?;
        let call = call.trim_start();
        let (keeps, before) = threads.entry(thread).or_default();
        if call.starts_with("sched_setscheduler(") {
            *keeps = Some(!call.contains("SCHED_OTHER"));
        } else if INSIDE.iter().any(|inside| call.starts_with(inside)) {
            match *keeps {
                // It may have been at it when strace came.
                None => *before += 1,
                Some(keeps) => {
                    ensure!(keeps, "{line}\n{text}");
                    inside += 1;
                }
            }
        }
    }
    let never: u32 = threads
        .values()
        .filter(|(keeps, _)| keeps.is_none())
        .map(|(_, before)| before)
        .sum();
    println!("    {inside} looks kept, {never} others");
    if preempts()? {
        ensure!(inside > 20 && never == 0, "{text}");
    } else {
        ensure!(inside == 0 && never > 20, "{text}");
    }
    Ok(())
}

/// As the kernel says of itself; not said is yes.
fn preempts() -> Result<bool> {
    const SCRIPT: &str = "mount -t debugfs none /sys/kernel/debug 2>/dev/null; \
        cat /sys/kernel/debug/sched/preempt 2>/dev/null; true";
    if !uname()?.version().to_string_lossy().contains("PREEMPT") {
        return Ok(false);
    }
    let models = finish(
        Command::new("unshare")
            .args(["--mount", "sh", "-c", SCRIPT])
            .stdin(Stdio::null()),
    )?
    .stdout;
    Ok(!models.contains("(none)") && !models.contains("(voluntary)"))
}
