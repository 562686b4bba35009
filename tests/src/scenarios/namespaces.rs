//! Seven namespaces: the inodes under /proc/PID/ns, read from outside by the host's own procfs.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{context::Context, runner::Scenario};

pub const ALL: &[Scenario] = &[
    Scenario::new("namespaces::seven_of_its_own", seven_of_its_own),
    Scenario::new("namespaces::host_when_asked", host_when_asked),
    Scenario::new(
        "namespaces::first_process_and_few_others",
        first_process_and_few_others,
    ),
    Scenario::new("namespaces::exec_joins_all", exec_joins_all),
    Scenario::new("namespaces::cgroup_root_is_its_own", cgroup_root_is_its_own),
];

const SEVEN: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

pub(super) fn link(pid: &str, namespace: &str) -> Result<String> {
    let path = format!("/proc/{pid}/ns/{namespace}");
    Ok(fs::read_link(&path).context(path)?.display().to_string())
}

pub(super) fn pid(context: &Context, name: &str) -> Result<String> {
    Ok(context.inspect(name)?["pid"]
        .as_i64()
        .context("no pid")?
        .to_string())
}

fn seven_of_its_own(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "one", "host", "sleep", "60"])?;
    context.ok(&["run", "-d", "--name", "two", "host", "sleep", "60"])?;
    let (one, two) = (pid(context, "one")?, pid(context, "two")?);
    for namespace in SEVEN {
        let (host, first, second) = (
            link("self", namespace)?,
            link(&one, namespace)?,
            link(&two, namespace)?,
        );
        ensure!(
            host != first && host != second && first != second,
            "{namespace}: {host} {first} {second}"
        );
    }
    // What inspect says is what procfs says.
    let said = context.inspect("one")?;
    for namespace in SEVEN {
        let inode = said["namespaces"][namespace].as_u64().context("no inode")?;
        let shown = link(&one, namespace)?;
        ensure!(
            shown == format!("{namespace}:[{inode}]"),
            "{namespace}: {inode}, {shown}"
        );
    }
    Ok(())
}

fn host_when_asked(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    for (flag, namespace) in [
        ("--userns", "user"),
        ("--pid", "pid"),
        ("--network", "net"),
        ("--ipc", "ipc"),
        ("--uts", "uts"),
        ("--cgroupns", "cgroup"),
    ] {
        // A namespace of the host's can only be used from the host's user namespace.
        let mut args = vec!["run", "-d", "--name", namespace, "--userns", "host"];
        if flag != "--userns" {
            args.extend([flag, "host"]);
        }
        args.extend(["host", "sleep", "60"]);
        context.ok(&args)?;
        let pid = pid(context, namespace)?;
        for other in SEVEN {
            let shared = link(&pid, other)? == link("self", other)?;
            ensure!(
                shared == (other == namespace || other == "user"),
                "{flag} host: {other} shared: {shared}"
            );
        }
    }
    Ok(())
}

fn first_process_and_few_others(context: &Context) -> Result<()> {
    let script = "echo $$; ls -d /proc/[0-9]* | wc -l; hostname; cat /proc/sys/kernel/hostname";
    let text = context.ok(&[
        "run",
        "--rm",
        "--hostname",
        "boxed",
        "host",
        "sh",
        "-c",
        script,
    ])?;
    let lines: Vec<_> = text.lines().collect();
    ensure!(lines.first() == Some(&"1"), "not the first process: {text}");
    let count: u32 = lines.get(1).context("no count")?.trim().parse()?;
    ensure!(count < 6, "sees {count} processes");
    ensure!(
        lines.get(2) == Some(&"boxed") && lines.get(3) == Some(&"boxed"),
        "{text}"
    );
    let host = nix::unistd::gethostname()?;
    ensure!(host.to_string_lossy() != "boxed", "the host was renamed");
    Ok(())
}

fn exec_joins_all(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "target", "host", "sleep", "60"])?;
    let pid = pid(context, "target")?;
    let text = context.ok(&[
        "exec",
        "target",
        "sh",
        "-c",
        "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done",
    ])?;
    for (line, namespace) in text.lines().zip(SEVEN) {
        ensure!(
            line == link(&pid, namespace)?,
            "{namespace}: exec is in {line}"
        );
    }
    ensure!(text.lines().count() == 7, "{text}");
    Ok(())
}

fn cgroup_root_is_its_own(context: &Context) -> Result<()> {
    let text = context.ok(&["run", "--rm", "host", "cat", "/proc/self/cgroup"])?;
    let all_root = text.lines().all(|line| line.ends_with(":/"));
    ensure!(
        all_root && !text.is_empty(),
        "the namespace's root is not the container's cgroup: {text}"
    );
    Ok(())
}
