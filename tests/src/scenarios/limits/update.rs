//! `paddock update`: a running container's limits, all of a request or none, kept over the
//! agent's end. The cgroup's files are the witness.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use paddock_cgroups::{Cgroup, Hierarchies};

use super::{flags::cgroup_of, read};
use crate::{
    context::{Context, cgroup_file, cgroup_mounts, eventually, finish, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "limits::update_outlives_the_agent",
        update_outlives_the_agent,
    )
    .alone(),
    Scenario::new(
        "limits::update_below_use_tells_the_use",
        update_below_use_tells_the_use,
    ),
    Scenario::new(
        "limits::update_is_whole_or_nothing",
        update_is_whole_or_nothing,
    ),
    Scenario::new("limits::pure_v1_has_them_too", pure_v1_has_them_too).alone(),
    Scenario::new(
        "limits::update_is_refused_in_one_line",
        update_is_refused_in_one_line,
    )
    .alone(),
];

const MEMORY: (&str, (&str, &str)) = ("memory.max", ("memory", "memory.limit_in_bytes"));
const PIDS: (&str, (&str, &str)) = ("pids.max", ("pids", "pids.max"));

fn file(cgroup: &str, (v2, v1): (&str, (&str, &str))) -> Result<String> {
    read(cgroup, v2, v1)
}

fn update_outlives_the_agent(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "kept",
        "--memory",
        "64m",
        "--pids-limit",
        "9",
        "host",
        "sleep",
        "300",
    ])?;
    let cgroup = cgroup_of(context, "kept")?;
    ensure!(context.ok(&["update", "--memory", "96m", "kept"])?.trim() == "kept");
    ensure!(file(&cgroup, MEMORY)? == "100663296");
    ensure!(file(&cgroup, PIDS)? == "9", "untouched");
    context.kill_agent()?;
    context.start_agent(&["--detach-on-exit"])?;
    let limits = context.inspect("kept")?["limits"].clone();
    ensure!(
        limits["memory"]["limit"] == 100_663_296 && limits["pids"] == 9,
        "{limits}"
    );
    // What the second agent adds stands beside what the first knew.
    context.ok(&["update", "--pids-limit=-1", "kept"])?;
    ensure!(file(&cgroup, MEMORY)? == "100663296");
    ensure!(file(&cgroup, PIDS)? == "max");
    let limits = context.inspect("kept")?["request"]["limits"].clone();
    ensure!(limits["pids"] == -1, "{limits}");
    Ok(())
}

fn update_below_use_tells_the_use(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    // A file in memory, which nothing can reclaim where there is no swap.
    let fill = "head -c 40000000 /dev/zero >/dev/shm/x; echo filled; sleep 300";
    context.ok(&[
        "run", "-d", "--name", "full", "--memory", "256m", "host", "sh", "-c", fill,
    ])?;
    eventually("40 MB in use", || {
        Ok(context.ok(&["logs", "full"])?.contains("filled"))
    })?;
    let cgroup = cgroup_of(context, "full")?;
    let output = context.paddock(&["update", "--memory", "16m", "full"])?;
    let said = output.stderr.trim_end();
    let name = cgroup_file(&cgroup, MEMORY.0, MEMORY.1);
    let begin = format!(
        "paddock: full: its limits are as they were: {}: a limit of 16777216 bytes is below the present use of ",
        name.display()
    );
    let rest = said
        .strip_prefix(&begin)
        .with_context(|| format!("{said}, not {begin}"))?;
    let used: u64 = rest.split(' ').next().unwrap_or_default().parse()?;
    ensure!(
        output.code == Some(1) && (40_000_000..256 << 20).contains(&used),
        "{output:?}"
    );
    // v1 has always kept the peak, v2 since 5.19.
    let peak = cgroup_file(
        &cgroup,
        "memory.peak",
        ("memory", "memory.max_usage_in_bytes"),
    );
    ensure!(rest.contains("(peak ") == peak.exists(), "{rest}");
    ensure!(file(&cgroup, MEMORY)? == "268435456");
    if pure_v2() {
        ensure!(file(&cgroup, ("memory.high", ("", "")))? == "max");
        let events = file(&cgroup, ("memory.events", ("", "")))?;
        ensure!(events.lines().any(|line| line == "oom_kill 0"), "{events}");
    }
    ensure!(context.inspect("full")?["state"] == "running");
    // What fits is taken.
    context.ok(&["update", "--memory", "200m", "full"])?;
    ensure!(file(&cgroup, MEMORY)? == "209715200");
    Ok(())
}

