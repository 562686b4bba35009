//! Bad input and faults: one clear line, the right exit code, nothing left; and what each
//! kill -9 does.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    context::{Context, cgroup_mounts, eventually, finish},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("faults::not_root", not_root).alone(),
    Scenario::new("faults::second_agent_refused", second_agent_refused).alone(),
    Scenario::new("faults::stale_socket_replaced", stale_socket_replaced).alone(),
    Scenario::new("faults::port_in_use", port_in_use).alone(),
    Scenario::new("faults::no_cgroup_mount", no_cgroup_mount).alone(),
    Scenario::new("faults::no_btf", no_btf).alone(),
    Scenario::new(
        "faults::limit_below_what_it_needs",
        limit_below_what_it_needs,
    )
    .alone(),
    Scenario::new("faults::no_space", no_space).alone(),
    Scenario::new("faults::agent_killed", agent_killed).alone(),
    Scenario::new(
        "faults::killed_between_containers",
        killed_between_containers,
    )
    .alone(),
    Scenario::new("faults::exec_that_nobody_starts", exec_that_nobody_starts).alone(),
    Scenario::new("faults::zygote_killed", zygote_killed).alone(),
    Scenario::new("faults::monitor_killed", monitor_killed).alone(),
    Scenario::new(
        "faults::monitor_killed_without_agent",
        monitor_killed_without_agent,
    )
    .alone(),
    Scenario::new("faults::hostile_names", hostile_names).alone(),
];

fn one_line(text: &str, word: &str) -> Result<()> {
    let said = text.trim();
    ensure!(
        said.lines().count() == 1 && said.contains(word),
        "not one line with {word:?}: {said}"
    );
    Ok(())
}

fn not_root(context: &Context) -> Result<()> {
    // The binary may lie where another user cannot reach: the descriptor can.
    let copy = context.state.with_extension("bin");
    fs::copy(&context.bin, &copy)?;
    let output = finish(
        Command::new(&copy)
            .args(["run", "--rm", "host", "true"])
            .stdin(Stdio::null())
            .env("PATH", "/bin:/usr/bin")
            .uid_nobody(),
    );
    fs::remove_file(&copy)?;
    let output = output?;
    ensure!(output.code == Some(125), "{output:?}");
    one_line(&output.stderr, "root")
}

/// `setpriv`-free: the standard library can drop to a user by itself.
trait Nobody {
    fn uid_nobody(&mut self) -> &mut Self;
}

impl Nobody for Command {
    fn uid_nobody(&mut self) -> &mut Self {
        use std::os::unix::process::CommandExt as _;
        self.uid(65534).gid(65534)
    }
}

fn second_agent_refused(context: &Context) -> Result<()> {
    let pid = context.start_agent(&["--detach-on-exit"])?;
    let output = context.paddock(&["agent", "--web.listen-address", "127.0.0.1:0"])?;
    ensure!(output.code != Some(0), "{output:?}");
    let last = output.stderr.trim().lines().last().unwrap_or_default();
    ensure!(
        last.contains(&pid.to_string()),
        "the running agent is not named: {}",
        output.stderr
    );
    context.ok(&["ps"])?;
    Ok(())
}

fn stale_socket_replaced(context: &Context) -> Result<()> {
    drop(UnixListener::bind(context.state.join("paddock.sock"))?);
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["ps"])?;
    Ok(())
}

fn port_in_use(context: &Context) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let output = context.paddock(&[
        "agent",
        "--detach-on-exit",
        "--web.listen-address",
        &address,
    ])?;
    ensure!(output.code != Some(0), "{output:?}");
    let last = output.stderr.trim().lines().last().unwrap_or_default();
    one_line(last, &address)?;
    ensure!(
        !context.state.join("paddock.sock").exists(),
        "the socket stayed"
    );
    Ok(())
}

/// A mount namespace without any cgroup mount, as a badly made container would be.
fn no_cgroup_mount(context: &Context) -> Result<()> {
    let script = format!(
        "awk '$3 ~ /^cgroup/ {{print $2}}' /proc/mounts | sort -r | while read m; do umount -l $m; done; \
         exec {} --state-dir {} run --rm host true",
        context.bin.display(),
        context.state.display()
    );
    let output = finish(
        Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdin(Stdio::null()),
    )?;
    ensure!(
        output.code == Some(125) && output.stderr.contains("cgroup"),
        "{output:?}"
    );
    Ok(())
}

