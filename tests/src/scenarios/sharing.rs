//! Namespaces of another container's: the inodes under /proc/PID/ns, and what comes with them.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::{
    kernel::equal,
    namespaces::{link, pid},
};
use crate::{
    context::{Context, eventually},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("sharing::joins_what_was_asked", joins_what_was_asked),
    Scenario::new(
        "sharing::processes_and_memory_are_one",
        processes_and_memory_are_one,
    ),
    Scenario::new(
        "sharing::new_ones_in_a_joined_user_namespace",
        new_ones_in_a_joined_user_namespace,
    ),
    Scenario::new("sharing::time_of_its_own", time_of_its_own),
    Scenario::new("sharing::own_to_both", own_to_both),
    Scenario::new("sharing::the_first_one_ends", the_first_one_ends),
    Scenario::new("sharing::refusals_are_one_line", refusals_are_one_line),
];

const ALL_TYPES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// The types whose namespace two processes have in common.
fn common(one: &str, other: &str) -> Result<Vec<&'static str>> {
    let mut common = Vec::new();
    for namespace in ALL_TYPES {
        if link(one, namespace)? == link(other, namespace)? {
            common.push(namespace);
        }
    }
    Ok(common)
}

fn first(context: &Context) -> Result<String> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "first", "host", "sleep", "600"])?;
    pid(context, "first")
}

fn joins_what_was_asked(context: &Context) -> Result<()> {
    let one = first(context)?;
    for (flag, namespace) in [
        ("--pid", "pid"),
        ("--network", "net"),
        ("--ipc", "ipc"),
        ("--uts", "uts"),
        ("--cgroupns", "cgroup"),
        ("--userns", "user"),
    ] {
        context.ok(&[
            "run",
            "-d",
            "--name",
            namespace,
            flag,
            "container:first",
            "host",
            "sleep",
            "600",
        ])?;
        let other = pid(context, namespace)?;
        let saw = common(&one, &other)?;
        // The user namespace comes with the others; nobody has a time namespace.
        let want: Vec<_> = ALL_TYPES
            .into_iter()
            .filter(|ty| [namespace, "user", "time"].contains(ty))
            .collect();
        ensure!(saw == want, "{flag}: in common are {saw:?}");
        // exec goes where the container is.
        let inside = format!("readlink /proc/self/ns/{namespace}");
        let said = context.ok(&["exec", namespace, "sh", "-c", &inside])?;
        ensure!(said.trim() == link(&one, namespace)?, "exec: {said}");
    }
    Ok(())
}

fn processes_and_memory_are_one(context: &Context) -> Result<()> {
    let one = first(context)?;
    context.ok(&["exec", "first", "sh", "-c", "echo 5741 > /dev/shm/number"])?;
    let said = context.ok(&[
        "run",
        "--rm",
        "--pid",
        "container:first",
        "--ipc",
        "container:first",
        "--network",
        "container:first",
        "host",
        "sh",
        "-c",
        "cat /proc/1/comm /dev/shm/number; readlink /proc/1/ns/net; cat /proc/mounts",
    ])?;
    let mut lines = said.lines();
    ensure!(lines.next() == Some("sleep"), "the first process: {said}");
    ensure!(lines.next() == Some("5741"), "shared memory: {said}");
    ensure!(
        lines.next() == Some(&*link(&one, "net")?),
        "network: {said}"
    );
    let proc = lines.find(|line| line.split(' ').nth(1) == Some("/proc"));
    let options = proc.context("no /proc")?;
    for option in ["nosuid", "nodev", "noexec"] {
        ensure!(options.contains(option), "{options}");
    }
    Ok(())
}