/// The second of the two cannot be written by any kernel that the tests boot.
fn update_is_whole_or_nothing(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "whole",
        "--memory",
        "64m",
        "--memory-swap=-1",
        "--cpu-quota=20000",
        "host",
        "sleep",
        "300",
    ])?;
    let cgroup = cgroup_of(context, "whole")?;
    let quota = ("cpu.max", ("cpu", "cpu.cfs_quota_us"));
    let before = (file(&cgroup, MEMORY)?, file(&cgroup, quota)?);
    // A burst above the quota is EINVAL, after memory and quota were written.
    let output = context.paddock(&[
        "update",
        "--memory=96m",
        "--cpu-quota=30000",
        "--cpu-burst=900000000",
        "whole",
    ])?;
    let burst = cgroup_file(&cgroup, "cpu.max.burst", ("cpu", "cpu.cfs_burst_us"));
    let why = if burst.exists() {
        format!(
            "write \"900000000\" to {}: Invalid argument",
            burst.display()
        )
    } else {
        // Before 5.14.
        "cpu burst: the cpu controller (cgroup v2) has no cpu.max.burst on this kernel".to_owned()
    };
    let want = format!("paddock: whole: its limits are as they were: {why}");
    ensure!(
        output.code == Some(1) && output.stderr.trim_end() == want,
        "{output:?}, not {want}"
    );
    let after = (file(&cgroup, MEMORY)?, file(&cgroup, quota)?);
    ensure!(before == after, "{before:?}, then {after:?}");
    let limits = context.inspect("whole")?["limits"].clone();
    ensure!(
        limits["memory"]["limit"] == 64 << 20 && limits["cpu"]["quota"] == 20_000,
        "{limits}"
    );
    Ok(())
}

/// The agent in a mount namespace without v2: only v1's hierarchies are there for it.
fn pure_v1_has_them_too(context: &Context) -> Result<()> {
    let mounts = cgroup_mounts()?;
    if pure_v2() {
        ensure!(mounts.iter().all(|(v1, _)| v1.is_none()), "{mounts:?}");
        return Ok(());
    }
    let unified = mounts.iter().find(|(v1, _)| v1.is_none());
    let (_, unified) = unified.context("a hybrid host has v2")?;
    let script = format!(
        "umount {} && exec {} --state-dir {} run -d --name old --memory 64m --pids-limit 9 host sleep 300",
        unified.display(),
        context.bin.display(),
        context.state.display()
    );
    let output = finish(Command::new("unshare").args(["-m", "sh", "-c", &script]))?;
    ensure!(output.code == Some(0), "{output:?}");
    let check = context.ok(&["check"])?;
    let is_v1 = |line: &str| line.split_whitespace().eq(["cgroups", "v1"]);
    ensure!(check.lines().any(is_v1), "{check}");
    let cgroup = cgroup_of(context, "old")?;
    ensure!(!unified.join(&cgroup).exists(), "it is in v2");
    ensure!(file(&cgroup, MEMORY)? == "67108864");
    context.ok(&["update", "--memory=96m", "--cpu-burst=1000", "old"])?;
    ensure!(file(&cgroup, MEMORY)? == "100663296");
    ensure!(file(&cgroup, ("", ("cpu", "cpu.cfs_burst_us")))? == "1000");
    context.ok(&["pause", "old"])?;
    ensure!(file(&cgroup, ("", ("freezer", "freezer.state")))? == "FROZEN");
    let output = context.paddock(&["update", "--hugetlb-limit=2MB=4m", "old"])?;
    let want = "paddock: old: its limits are as they were: no mounted cgroup hierarchy has the hugetlb controller";
    ensure!(output.stderr.trim_end() == want, "{output:?}, not {want}");
    context.ok(&["kill", "old"])?;
    ensure!(context.ok(&["wait", "old"])?.trim() == "137");
    Ok(())
}

fn update_is_refused_in_one_line(context: &Context) -> Result<()> {
    let name = format!("paddock-update-{}", std::process::id());
    context.start_agent(&["--detach-on-exit", "--track", &format!("/{name}")])?;
    context.ok(&["run", "-d", "--name", "over", "host", "true"])?;
    context.ok(&["wait", "over"])?;
    let found = Found(Cgroup::create(&Hierarchies::discover()?, &name)?);
    eventually("the cgroup is found", || {
        Ok(context.ok(&["ps", "-a", "--no-trunc"])?.contains(&name))
    })?;
    for (words, want) in [
        (
            vec!["update", "--memory=64m", "over"],
            "paddock: over has ended".to_owned(),
        ),
        (vec!["pause", "over"], "paddock: over has ended".to_owned()),
        (
            vec!["update", "--memory=64m", "nobody"],
            "paddock: no container nobody".to_owned(),
        ),
        (
            vec!["update", "over"],
            "paddock: no limit given: 'paddock update --help' lists them".to_owned(),
        ),
        (
            vec!["update", "--memory=64m", &name],
            format!("paddock: {name} was not started by paddock: ask what started it"),
        ),
        (
            vec!["pause", &name],
            format!("paddock: {name} was not started by paddock: ask what started it"),
        ),
    ] {
        let output = context.paddock(&words)?;
        let said = output.stderr.trim_end();
        ensure!(
            output.code == Some(1) && said.starts_with(&want) && said.lines().count() == 1,
            "{words:?}: {output:?}"
        );
    }
    drop(found);
    let gone = |root: &str| !Path::new(root).join(&name).exists();
    ensure!(gone("/sys/fs/cgroup") && gone("/sys/fs/cgroup/memory"));
    ensure!(fs::metadata("/sys/fs/cgroup").is_ok());
    Ok(())
}

/// Removed when dropped, so that a failed check leaves nothing.
struct Found(Cgroup);

impl Drop for Found {
    fn drop(&mut self) {
        drop(self.0.remove());
    }
}
