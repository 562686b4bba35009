//! Seven namespaces: the inodes under /proc/PID/ns, read from outside by the host's own procfs.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

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
    Scenario::new("namespaces::exec_joins_the_chosen", exec_joins_the_chosen),
    Scenario::new(
        "namespaces::exec_of_the_hosts_is_out_of_reach",
        exec_of_the_hosts_is_out_of_reach,
    ),
    Scenario::new(
        "namespaces::exec_refuses_the_unsafe",
        exec_refuses_the_unsafe,
    ),
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

/// With `mnt` the program is the container's, without it the host's; either has the container's
/// privileges, which is what procfs tells of its first process.
fn exec_joins_the_chosen(context: &Context) -> Result<()> {
    const SHOW: &str = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; \
        grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status";
    context.start_agent(&["--detach-on-exit"])?;
    let run = ["run", "-d", "--name", "chosen", "--env", "CANARY=1", "host"];
    context.ok(&[&run[..], &["sleep", "60"]].concat())?;
    let pid = pid(context, "chosen")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let privileges: Vec<_> = status
        .lines()
        .filter(|line| {
            ["Cap", "Seccomp", "NoNewPrivs"]
                .iter()
                .any(|start| line.starts_with(start))
        })
        .collect();
    ensure!(privileges.len() >= 7, "{status}");
    for types in ["net,uts", "pid,ipc", "mnt,pid,user,uts"] {
        let text = context.ok(&["exec", "--type", types, "chosen", "sh", "-c", SHOW])?;
        let lines: Vec<_> = text.lines().collect();
        ensure!(lines.len() == 7 + privileges.len(), "{types}: {text}");
        for (line, namespace) in lines.iter().zip(SEVEN) {
            let joined = types.split(',').any(|one| one == namespace);
            let whose = if joined { &*pid } else { "self" };
            ensure!(
                *line == link(whose, namespace)?,
                "--type {types}: {namespace} is {line}"
            );
        }
        ensure!(
            lines[7..] == privileges[..],
            "--type {types}: {text} instead of {privileges:?}"
        );
    }
    // The host's cgroup namespace shows the path that the host sees.
    let script = "cat /proc/self/cgroup; pwd; env";
    let text = context.ok(&["exec", "--type", "net", "chosen", "sh", "-c", script])?;
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let rest = text.strip_prefix(&*cgroup).context(text.clone())?;
    ensure!(rest.starts_with("/\n"), "{text}");
    ensure!(
        !rest.contains("CANARY"),
        "the container's variables: {rest}"
    );
    Ok(())
}

fn exec_of_the_hosts_is_out_of_reach(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "near", "host", "sleep", "60"])?;
    let script = "echo $$; exec sleep 60";
    let mut exec = context
        .command(&["exec", "--type", "pid", "near", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    // Kept open: an exec that nobody reads any more is killed.
    let mut output = BufReader::new(exec.stdout.take().context("no stdout")?);
    output.read_line(&mut line)?;
    let number = line.trim();
    ensure!(number != "1" && number.parse::<u32>().is_ok(), "{line}");
    // Its own first process shows that it is not the way of asking that fails.
    let look = format!(
        "ls /proc/1/root/ >/dev/null || exit 3; test -d /proc/{number} || exit 4; ls /proc/{number}/root/"
    );
    let looked = context.paddock(&["exec", "near", "sh", "-c", &look])?;
    ensure!(
        matches!(looked.code, Some(1 | 2)) && looked.stderr.contains("Permission denied"),
        "the container reached the host's root: {looked:?}"
    );
    // Out of the container's pid namespace or in it, it ends with the container.
    context.ok(&["rm", "-f", "near"])?;
    let code = exec.wait()?.code();
    ensure!(code == Some(137), "{code:?}");
    Ok(())
}

fn exec_refuses_the_unsafe(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "own", "host", "sleep", "60"])?;
    let run = ["run", "-d", "--name", "hosts", "--userns", "host", "host"];
    context.ok(&[&run[..], &["sleep", "60"]].concat())?;
    for (args, code, why) in [
        (
            &["--type", "mnt", "own", "true"][..],
            125,
            "mnt without pid",
        ),
        (
            &["--type", "mnt,pid", "own", "true"],
            125,
            "mnt without user",
        ),
        (
            &["--type", "user,net", "own", "true"],
            125,
            "user without mnt",
        ),
        (&["--type", "net", "hosts", "true"], 125, "user namespace"),
        (&["--type", "net", "-u", "7", "own", "true"], 125, "--user"),
        (&["--type", "nets", "own", "true"], 125, "expected one of"),
        (&["--type", "net", "own", "no-such-one"], 127, "on the host"),
        (&["--type", "mnt,pid", "hosts", "true"], 0, ""),
    ] {
        let output = context.paddock(&[&["exec"][..], args].concat())?;
        ensure!(
            output.code == Some(code)
                && output.stderr.contains(why)
                && output.stderr.lines().count() <= 1,
            "{args:?}: {output:?}"
        );
    }
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