fn new_ones_in_a_joined_user_namespace(context: &Context) -> Result<()> {
    let one = first(context)?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "second",
        "--userns",
        "container:first",
        "host",
        "sleep",
        "600",
    ])?;
    let two = pid(context, "second")?;
    let common = common(&one, &two)?;
    ensure!(common == ["time", "user"], "in common are {common:?}");
    // It is the first of its process namespace, and whoever looks from the host sees one parent.
    let status = fs::read_to_string(format!("/proc/{two}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().last().map(str::to_owned))
    };
    ensure!(field("NSpid:").as_deref() == Some("1"), "{status}");
    let parent = field("PPid:").context("no parent")?;
    let comm = fs::read_to_string(format!("/proc/{parent}/comm"))?;
    ensure!(comm.trim() == "paddock-monitor", "its parent is {comm}");
    // And the namespaces belong to the shared user namespace: its root may mount there.
    let said = context.ok(&[
        "run",
        "--rm",
        "--userns",
        "container:first",
        "--cap-add",
        "SYS_ADMIN",
        "host",
        "sh",
        "-c",
        "mount -t tmpfs none /mnt && hostname renamed && hostname",
    ])?;
    ensure!(said.trim() == "renamed", "{said}");
    Ok(())
}

fn time_of_its_own(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run", "-d", "--name", "timed", "--timens", "private", "host", "sleep", "600",
    ])?;
    let one = pid(context, "timed")?;
    ensure!(link(&one, "time")? != link("self", "time")?, "the host's");
    let said = context.ok(&["exec", "timed", "readlink", "/proc/self/ns/time"])?;
    ensure!(said.trim() == link(&one, "time")?, "exec: {said}");
    context.ok(&[
        "run",
        "-d",
        "--name",
        "joined",
        "--timens",
        "container:timed",
        "host",
        "sleep",
        "600",
    ])?;
    let two = pid(context, "joined")?;
    ensure!(link(&one, "time")? == link(&two, "time")?, "not the same");
    Ok(())
}

/// What it was put into by its operator is its own: going there again is no escape.
fn own_to_both(context: &Context) -> Result<()> {
    first(context)?;
    let again = "for n in 1 2 3 4 5 6 7; do nsenter --net=/proc/1/ns/net true || exit 1; done";
    context.ok(&[
        "run",
        "--name",
        "guest",
        "--cap-add",
        "SYS_ADMIN",
        "--pid",
        "container:first",
        "--network",
        "container:first",
        "host",
        "sh",
        "-c",
        again,
    ])?;
    let metrics = context.metrics()?;
    let of = |family: &str, labels: &[(&str, &str)]| metrics.sum(family, labels);
    let calls = of(
        "paddock_container_namespace_calls_total",
        &[
            ("container", "guest"),
            ("syscall", "setns"),
            ("namespace", "net"),
        ],
    );
    equal("calls", calls, 7)?;
    let escapes = of("paddock_container_escapes_total", &[("container", "guest")]);
    equal("escapes", escapes, 0)
}

fn the_first_one_ends(context: &Context) -> Result<()> {
    let one = first(context)?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "second",
        "--pid",
        "container:first",
        "host",
        "sleep",
        "600",
    ])?;
    let two = pid(context, "second")?;
    context.ok(&["kill", "first"])?;
    // The kernel ends a process namespace with its first process.
    let code = context.paddock(&["wait", "second"])?.stdout;
    ensure!(code.trim() == "137", "{code}");
    eventually("both are gone", || {
        Ok(![&one, &two]
            .map(|pid| Path::new("/proc").join(pid).exists())
            .contains(&true))
    })
}

fn refusals_are_one_line(context: &Context) -> Result<()> {
    first(context)?;
    context.ok(&["run", "-d", "--name", "other", "host", "sleep", "600"])?;
    for (flags, want) in [
        (
            &["--pid", "container:nobody"][..],
            "paddock: no container nobody",
        ),
        (
            &["--pid", "container:first", "--userns", "private"],
            "paddock: the pid namespace of first belongs to its user namespace: add --userns container:first",
        ),
        (
            &["--network", "container:first", "--ipc", "container:other"],
            "paddock: other and first have different user namespaces",
        ),
        (
            &["--uts", "container:first", "--hostname", "x"],
            "paddock: hostname: needs a UTS namespace of its own (--uts private)",
        ),
    ] {
        let args = [&["run", "--rm"][..], flags, &["host", "true"]].concat();
        let output = context.paddock(&args)?;
        let one_line = output.stderr.lines().count() == 1;
        ensure!(
            output.code == Some(125) && one_line && output.stderr.starts_with(want),
            "{flags:?}: {output:?}"
        );
    }
    Ok(())
}
