//! Limits: the kernel's own files say what was asked, outside and inside.

pub mod flags;
pub mod pause;
pub mod restore;
mod rows;
pub mod ulimit;
pub mod update;

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{
    context::{Context, cgroup_file, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("limits::files_say_what_was_asked", files_say_what_was_asked),
    Scenario::new("limits::seen_from_inside", seen_from_inside),
    Scenario::new("limits::pids_limit_stops_forks", pids_limit_stops_forks),
    Scenario::new("limits::oom_score_is_in_proc", oom_score_is_in_proc),
    Scenario::new("limits::bad_values_are_one_line", bad_values_are_one_line),
];

fn read(cgroup: &str, v2: &str, v1: (&str, &str)) -> Result<String> {
    let path = cgroup_file(cgroup, v2, v1);
    Ok(fs::read_to_string(&path)
        .with_context(|| path.display().to_string())?
        .trim()
        .to_owned())
}

fn files_say_what_was_asked(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let flags = [
        "run",
        "-d",
        "--name",
        "limited",
        "--memory",
        "256m",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "1024",
        "--cpuset-cpus",
        "0",
        "--pids-limit",
        "23",
        "host",
        "sleep",
        "60",
    ];
    context.ok(&flags)?;
    let cgroup = context.inspect("limited")?["cgroup"]
        .as_str()
        .context("no cgroup")?
        .to_owned();
    let saw = read(&cgroup, "memory.max", ("memory", "memory.limit_in_bytes"))?;
    ensure!(saw == "268435456", "memory: {saw}");
    if pure_v2() {
        let saw = read(&cgroup, "cpu.max", ("", ""))?;
        ensure!(saw == "50000 100000", "cpu.max: {saw}");
        let saw = read(&cgroup, "cpu.weight", ("", ""))?;
        ensure!(saw == "100", "cpu.weight of 1024 shares: {saw}");
    } else {
        let quota = read(&cgroup, "", ("cpu", "cpu.cfs_quota_us"))?;
        let period = read(&cgroup, "", ("cpu", "cpu.cfs_period_us"))?;
        ensure!(
            (quota.as_str(), period.as_str()) == ("50000", "100000"),
            "{quota} {period}"
        );
        let saw = read(&cgroup, "", ("cpu", "cpu.shares"))?;
        ensure!(saw == "1024", "cpu.shares: {saw}");
    }
    let saw = read(&cgroup, "cpuset.cpus", ("cpuset", "cpuset.cpus"))?;
    ensure!(saw == "0", "cpuset.cpus: {saw}");
    let saw = read(&cgroup, "pids.max", ("pids", "pids.max"))?;
    ensure!(saw == "23", "pids.max: {saw}");
    context.ok(&["rm", "-f", "limited"])?;
    let gone = cgroup_file(&cgroup, "", ("memory", ""));
    ensure!(!gone.exists(), "{} is still there", gone.display());
    Ok(())
}

/// The line of the issue: through the container's own view of its cgroup.
fn seen_from_inside(context: &Context) -> Result<()> {
    let (files, want): (&str, &[&str]) = if pure_v2() {
        (
            "/sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max",
            &["268435456", "50000 100000"],
        )
    } else {
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us \
             /sys/fs/cgroup/cpu/cpu.cfs_period_us",
            &["268435456", "50000", "100000"],
        )
    };
    let script = format!("cat {files}");
    let text = context.ok(&[
        "run", "--rm", "--memory", "256m", "--cpus", "0.5", "host", "sh", "-c", &script,
    ])?;
    let lines: Vec<_> = text.lines().collect();
    ensure!(lines == want, "inside: {lines:?}");
    Ok(())
}

fn pids_limit_stops_forks(context: &Context) -> Result<()> {
    // The shell is one; four sleepers fill it up; the fifth cannot be.
    let script = "for i in 1 2 3 4 5; do sleep 30 & done; wait";
    let output = context.paddock(&[
        "run",
        "--rm",
        "--pids-limit",
        "5",
        "host",
        "timeout",
        "-s",
        "KILL",
        "5",
        "sh",
        "-c",
        script,
    ])?;
    let refused = output.stderr.contains("fork")
        || output.stderr.contains("Resource temporarily unavailable");
    ensure!(refused && output.code != Some(0), "{output:?}");
    Ok(())
}

fn oom_score_is_in_proc(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "first",
        "--oom-score-adj=500",
        "host",
        "sleep",
        "300",
    ])?;
    let pid = context.inspect("first")?["pid"].clone();
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
    ensure!(score.trim() == "500", "{score}");
    let inside = context.ok(&["exec", "first", "cat", "/proc/self/oom_score_adj"])?;
    ensure!(inside.trim() == "500", "an exec's: {inside}");
    Ok(())
}

fn bad_values_are_one_line(context: &Context) -> Result<()> {
    for (flag, value) in [
        ("--memory", "12x"),
        ("--memory", "-2"),
        ("--memory", ""),
        ("--memory", "99999999999999999999g"),
        ("--memory-swap", "lots"),
        ("--cpus", "0"),
        ("--cpus", "-1"),
        ("--cpus", "half"),
        ("--cpu-shares", "1"),
        ("--cpuset-cpus", "3-1"),
        ("--cpuset-cpus", "a"),
        ("--cpuset-cpus", "4096"),
        ("--pids-limit", "many"),
        ("--memory-reservation", "1"),
        ("--memory-swappiness", "201"),
        ("--cpu-quota", "999"),
        ("--cpu-period", "1"),
        ("--cpu-burst", "-1"),
        ("--cpuset-mems", "z"),
        ("--oom-score-adj", "1001"),
        ("--blkio-weight", "9"),
        ("--blkio-weight-device", "/dev/null:500"),
        ("--device-read-bps", "/dev/null:1m"),
        ("--device-write-iops", "/nowhere:1"),
        ("--hugetlb-limit", "2MB"),
        ("--rdma-limit", "mlx5_0=2"),
        ("--misc-limit", "sev=-2"),
        ("--cgroup-conf", "memory.high"),
        ("--cgroup-conf", "../memory.high=1"),
        ("--cgroup-conf", "cgroup.procs=1"),
    ] {
        let output =
            context.paddock(&["run", "--rm", &format!("{flag}={value}"), "host", "true"])?;
        ensure!(output.code == Some(125), "{flag}={value}: {output:?}");
        let said = output.stderr.trim();
        ensure!(
            said.lines().count() == 1 && said.contains(&flag[4..6]),
            "{flag}={value}: {said}"
        );
    }
    Ok(())
}