/// A kernel without BTF: the launcher works, and `check` says what is off and why.
fn no_btf(context: &Context) -> Result<()> {
    let hidden = |args: &str| {
        let script = format!(
            "mount --bind /dev/null /sys/kernel/btf/vmlinux; exec {} --state-dir {} {args}",
            context.bin.display(),
            context.state.display()
        );
        finish(
            Command::new("unshare")
                .args(["--mount", "sh", "-c", &script])
                .stdin(Stdio::null()),
        )
    };
    let output = hidden("check --format json")?;
    let report: Value = serde_json::from_str(&output.stdout)?;
    let all = report["capabilities"]
        .as_array()
        .context("no capabilities")?;
    ensure!(all.len() == 22, "{report}");
    for one in all {
        let why = one["refused"][0]["reason"].as_str().unwrap_or_default();
        ensure!(one["rung"].is_null() && why.contains("BTF"), "{one}");
    }
    let output = hidden("agent --require-probe --web.listen-address none")?;
    ensure!(output.code == Some(1), "{output:?}");
    one_line(&output.stderr, "BTF")?;
    // With a user namespace the kernel wants to see all of /sys, which the trick above hides.
    let output = hidden("run --rm --userns host host sh -c 'exit 9'")?;
    ensure!(output.code == Some(9), "{output:?}");
    Ok(())
}

/// Too little memory to start: an OOM kill or a refused limit, told, and nothing left.
fn limit_below_what_it_needs(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    for limit in ["4k", "64k"] {
        let output = context.paddock(&["run", "--rm", "--memory", limit, "host", "true"])?;
        ensure!(
            matches!(output.code, Some(125 | 126 | 137)),
            "{limit}: {output:?}"
        );
        let last = output.stderr.trim().lines().last().unwrap_or_default();
        ensure!(
            last.contains("memory") || last.contains("limit"),
            "{limit}: {}",
            output.stderr
        );
    }
    Ok(())
}

/// The state directory's file system is full: refused in one line, and the agent goes on.
fn no_space(context: &Context) -> Result<()> {
    let mount = format!(
        "mount -t tmpfs -o size=4k,nr_inodes=9,mode=700 full {}",
        context.state.display()
    );
    let script = format!(
        "{mount}; {0} --state-dir {1} run --rm host true; code=$?; sleep 5; ls -A {1}; exit $code",
        context.bin.display(),
        context.state.display()
    );
    let output = finish(
        Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdin(Stdio::null()),
    )?;
    ensure!(output.code == Some(125), "{output:?}");
    ensure!(output.stderr.contains("space"), "{output:?}");
    Ok(())
}

/// What an agent keeps between containers is `unload`'s to remove when it was killed; a stopped
/// agent holds nobody up.
fn killed_between_containers(context: &Context) -> Result<()> {
    let parents = || -> Result<usize> {
        let mounts = cgroup_mounts()?;
        let there = mounts
            .iter()
            .filter(|(_, root)| root.join("paddock").exists());
        Ok(there.count())
    };
    let before = parents()?;
    let agent = context.start_agent(&[])?;
    context.ok(&["run", "-d", "--name", "brief", "host", "sleep", "1"])?;
    let hierarchies = parents()?;
    ensure!(hierarchies > before, "{hierarchies} hierarchies");
    kill(Pid::from_raw(agent), Signal::SIGSTOP)?;
    let mounts = cgroup_mounts()?;
    let ended = eventually("its cgroups go", || {
        let mut roots = mounts.iter().map(|(_, root)| root.join("paddock"));
        Ok(roots.all(|root| containers_below(&root) == 0))
    });
    kill(Pid::from_raw(agent), Signal::SIGCONT)?;
    ended?;
    context.ok(&["rm", "-f", "brief"])?;
    context.kill_agent()?;
    ensure!(parents()? == hierarchies, "the agent kept nothing");
    context.ok(&["unload"])?;
    ensure!(parents()? == before, "unload left cgroups");
    Ok(())
}

/// Directories two levels below: one for each container.
fn containers_below(parent: &Path) -> usize {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    entries(parent)
        .flat_map(|instance| {
            fs::read_dir(instance.path())
                .into_iter()
                .flatten()
                .flatten()
        })
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .count()
}

/// A client that asked for an exec and went, before its container ended: no monitor stays.
fn exec_that_nobody_starts(context: &Context) -> Result<()> {
    let monitors = || -> Result<usize> {
        let all = procfs::process::all_processes()?.flatten();
        let names = all.filter_map(|process| Some(process.stat().ok()?.comm));
        Ok(names.filter(|name| name == "paddock-monitor").count())
    };
    // Of an earlier scenario's last command.
    eventually("no monitor is there", || Ok(monitors()? == 0))?;
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "held", "host", "sleep", "600"])?;
    let body = r#"{"args":["true"],"env":[],"terminal":false,"stdin":false}"#;
    let mut stream = UnixStream::connect(context.state.join("paddock.sock"))?;
    write!(
        stream,
        "POST /v1/containers/held/exec HTTP/1.1\r\nhost: paddock\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.contains(" 201 "), "{answer}");
    ensure!(monitors()? == 2, "{} monitors", monitors()?);
    context.ok(&["rm", "-f", "held"])?;
    eventually("both monitors end", || Ok(monitors()? == 0))
}

