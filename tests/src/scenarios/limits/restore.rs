//! A limit that somebody else wrote over comes back: the cgroup's files are the witness.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::flags::cgroup_of;
use crate::{
    context::{Context, cgroup_file, eventually, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "limits::changed_by_others_comes_back",
        changed_by_others_comes_back,
    )
    .alone(),
    Scenario::new("limits::a_fight_slows_down", a_fight_slows_down),
    Scenario::new(
        "limits::what_cannot_come_back_is_told_once",
        what_cannot_come_back_is_told_once,
    )
    .alone(),
];

const METRIC: &str = "paddock_container_limits_restored_total";

fn says(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.trim().to_owned())
}

fn restored(context: &Context, name: &str) -> Result<Option<f64>> {
    Ok(context.metrics()?.value(METRIC, &[("container", name)]))
}

/// Each file with what is to be in it, and what a reload resets it to.
fn files(cgroup: &str) -> [(PathBuf, &'static str, &'static str); 3] {
    let file = |v2, v1| cgroup_file(cgroup, v2, v1);
    let memory = ("memory", "memory.limit_in_bytes");
    let cpu = ("cpu", "cpu.cfs_quota_us");
    let pids = ("pids", "pids.max");
    if pure_v2() {
        [
            (file("memory.max", memory), "67108864", "max"),
            (file("cpu.max", cpu), "50000 100000", "max 20000"),
            (file("pids.max", pids), "9", "max"),
        ]
    } else {
        [
            (file("memory.max", memory), "67108864", "-1"),
            (file("cpu.max", cpu), "50000", "-1"),
            (file("pids.max", pids), "9", "max"),
        ]
    }
}

fn changed_by_others_comes_back(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let mut line = vec!["run", "-d", "--name", "kept", "--memory", "64m"];
    line.extend(["--cpus", "0.5", "--pids-limit", "9", "host", "sleep", "300"]);
    context.ok(&line)?;
    let cgroup = cgroup_of(context, "kept")?;
    let files = files(&cgroup);
    // The series begins with its first count.
    ensure!(restored(context, "kept")?.is_none());
    for (path, wanted, other) in &files {
        ensure!(says(path)? == *wanted, "{}", path.display());
        fs::write(path, other)?;
    }
    for (path, wanted, _) in &files {
        eventually(&format!("{} says {wanted}", path.display()), || {
            Ok(says(path)? == *wanted)
        })?;
    }
    eventually("three are counted", || {
        Ok(restored(context, "kept")? == Some(3.0))
    })?;
    let pids = &files[2].0;
    let told = format!(
        "kept: limit restored: {} said max, says 9 again",
        pids.display()
    );
    ensure!(context.agent_log().contains(&told), "not told: {told}");

    // What is wanted now is another's and not undone, over more than one look.
    context.ok(&["update", "--pids-limit", "12", "kept"])?;
    thread::sleep(Duration::from_secs(3));
    ensure!(says(pids)? == "12", "{}", says(pids)?);
    ensure!(restored(context, "kept")? == Some(3.0));
    fs::write(pids, "9")?;
    eventually("the update's comes back", || Ok(says(pids)? == "12"))?;
    // It is counted once it is written; an agent that is killed in between counts one less.
    eventually("four are counted", || {
        Ok(restored(context, "kept")? == Some(4.0))
    })?;

    // What is written while no agent is there, the next one sees; and it counts on.
    context.kill_agent()?;
    fs::write(pids, "11")?;
    thread::sleep(Duration::from_secs(1));
    ensure!(says(pids)? == "11", "somebody restores without an agent");
    context.start_agent(&["--detach-on-exit"])?;
    eventually("the next agent restores", || Ok(says(pids)? == "12"))?;
    eventually("five are counted", || {
        Ok(restored(context, "kept")? == Some(5.0))
    })?;
    // Its end loses none of it.
    context.ok(&["stop", "-t", "0", "kept"])?;
    ensure!(restored(context, "kept")? == Some(5.0));
    Ok(())
}

