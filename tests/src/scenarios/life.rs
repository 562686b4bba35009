//! A container's life from the command line: exit codes, signals, logs, terminal, removal.

pub mod attach;
pub mod logs;
pub mod oom;
pub mod restart;
mod scratch;
pub mod stop;

use std::{
    fs,
    io::{Read as _, Write as _},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    context::{Context, cgroup_file, cgroup_mounts, eventually, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("life::exit_codes", exit_codes),
    Scenario::new("life::stdin_reaches_and_ends", stdin_reaches_and_ends),
    Scenario::new("life::output_is_complete", output_is_complete),
    Scenario::new("life::signals_are_forwarded", signals_are_forwarded),
    Scenario::new("life::detached_wait_logs_rm", detached_wait_logs_rm),
    Scenario::new("life::a_name_is_free_at_once", a_name_is_free_at_once).alone(),
    Scenario::new("life::stop_then_kill", stop_then_kill),
    Scenario::new("life::exec_codes_and_cgroup", exec_codes_and_cgroup),
    Scenario::new("life::terminal", terminal),
    Scenario::new(
        "life::children_end_with_the_first",
        children_end_with_the_first,
    ),
    Scenario::new("life::what_left_v2_ends_too", what_left_v2_ends_too),
];

fn exit_codes(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    for (script, want) in [
        ("exit 0", 0),
        ("exit 23", 23),
        ("exit 255", 255),
        ("kill -TERM $$", 0),
        ("kill -KILL $$", 0),
    ] {
        // The first process of a pid namespace is not ended by signals it sends itself.
        let output = context.paddock(&["run", "--rm", "host", "sh", "-c", script])?;
        ensure!(output.code == Some(want), "{script}: {output:?}");
    }
    let output = context.paddock(&["run", "--rm", "host", "no-such-command"])?;
    ensure!(
        output.code == Some(127) && output.stderr.contains("no-such-command"),
        "{output:?}"
    );
    let output = context.paddock(&["run", "--rm", "host", "/etc/passwd"])?;
    ensure!(
        output.code == Some(126) && output.stderr.contains("/etc/passwd"),
        "{output:?}"
    );
    let output = context.paddock(&["run", "--no-such-flag", "host", "true"])?;
    ensure!(output.code == Some(125), "{output:?}");
    Ok(())
}

fn stdin_reaches_and_ends(context: &Context) -> Result<()> {
    let mut child = context
        .command(&["run", "--rm", "-i", "host", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let line = "23 lines\n".repeat(23);
    child
        .stdin
        .take()
        .context("no stdin")?
        .write_all(line.as_bytes())?;
    let mut text = String::new();
    child
        .stdout
        .take()
        .context("no stdout")?
        .read_to_string(&mut text)?;
    ensure!(child.wait()?.code() == Some(0) && text == line, "{text}");
    Ok(())
}

/// Two mebibytes through both streams, to the byte: pipes are drained after the end, too.
fn output_is_complete(context: &Context) -> Result<()> {
    let script =
        "head -c 1000003 /dev/zero | tr '\\0' x; head -c 1000003 /dev/zero | tr '\\0' y >&2";
    let output = context.paddock(&["run", "--rm", "host", "sh", "-c", script])?;
    let xs = output.stdout.bytes().filter(|b| *b == b'x').count();
    let ys = output.stderr.bytes().filter(|b| *b == b'y').count();
    ensure!(
        (xs, ys) == (1_000_003, 1_000_003),
        "stdout {xs}, stderr {ys}, exit {:?}",
        output.code
    );
    Ok(())
}

fn signals_are_forwarded(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    for (signal, name) in [
        (Signal::SIGINT, "INT"),
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGHUP, "HUP"),
    ] {
        let script = format!(
            "trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
        );
        let mut child = context
            .command(&["run", "--rm", "host", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut out = child.stdout.take().context("no stdout")?;
        let mut ready = [0; 6];
        out.read_exact(&mut ready)?;
        kill(Pid::from_raw(child.id().cast_signed()), signal)?;
        let mut rest = String::new();
        out.read_to_string(&mut rest)?;
        let code = child.wait()?.code();
        ensure!(
            code == Some(7) && rest.contains(&format!("got {name}")),
            "{name}: {code:?} {rest}"
        );
    }
    Ok(())
}

fn detached_wait_logs_rm(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let script = "echo to stdout; echo to stderr >&2; exit 11";
    let id = context.ok(&["run", "-d", "--name", "job", "host", "sh", "-c", script])?;
    ensure!(
        id.trim().len() == 64 && id.trim().bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
    let waited = context.ok(&["wait", "job"])?;
    ensure!(waited.trim() == "11", "wait said {waited}");
    let logs = context.paddock(&["logs", "job"])?;
    ensure!(
        logs.stdout == "to stdout\n" && logs.stderr == "to stderr\n",
        "{logs:?}"
    );
    ensure!(
        !context.ok(&["ps"])?.contains("job"),
        "an ended container is listed without -a"
    );
    ensure!(
        context.ok(&["ps", "-a"])?.contains("job"),
        "not listed with -a"
    );
    let output = context.paddock(&["run", "--name", "job", "host", "true"])?;
    ensure!(
        output.code == Some(125) && output.stderr.contains("job"),
        "name in use: {output:?}"
    );
    // An id's beginning is enough.
    context.ok(&["rm", id.get(..8).context("short id")?])?;
    let output = context.paddock(&["inspect", "job"])?;
    ensure!(
        output.code != Some(0) && output.stderr.trim().lines().count() == 1,
        "{output:?}"
    );
    Ok(())
}

/// `--rm` is over when the container is gone, also where its agent has much to read before it
/// knows: the next one may have its name.
fn a_name_is_free_at_once(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit", "--event-rate", "0"])?;
    let volume = context.workload_volume();
    let mut args = vec!["run", "--rm", "--name", "next", "-v", &volume];
    args.extend(["--userns", "host", "--cap-add", "SYS_ADMIN", "host"]);
    args.extend(["/run/workload", "setns-loop", "/proc/self/ns/uts"]);
    args.extend(["uts", "25013"]);
    for _ in 0..7 {
        let said = context.ok(&args)?;
        ensure!(said == "25013 calls, 0 refused\n", "{said}");
    }
    Ok(())
}

fn stop_then_kill(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let polite = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done";
    context.ok(&["run", "-d", "--name", "polite", "host", "sh", "-c", polite])?;
    eventually("the trap is set", || {
        Ok(context.ok(&["logs", "polite"])?.contains("up"))
    })?;
    context.ok(&["stop", "polite"])?;
    ensure!(
        context.ok(&["wait", "polite"])?.trim() == "3",
        "polite did not end by its trap"
    );
    let stubborn = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    context.ok(&[
        "run", "-d", "--name", "stubborn", "host", "sh", "-c", stubborn,
    ])?;
    eventually("the trap is set", || {
        Ok(context.ok(&["logs", "stubborn"])?.contains("up"))
    })?;
    let output = context.paddock(&["rm", "stubborn"])?;
    ensure!(
        output.code != Some(0) && output.stderr.contains("stubborn"),
        "removed while it ran: {output:?}"
    );
    let start = Instant::now();
    context.ok(&["stop", "-t", "1", "stubborn"])?;
    ensure!(
        start.elapsed() >= Duration::from_secs(1),
        "killed before its time"
    );
    ensure!(
        context.ok(&["wait", "stubborn"])?.trim() == "137",
        "not killed"
    );
    context.ok(&["run", "-d", "--name", "third", "host", "sleep", "60"])?;
    context.ok(&["kill", "third"])?;
    ensure!(context.ok(&["wait", "third"])?.trim() == "137");
    Ok(())
}

fn exec_codes_and_cgroup(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "base", "host", "sleep", "60"])?;
    let output = context.paddock(&["exec", "base", "sh", "-c", "exit 29"])?;
    ensure!(output.code == Some(29), "{output:?}");
    let output = context.paddock(&["exec", "base", "no-such-command"])?;
    ensure!(output.code == Some(127), "{output:?}");
    let pid = context.inspect("base")?["pid"].as_i64().context("no pid")?;
    // From outside: the process of an exec sits in the container's own cgroups.
    let mut child = context
        .command(&["exec", "base", "sleep", "5"])
        .stdin(Stdio::null())
        .spawn()?;
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let found = eventually("exec's process is in the same cgroups", || {
        Ok(procfs::process::all_processes()?.flatten().any(|process| {
            process.pid != i32::try_from(pid).unwrap_or(0)
                && process.cmdline().is_ok_and(|line| line == ["sleep", "5"])
                && fs::read_to_string(format!("/proc/{}/cgroup", process.pid))
                    .is_ok_and(|text| text == own)
        }))
    });
    child.wait()?;
    found
}

/// A terminal is one inside, with a size; `script` plays the person's terminal.
fn terminal(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "-t",
        "--name",
        "tty",
        "host",
        "sh",
        "-c",
        "tty; test -t 0 && echo terminal; test -c /dev/console && echo console; sleep 0.2",
    ])?;
    context.ok(&["wait", "tty"])?;
    let logs = context.ok(&["logs", "tty"])?;
    ensure!(
        logs.contains("/dev/pts/0") || logs.contains("/dev/console"),
        "{logs}"
    );
    ensure!(
        logs.contains("terminal\r\n") && logs.contains("console\r\n"),
        "{logs}"
    );
    let output = context.paddock(&["run", "--rm", "-t", "-i", "host", "true"])?;
    ensure!(
        output.code == Some(125) && output.stderr.contains("terminal"),
        "stdin is no terminal: {output:?}"
    );
    Ok(())
}

/// The end of the first process ends the pid namespace; with the host's, the cgroup does it.
fn children_end_with_the_first(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let nap = format!("60.{}", std::process::id());
    for extra in [
        &["--pid", "private"][..],
        &["--userns", "host", "--pid", "host"][..],
    ] {
        let script = format!("sleep {nap} & sleep {nap} & exit 0");
        let args = [&["run", "--rm"], extra, &["host", "sh", "-c", &script]].concat();
        let output = context.paddock(&args)?;
        ensure!(output.code == Some(0), "{output:?}");
        thread::sleep(Duration::from_millis(100));
        let alive = procfs::process::all_processes()?
            .flatten()
            .filter(|process| process.cmdline().is_ok_and(|line| line.contains(&nap)))
            .count();
        ensure!(alive == 0, "{extra:?}: {alive} children outlived it");
    }
    Ok(())
}

/// Somebody takes a child out of v2's cgroup and leaves it in v1's, where its limits are. In
/// pure v2 that would be out of the container: there the child stays in.
fn what_left_v2_ends_too(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let nap = format!("61.{}", std::process::id());
    let script = format!("sleep {nap} & while [ ! -e /dev/shm/go ]; do sleep 0.05; done; exit 3");
    let mut run = vec!["run", "-d", "--name", "split", "--userns", "host"];
    run.extend(["--pid", "host", "host", "sh", "-c", &script]);
    context.ok(&run)?;
    let cgroup = context.inspect("split")?["cgroup"].clone();
    let cgroup = cgroup.as_str().context("no cgroup")?;
    let child = || -> Result<Option<i32>> {
        let mut all = procfs::process::all_processes()?.flatten();
        let found = all.find(|process| {
            let line = process.cmdline().unwrap_or_default();
            line.first().is_some_and(|name| name.ends_with("sleep")) && line.contains(&nap)
        });
        Ok(found.map(|process| process.pid))
    };
    eventually("its child is there", || Ok(child()?.is_some()))?;
    let pid = child()?.context("no child")?.to_string();
    if !pure_v2() {
        fs::write("/sys/fs/cgroup/unified/cgroup.procs", &pid)?;
    }
    let procs = cgroup_file(cgroup, "cgroup.procs", ("pids", "cgroup.procs"));
    let inside = fs::read_to_string(&procs)?;
    ensure!(inside.lines().any(|line| line == pid), "{pid}: {inside}");
    context.ok(&["exec", "split", "touch", "/dev/shm/go"])?;
    ensure!(context.ok(&["wait", "split"])?.trim() == "3");
    eventually("its child has ended", || Ok(child()?.is_none()))?;
    for (_, mount) in cgroup_mounts()? {
        let left = mount.join(cgroup);
        eventually(
            &format!("{} is gone", left.display()),
            || Ok(!left.exists()),
        )?;
    }
    Ok(())
}
