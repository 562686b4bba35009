//! Counts that stay true: OOM kills, nested cgroups, an absent agent, a full ring.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{CALLS, CONTAINER_RECORDS, OOM, able, calls, closes, container_closes, equal};
use crate::{
    context::{Context, cgroup_file, eventually, finish, pure_v2},
    metrics::Metrics,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("kernel::oom_kills_of_children", oom_kills_of_children),
    Scenario::new(
        "kernel::nested_cgroup_is_attributed",
        nested_cgroup_is_attributed,
    ),
    Scenario::new(
        "kernel::counts_go_on_without_an_agent",
        counts_go_on_without_an_agent,
    )
    .alone(),
    Scenario::new(
        "kernel::flood_closes_the_identity",
        flood_closes_the_identity,
    ),
    Scenario::new("kernel::untracked_is_not_counted", untracked_is_not_counted),
    Scenario::new(
        "kernel::packets_are_the_containers",
        packets_are_the_containers,
    ),
];

fn oom_kills_of_children(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let script =
        "for i in 1 2 3 4 5; do /run/workload alloc 134217728; done; echo survived; sleep 60";
    let args = [
        "run", "-d", "--name", "parent", "--memory", "64m", "-v", &volume, "host", "sh", "-c",
        script,
    ];
    context.ok(&args)?;
    eventually("five kills", || {
        Ok(context.ok(&["logs", "parent"])?.contains("survived"))
    })?;
    let cgroup = context.inspect("parent")?["cgroup"]
        .as_str()
        .context("no cgroup")?
        .to_owned();
    let file = cgroup_file(&cgroup, "memory.events", ("memory", "memory.oom_control"));
    let text = fs::read_to_string(&file)?;
    let kernel: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .with_context(|| format!("no oom_kill in {}", file.display()))?
        .trim()
        .parse()?;
    equal("the kernel's own count", kernel, 5)?;
    let metrics = context.metrics()?;
    equal(
        "oom kills",
        metrics.sum(OOM, &[("container", "parent"), ("constraint", "memcg")]),
        5,
    )?;
    equal(
        "all oom kills",
        metrics.sum(OOM, &[("container", "parent")]),
        5,
    )?;
    let said = context.inspect("parent")?;
    ensure!(
        said["state"] == "running" && said["oom_killed"] == false && said["oom_kills"] == 5,
        "{said}"
    );
    let events = context.ok(&["events", "--format", "json", "--container", "parent"])?;
    let told: Vec<_> = events
        .lines()
        .filter(|line| line.contains("\"oom_kill\""))
        .collect();
    ensure!(told.len() == 5, "{} told", told.len());
    let first: Value = serde_json::from_str(told[0])?;
    ensure!(
        first["limit_bytes"] == 67_108_864 && first["main_process"] == false,
        "{first}"
    );
    ensure!(first["victim"]["comm"] == "workload", "{first}");
    Ok(())
}

/// A cgroup below the container's own inherits its slot in the kernel.
fn nested_cgroup_is_attributed(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let mut args = able("outer", &[&volume]);
    args.insert(1, "-d");
    args.extend([
        "sh",
        "-c",
        "while [ ! -e /go ]; do sleep 0.05; done; /run/workload unshare-loop uts 19; sleep 60",
    ]);
    context.ok(&args)?;
    let said = context.inspect("outer")?;
    let (pid, cgroup) = (
        said["pid"].as_i64().context("no pid")?,
        said["cgroup"].as_str().context("no cgroup")?,
    );
    let root = if pure_v2() {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/unified"
    };
    let nested = Path::new(root).join(cgroup).join("nested");
    fs::create_dir(&nested)?;
    fs::create_dir(nested.join("deeper"))?;
    fs::write(nested.join("deeper/cgroup.procs"), pid.to_string())?;
    context.ok(&["exec", "outer", "touch", "/go"])?;
    eventually("the calls are counted", || {
        Ok(calls(&context.metrics()?, "outer", "unshare", "uts", "allowed") > 18.5)
    })?;
    equal(
        "unshare",
        calls(&context.metrics()?, "outer", "unshare", "uts", "allowed"),
        19,
    )
}