/// Containers go on; a new agent finds them, with their counts.
fn agent_killed(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "survivor",
        "host",
        "sh",
        "-c",
        "trap 'exit 5' TERM; while :; do sleep 0.05; done",
    ])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "ends",
        "host",
        "sh",
        "-c",
        "sleep 1; exit 31",
    ])?;
    let before = context.inspect("survivor")?;
    context.kill_agent()?;
    let pid = before["pid"].as_i64().context("no pid")?;
    ensure!(
        fs::metadata(format!("/proc/{pid}")).is_ok(),
        "it died with the agent"
    );
    // One ends while nobody looks.
    thread::sleep(Duration::from_millis(1500));
    context.start_agent(&["--detach-on-exit"])?;
    let after = context.inspect("survivor")?;
    ensure!(
        after["pid"] == before["pid"] && after["id"] == before["id"] && after["state"] == "running",
        "{after}"
    );
    ensure!(
        context.ok(&["wait", "ends"])?.trim() == "31",
        "its end was lost"
    );
    context.ok(&["exec", "survivor", "true"])?;
    context.ok(&["stop", "survivor"])?;
    ensure!(context.ok(&["wait", "survivor"])?.trim() == "5");
    Ok(())
}

pub(super) fn child_of(agent: i32, argv0: &str) -> Result<i32> {
    procfs::process::all_processes()?
        .flatten()
        .find(|process| {
            process.stat().is_ok_and(|stat| stat.ppid == agent)
                && process
                    .cmdline()
                    .is_ok_and(|line| line.first().is_some_and(|word| word.contains(argv0)))
        })
        .map(|process| process.pid)
        .with_context(|| format!("{agent} has no child {argv0}"))
}

/// The agent makes a new one; what runs does not notice.
fn zygote_killed(context: &Context) -> Result<()> {
    let agent = context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "before", "host", "sleep", "60"])?;
    let zygote = child_of(agent, "paddock-zygote")?;
    kill(Pid::from_raw(zygote), Signal::SIGKILL)?;
    eventually("a new zygote serves", || {
        Ok(context.paddock(&["run", "--rm", "host", "true"])?.code == Some(0))
    })?;
    ensure!(
        child_of(agent, "paddock-zygote")? != zygote,
        "the dead one is still listed"
    );
    ensure!(
        context.inspect("before")?["state"] == "running",
        "the container ended with the zygote"
    );
    context.ok(&["exec", "before", "true"])?;
    Ok(())
}

/// Its container ends with it: nobody would know how it ended, or empty its pipes.
fn monitor_killed(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "orphan", "host", "sleep", "60"])?;
    let pid = context.inspect("orphan")?["pid"]
        .as_i64()
        .context("no pid")?;
    let cgroup = context.inspect("orphan")?["cgroup"]
        .as_str()
        .context("no cgroup")?
        .to_owned();
    kill(context.monitor_of("orphan")?, Signal::SIGKILL)?;
    ensure!(context.ok(&["wait", "orphan"])?.trim() == "137");
    eventually("the workload is gone", || {
        Ok(fs::metadata(format!("/proc/{pid}")).is_err())
    })?;
    eventually("its cgroups are gone", || {
        Ok(cgroup_mounts()?
            .iter()
            .all(|(_, root)| !root.join(&cgroup).exists()))
    })
}

fn monitor_killed_without_agent(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    context.ok(&["run", "-d", "--name", "orphan", "host", "sleep", "60"])?;
    // Asked now: a question to no agent starts one.
    let monitor = context.monitor_of("orphan")?;
    context.kill_agent()?;
    kill(monitor, Signal::SIGKILL)?;
    context.start_agent(&["--detach-on-exit"])?;
    ensure!(context.ok(&["wait", "orphan"])?.trim() == "137");
    ensure!(context.inspect("orphan")?["state"] == "exited");
    Ok(())
}

fn hostile_names(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let long = "x".repeat(10_000);
    for name in [
        "../up",
        "a/b",
        "",
        ".",
        "..",
        "-dash",
        "new\nline",
        "\u{1b}[31m",
        &long,
    ] {
        let output =
            context.paddock(&["run", "--rm", &format!("--name={name}"), "host", "true"])?;
        ensure!(output.code == Some(125), "{name:?}: {output:?}");
        ensure!(
            output.stderr.trim().lines().count() == 1 && output.stderr.len() < 1000,
            "{name:?}: {output:?}"
        );
        ensure!(
            !output.stderr.contains('\u{1b}'),
            "control characters are passed on"
        );
    }
    Ok(())
}
