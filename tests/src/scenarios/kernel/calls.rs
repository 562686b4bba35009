//! Namespace calls: each counted once, its target judged: own, peer, host or new.
//!
//! strace, in the container, counts the same calls again; `cargo xtask test` sees to it that
//! this machine and the guests have it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use super::{CALLS, ESCAPES, able, calls, equal, host_way, judged};
use crate::{
    context::{Context, Output, eventually, finish, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("kernel::unshare_counted_exactly", unshare_counted_exactly),
    Scenario::new("kernel::setns_own_is_benign", setns_own_is_benign),
    Scenario::new("kernel::setns_host_is_an_escape", setns_host_is_an_escape),
    Scenario::new(
        "kernel::setns_host_refused_is_an_attempt",
        setns_host_refused_is_an_attempt,
    ),
    Scenario::new("kernel::setns_peer_is_an_escape", setns_peer_is_an_escape),
    Scenario::new("kernel::failed_unshare_is_told", failed_unshare_is_told),
    Scenario::new("kernel::set_up_is_exempt", set_up_is_exempt),
    Scenario::new("kernel::actors_are_known", actors_are_known),
    Scenario::new("kernel::clone_counted", clone_counted).alone(),
];

const STRACE: [&str; 6] = [
    "strace",
    "-f",
    "-e",
    "trace=setns,unshare",
    "-e",
    "signal=none",
];

/// strace tells on standard error, a line a call.
fn traced(output: &Output, call: &str, want: usize) -> Result<()> {
    let saw = output
        .stderr
        .lines()
        .filter(|line| line.contains(call))
        .count();
    ensure!(saw == want, "strace saw {saw} of {call}: {}", output.stderr);
    Ok(())
}

fn unshare_counted_exactly(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let mut args = able("prime", &[&volume]);
    args.extend(STRACE);
    args.extend(["/run/workload", "unshare-loop", "uts,ipc", "23"]);
    let output = context.paddock(&args)?;
    ensure!(output.code == Some(0), "{output:?}");
    traced(&output, "unshare(CLONE_NEW", 23)?;
    traced(&output, "setns(", 0)?;
    let metrics = context.metrics()?;
    equal(
        "unshare uts",
        calls(&metrics, "prime", "unshare", "uts", "allowed"),
        23,
    )?;
    equal(
        "unshare ipc",
        calls(&metrics, "prime", "unshare", "ipc", "allowed"),
        23,
    )?;
    equal(
        "all of unshare",
        metrics.sum(CALLS, &[("container", "prime"), ("syscall", "unshare")]),
        46,
    )?;
    equal(
        "setns",
        metrics.sum(CALLS, &[("container", "prime"), ("syscall", "setns")]),
        0,
    )?;
    judged(&metrics, "prime", "unshare", "benign", 23)?;
    equal(
        "escapes",
        metrics.sum(ESCAPES, &[("container", "prime")]),
        0,
    )
}

fn setns_own_is_benign(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let mut args = able("homely", &[&volume]);
    args.extend(STRACE);
    args.extend([
        "/run/workload",
        "setns-loop",
        "/proc/self/ns/uts",
        "uts",
        "13",
    ]);
    let output = context.paddock(&args)?;
    ensure!(output.code == Some(0), "{output:?}");
    traced(&output, "setns(", 13)?;
    let metrics = context.metrics()?;
    equal(
        "setns uts",
        calls(&metrics, "homely", "setns", "uts", "allowed"),
        13,
    )?;
    judged(&metrics, "homely", "setns", "benign", 13)?;
    equal(
        "escapes",
        metrics.sum(ESCAPES, &[("container", "homely")]),
        0,
    )
}

fn setns_host_is_an_escape(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let way = host_way("uts");
    let mut args = able("tunnel", &[&volume, &way]);
    // nstype 0: the kernel takes whatever the descriptor is.
    args.extend(["/run/workload", "setns-loop", "/run/ns", "0", "7"]);
    context.ok(&args)?;
    let metrics = context.metrics()?;
    equal(
        "setns uts",
        calls(&metrics, "tunnel", "setns", "uts", "allowed"),
        7,
    )?;
    judged(&metrics, "tunnel", "setns", "escape", 7)?;
    let host = [
        ("container", "tunnel"),
        ("kind", "host_namespace"),
        ("outcome", "allowed"),
    ];
    equal("escapes", metrics.sum(ESCAPES, &host), 7)?;
    equal(
        "all escapes",
        metrics.sum(ESCAPES, &[("container", "tunnel")]),
        7,
    )?;
    let events = context.ok(&["events", "--format", "json", "--container", "tunnel"])?;
    let told: Vec<serde_json::Value> = events
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|event: &serde_json::Value| {
            event["event"] == "namespace_call" && event["verdict"] == "escape"
        })
        .collect();
    ensure!(told.len() == 7, "{} escapes told: {events}", told.len());
    let target = &told[0]["targets"][0];
    let inode = target["inode"].as_u64().context("no inode")?;
    let host = fs::read_link("/proc/self/ns/uts")?;
    ensure!(
        target["target"] == "host" && host.display().to_string() == format!("uts:[{inode}]"),
        "{}",
        told[0]
    );
    ensure!(told[0]["actor"]["comm"] == "workload", "{}", told[0]);
    Ok(())
}