/// Somebody who insists is answered ever more slowly, and in the end the limit stands.
fn a_fight_slows_down(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let line = ["run", "-d", "--name", "fought", "--pids-limit", "9"];
    context.ok(&[&line[..], &["host", "sleep", "300"]].concat())?;
    let cgroup = cgroup_of(context, "fought")?;
    let path = cgroup_file(&cgroup, "pids.max", ("pids", "pids.max"));
    let over = AtomicBool::new(false);
    let writes = thread::scope(|scope| {
        let fight = scope.spawn(|| {
            let mut writes = 0;
            while !over.load(Ordering::Relaxed) {
                fs::write(&path, "max")?;
                writes += 1;
                thread::sleep(Duration::from_millis(10));
            }
            Ok::<_, std::io::Error>(writes)
        });
        thread::sleep(Duration::from_secs(6));
        over.store(true, Ordering::Relaxed);
        fight.join()
    });
    let writes = writes.map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    // After 0.2, 0.4, 0.8, 1.6, 3.2 seconds.
    let answers = context
        .agent_log()
        .matches("fought: limit restored")
        .count();
    ensure!(
        writes > 50 && (1..=5).contains(&answers),
        "{writes} writes, {answers} answers"
    );
    eventually("the limit stands", || Ok(says(&path)? == "9"))
}

/// The program has taken more than it may, while nobody looked: its limit would kill.
fn what_cannot_come_back_is_told_once(context: &Context) -> Result<()> {
    let agent = context.start_agent(&["--detach-on-exit"])?;
    let script = "while [ ! -e /dev/shm/go ]; do sleep 0.1; done
        head -c 60000000 /dev/zero >/dev/shm/filling; mv /dev/shm/filling /dev/shm/full; sleep 300";
    let mut line = vec!["run", "-d", "--name", "grown", "--memory", "32m"];
    line.extend(["--pids-limit", "9", "host", "sh", "-c", script]);
    context.ok(&line)?;
    let detail = context.inspect("grown")?;
    let inside = format!("/proc/{}/root/dev/shm", detail["pid"]);
    let cgroup = cgroup_of(context, "grown")?;
    let memory = cgroup_file(&cgroup, "memory.max", ("memory", "memory.limit_in_bytes"));
    let pids = cgroup_file(&cgroup, "pids.max", ("pids", "pids.max"));
    let unlimited = if pure_v2() { "max" } else { "-1" };
    let agent = Pid::from_raw(agent);
    kill(agent, Signal::SIGSTOP)?;
    let grow = || {
        fs::write(&memory, unlimited)?;
        fs::write(Path::new(&inside).join("go"), "")?;
        let full = Path::new(&inside).join("full");
        eventually("60 MB are in use", || Ok(full.exists()))
    };
    let grown = grow();
    kill(agent, Signal::SIGCONT)?;
    grown?;
    // It is below the use; what can come back does.
    let told = || {
        let log = context.agent_log();
        log.matches("grown: a limit was changed by somebody and cannot be restored")
            .count()
    };
    eventually("it is told", || Ok(told() == 1))?;
    for _ in 0..2 {
        fs::write(&pids, "max")?;
        eventually("the other limit comes back", || Ok(says(&pids)? == "9"))?;
    }
    ensure!(told() == 1, "told {} times", told());
    ensure!(context.agent_log().contains("below the present use"));
    ensure!(says(&memory)? != "33554432", "{}", says(&memory)?);
    if pure_v2() {
        let high = cgroup_file(&cgroup, "memory.high", ("", ""));
        ensure!(says(&high)? == "max", "the brake stays on");
    }
    ensure!(context.inspect("grown")?["state"] == "running");
    // With room again it is restored.
    fs::remove_file(Path::new(&inside).join("full"))?;
    fs::write(&memory, unlimited)?;
    eventually("there is room again", || Ok(says(&memory)? == "33554432"))?;
    ensure!(context.inspect("grown")?["state"] == "running");
    Ok(())
}