/// Programs and maps are pinned: what happens while no agent runs is counted all the same.
fn counts_go_on_without_an_agent(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let volume = context.workload_volume();
    let mut args = able("steady", &[&volume]);
    args.insert(1, "-d");
    args.extend([
        "sh",
        "-c",
        "/run/workload unshare-loop uts 29; sleep 2; /run/workload packets 9 37; \
         /run/workload unshare-loop uts 31; sleep 60",
    ]);
    context.ok(&args)?;
    eventually("the first loop", || {
        Ok(calls(&context.metrics()?, "steady", "unshare", "uts", "allowed") > 28.5)
    })?;
    context.kill_agent()?;
    thread::sleep(Duration::from_millis(3500));
    context.start_agent(&["--detach-on-exit"])?;
    eventually("both loops", || {
        Ok(calls(&context.metrics()?, "steady", "unshare", "uts", "allowed") > 59.5)
    })?;
    equal(
        "unshare",
        calls(&context.metrics()?, "steady", "unshare", "uts", "allowed"),
        60,
    )?;
    equal("packets", network(&context.metrics()?, "steady", SENT), 37)
}

const SENT: &str = "transmit_packets";

fn network(metrics: &Metrics, container: &str, what: &str) -> f64 {
    let name = format!("paddock_container_network_{what}_total");
    metrics.sum(&name, &[("container", container)])
}

/// By what the container's own loopback counts: nobody else uses it.
fn packets_are_the_containers(context: &Context) -> Result<()> {
    const COUNT: u32 = 1009;
    const BYTES: u32 = COUNT * (500 + 20 + 8);
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let script = "/run/workload packets 500 1009; cat /proc/net/dev; sleep 60";
    let args = [
        "run", "-d", "--name", "talker", "-v", &volume, "host", "sh", "-c", script,
    ];
    context.ok(&args)?;
    context.ok(&["run", "-d", "--name", "quiet", "host", "sleep", "60"])?;
    let mut seen = String::new();
    eventually("the container's own count", || {
        seen = context.ok(&["logs", "talker"])?;
        Ok(seen.contains(" lo:"))
    })?;
    let line = seen
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:"));
    let words: Vec<u32> = line
        .context("no lo")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    ensure!(
        [words[0], words[1], words[8], words[9]] == [BYTES, COUNT, BYTES, COUNT],
        "{seen}"
    );
    let metrics = context.metrics()?;
    for (what, of_talker) in [
        ("receive_bytes", BYTES),
        ("receive_packets", COUNT),
        ("transmit_bytes", BYTES),
        (SENT, COUNT),
    ] {
        equal(what, network(&metrics, "talker", what), of_talker)?;
        equal(what, network(&metrics, "quiet", what), 0)?;
    }
    let stats: Value = context.json(&["stats", "talker", "--format", "json"])?;
    let want = json!({
        "received_bytes": BYTES, "received_packets": COUNT,
        "sent_bytes": BYTES, "sent_packets": COUNT,
    });
    ensure!(stats[0]["network"] == want, "{stats}");
    Ok(())
}

/// More than the ring holds: counters stay exact, and every record is accounted for.
fn flood_closes_the_identity(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let mut args = able("flood", &[&volume]);
    args.extend(["/run/workload", "unshare-loop", "uts", "20011"]);
    context.ok(&args)?;
    let metrics = context.metrics()?;
    equal(
        "unshare",
        calls(&metrics, "flood", "unshare", "uts", "allowed"),
        20_011,
    )?;
    eventually("the identity closes", || {
        let metrics = context.metrics()?;
        Ok(closes(&metrics) && container_closes(&metrics, "flood"))
    })?;
    let seen = context.metrics()?.sum(
        CONTAINER_RECORDS,
        &[("container", "flood"), ("stage", "seen")],
    );
    ensure!(seen > 20_010.5, "{seen} records");
    Ok(())
}

fn untracked_is_not_counted(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "beside", "host", "sleep", "60"])?;
    let before = context.metrics()?.sum(CALLS, &[]);
    finish(Command::new(&context.workload).args(["unshare-loop", "uts", "37"]))?;
    finish(Command::new(&context.workload).args(["setns-loop", "/proc/self/ns/uts", "uts", "37"]))?;
    equal("calls", context.metrics()?.sum(CALLS, &[]) - before, 0)
}