/// The user namespace refuses it (the filter would before); the try is counted and judged by what it aimed at.
fn setns_host_refused_is_an_attempt(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (volume, way) = (context.workload_volume(), host_way("net"));
    let args = [
        "run",
        "--name",
        "caged",
        "--security-opt",
        "seccomp=unconfined",
        "-v",
        &volume,
        "-v",
        &way,
        "host",
        "/run/workload",
        "setns-loop",
        "/run/ns",
        "net",
        "11",
    ];
    let output = context.paddock(&args)?;
    ensure!(output.stdout.contains("11 calls, 11 refused"), "{output:?}");
    let metrics = context.metrics()?;
    equal(
        "setns net",
        calls(&metrics, "caged", "setns", "net", "failed"),
        11,
    )?;
    equal(
        "allowed",
        calls(&metrics, "caged", "setns", "net", "allowed"),
        0,
    )?;
    let tried = [
        ("container", "caged"),
        ("kind", "host_namespace"),
        ("outcome", "failed"),
    ];
    equal("attempts", metrics.sum(ESCAPES, &tried), 11)?;
    judged(&metrics, "caged", "setns", "escape_attempt", 11)?;
    equal(
        "escapes",
        metrics.sum(ESCAPES, &[("container", "caged"), ("outcome", "allowed")]),
        0,
    )
}

fn setns_peer_is_an_escape(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run", "-d", "--name", "victim", "--userns", "host", "host", "sleep", "60",
    ])?;
    let pid = context.inspect("victim")?["pid"]
        .as_i64()
        .context("no pid")?;
    let (volume, way) = (
        context.workload_volume(),
        format!("/proc/{pid}/ns/ipc:/run/ns"),
    );
    let mut args = able("burglar", &[&volume, &way]);
    args.extend(["/run/workload", "setns-loop", "/run/ns", "ipc", "5"]);
    context.ok(&args)?;
    let metrics = context.metrics()?;
    let peer = [
        ("container", "burglar"),
        ("kind", "peer_namespace"),
        ("outcome", "allowed"),
    ];
    equal("escapes", metrics.sum(ESCAPES, &peer), 5)?;
    judged(&metrics, "burglar", "setns", "escape", 5)?;
    equal(
        "the victim's",
        metrics.sum(ESCAPES, &[("container", "victim")]),
        0,
    )
}

/// Without CAP_SYS_ADMIN the kernel says EPERM, where the filter lets it; the call is counted as failed.
fn failed_unshare_is_told(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let args = [
        "run",
        "--name",
        "meek",
        "--security-opt",
        "seccomp=unconfined",
        "-v",
        &volume,
        "host",
        "/run/workload",
        "unshare-loop",
        "uts",
        "17",
    ];
    let output = context.paddock(&args)?;
    ensure!(output.stdout.contains("17 calls, 17 refused"), "{output:?}");
    let metrics = context.metrics()?;
    equal(
        "failed",
        calls(&metrics, "meek", "unshare", "uts", "failed"),
        17,
    )?;
    equal(
        "allowed",
        calls(&metrics, "meek", "unshare", "uts", "allowed"),
        0,
    )?;
    let events = context.ok(&["events", "--format", "json", "--container", "meek"])?;
    let told = events
        .lines()
        .filter(|line| line.contains("\"EPERM\"") && line.contains("unshare"))
        .count();
    ensure!(told == 17, "{told} told with EPERM");
    Ok(())
}

/// Launching and exec make and join namespaces; none of it is the container's doing.
fn set_up_is_exempt(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "calm", "host", "sleep", "60"])?;
    for _ in 0..3 {
        context.ok(&["exec", "calm", "true"])?;
    }
    let metrics = context.metrics()?;
    equal("calls", metrics.sum(CALLS, &[("container", "calm")]), 0)?;
    equal("escapes", metrics.sum(ESCAPES, &[("container", "calm")]), 0)?;
    let events = context.ok(&["events", "--format", "json", "--container", "calm"])?;
    let execs = events
        .lines()
        .filter(|line| line.contains("\"event\":\"exec\""))
        .count();
    ensure!(execs == 4, "{execs} execs told: {events}");
    Ok(())
}

/// Who did it: a user on the host and inside, and a program by its file, whatever it is called by.
fn actors_are_known(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let script = "readlink -f /bin/sh; readlink -f /bin/true; id -u; echo $$
        exec unshare -U -r /bin/sh -c 'id -u; exec /bin/true'";
    let args = ["run", "--name", "who", "--user", "1234:1234"];
    let able = ["--security-opt", "seccomp=unconfined", "host"];
    let said = context.ok(&[&args[..], &able, &["sh", "-c", script]].concat())?;
    let said: Vec<_> = said.split_whitespace().collect();
    let &[shell, last, "1234", "1", "0"] = said.as_slice() else {
        bail!("{said:?}");
    };
    let file = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let events = context.ok(&["events", "--format", "json", "--container", "who"])?;
    let events: Vec<serde_json::Value> = events
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    for (kind, comm, inside, exe) in [
        ("exec", "sh", Some(1234), Some(file(shell))),
        // It is in the new user namespace by then, which maps nobody yet.
        ("namespace_call", "unshare", None, None),
        ("exec", "true", Some(0), Some(file(last))),
    ] {
        let found = events
            .iter()
            .find(|event| event["event"] == kind && event["actor"]["comm"] == comm);
        let actor = &found.with_context(|| format!("no {kind} by {comm}: {events:?}"))?["actor"];
        ensure!(
            actor["uid"] == 1234
                && actor["inner_pid"] == 1
                && actor["inner_uid"].as_u64() == inside
                && exe.is_none_or(|exe| actor["exe"] == exe),
            "{kind}: {actor}"
        );
    }
    Ok(())
}

/// Another launcher inside a watched cgroup: its clone3 is seen, type by type.
fn clone_counted(context: &Context) -> Result<()> {
    let name = format!("paddock-clone-{}", std::process::id());
    context.start_agent(&["--detach-on-exit", "--track", &format!("/{name}")])?;
    let dir = if pure_v2() {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/unified"
    };
    let dir = Path::new(dir).join(&name);
    fs::create_dir(&dir)?;
    let result = (|| {
        eventually("the cgroup is found", || {
            Ok(context.ok(&["ps", "-a", "--no-trunc"])?.contains(&name))
        })?;
        let inner = context.state.with_extension("inner");
        fs::create_dir(&inner)?;
        let script = format!(
            "echo $$ >{}/cgroup.procs; exec {} --state-dir {} run --rm host true",
            dir.display(),
            context.bin.display(),
            inner.display()
        );
        let output = finish(
            Command::new("sh")
                .args(["-c", &script])
                .stdin(std::process::Stdio::null()),
        );
        // The inner agent ends by itself when nobody needs it.
        eventually("the inner agent ends", || {
            Ok(!inner.join("paddock.sock").exists())
        })?;
        let _ = fs::remove_dir_all(&inner);
        let output = output?;
        ensure!(output.code == Some(0), "{output:?}");
        let metrics = context.metrics()?;
        for namespace in ["ipc", "mnt", "net", "pid", "user", "uts"] {
            let labels = [
                ("syscall", "clone"),
                ("namespace", namespace),
                ("outcome", "allowed"),
            ];
            equal(namespace, metrics.sum(CALLS, &labels), 1)?;
        }
        Ok(())
    })();
    eventually("the cgroup empties", || Ok(fs::remove_dir(&dir).is_ok()))?;
    result
}
