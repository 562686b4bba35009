//! `run --trace-steps`: what it prints, against strace of the launch and the kernel's files.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::faults::child_of;
use crate::{
    context::{Context, TIMEOUT, cgroup_file, eventually},
    process::Running,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("trace::steps_are_the_kernels", steps_are_the_kernels),
    Scenario::new("trace::nothing_unasked", nothing_unasked),
];

/// Calls that every step of theirs makes once and nothing else does.
const CALLS: [&str; 12] = [
    "capset",
    "execve",
    "move_mount",
    "pivot_root",
    "sethostname",
    "setgroups",
    "setresgid",
    "setresuid",
    "setsid",
    "umount2",
    "unshare",
    "fsopen",
];

/// A printed line: microseconds, step, calls.
struct Row {
    at: u64,
    step: String,
    how: String,
}

fn rows(printed: &str) -> Result<Vec<Row>> {
    let mut lines = printed.lines();
    let heading = lines.next().context("nothing was printed")?;
    let at_step = heading.find("STEP").context("no column")?;
    let at_calls = heading.find("CALLS").context("no column")?;
    lines
        .map(|line| {
            let part = |from, to| line.get(from..to).map(str::trim).context("a short line");
            Ok(Row {
                at: part(0, at_step)?.parse()?,
                step: part(at_step, at_calls)?.to_owned(),
                how: part(at_calls, line.len())?.to_owned(),
            })
        })
        .collect()
}

/// Names of [`CALLS`] in a text, in its order.
fn named(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| CALLS.contains(word))
        .collect()
}

/// What a process called, by `strace -f`: its lines begin with `[pid NUMBER]`.
fn called(trace: &str, pid: &str) -> Vec<String> {
    trace
        .lines()
        .filter_map(|line| line.strip_prefix("[pid ")?.split_once("] "))
        .filter(|(of, _)| of.trim() == pid)
        .filter_map(|(_, call)| call.split_once('('))
        .map(|(call, _)| call.to_owned())
        .filter(|call| CALLS.contains(&call.as_str()))
        .collect()
}

/// A step that says "if" may have found nothing to do.
fn same_order(rows: &[Row], mut called: &[String]) -> Result<()> {
    for row in rows {
        let optional = row.how.contains(", if it is");
        for name in named(&row.how) {
            match called.split_first() {
                Some((call, rest)) if call == name => called = rest,
                _ if optional => {}
                _ => anyhow::bail!("{}: {name}, but strace saw {called:?}", row.how),
            }
        }
    }
    ensure!(called.is_empty(), "not printed: {called:?}");
    Ok(())
}

/// The rows of one step.
fn of<'a>(rows: &'a [Row], step: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.step == step).collect()
}

fn clone_is_the_kernels(printed: &[Row], pid: &str, seen: &str) -> Result<()> {
    let [clone] = of(printed, "clone")[..] else {
        anyhow::bail!("not one clone")
    };
    let flags = clone.how.split(['(', ')']).nth(1).context("no flags")?;
    ensure!(
        clone.how.ends_with(&format!("process {pid}")),
        "{}",
        clone.how
    );
    let birth = seen
        .lines()
        .find(|line| line.contains("clone3(") && line.contains("CLONE_NEWPID"))
        .with_context(|| format!("strace saw no clone: {seen}"))?;
    let asked = flags
        .split('|')
        .filter(|flag| flag.starts_with("CLONE_NEW"));
    ensure!(asked.clone().count() == 6, "{flags}");
    for flag in asked {
        ensure!(birth.contains(flag), "{flag}: {birth}");
    }
    Ok(())
}

fn namespaces_are_the_kernels(printed: &[Row], pid: &str) -> Result<()> {
    let namespaces = of(printed, "namespace");
    ensure!(namespaces.len() == 8, "{} namespaces", namespaces.len());
    for row in namespaces {
        let name = row.how.split(':').next().unwrap_or_default();
        let link = |of: &str| fs::read_link(format!("/proc/{of}/ns/{name}"));
        let (inside, host) = (link(pid)?, link("self")?);
        let shown = row.how.strip_suffix(", the host's").unwrap_or(&row.how);
        ensure!(
            inside.display().to_string() == shown,
            "{} is {}",
            row.how,
            inside.display()
        );
        ensure!((inside == host) == (shown != row.how), "{}", row.how);
    }
    Ok(())
}

fn files_are_the_kernels(printed: &[Row], pid: &str, cgroup: &str) -> Result<()> {
    let written = |v2, v1, value: &str| {
        let path = cgroup_file(cgroup, v2, v1);
        let kernel = fs::read_to_string(&path)?;
        let line = format!("write {}, reads {value}", path.display());
        ensure!(kernel.trim_end() == value, "{}: {kernel}", path.display());
        ensure!(
            of(printed, "limit").iter().any(|row| row.how == line),
            "no {line}"
        );
        anyhow::Ok(())
    };
    written(
        "memory.max",
        ("memory", "memory.limit_in_bytes"),
        "268435456",
    )?;
    let quota = if crate::context::pure_v2() {
        "50000 100000"
    } else {
        "50000"
    };
    written("cpu.max", ("cpu", "cpu.cfs_quota_us"), quota)?;
    for row in of(printed, "cgroup") {
        let path = PathBuf::from(row.how.strip_prefix("mkdir ").context("no mkdir")?);
        ensure!(
            path.is_dir() && path.ends_with(cgroup),
            "{}",
            path.display()
        );
    }
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    let map = map.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(
        of(printed, "id map")
            .iter()
            .any(|row| row.how.ends_with(&format!("uid_map, reads {map}")))
    );
    Ok(())
}

fn steps_are_the_kernels(context: &Context) -> Result<()> {
    let agent = context.start_agent(&["--detach-on-exit"])?;
    let zygote = child_of(agent, "paddock-zygote")?.to_string();
    let filter = format!("trace=clone3,{}", CALLS.join(","));
    let strace = Running::start(Command::new("strace").args([
        "-f",
        "-qq",
        "-e",
        &filter,
        "-e",
        "signal=none",
        "-p",
        &zygote,
    ]))?;
    let attached = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(!status.contains("TracerPid:\t0\n"))
    };
    eventually("strace is there", || attached(&zygote))?;
    let run = Running::start(&mut context.command(&[
        "run",
        "--name",
        "told",
        "-i",
        "--trace-steps",
        "--memory",
        "256m",
        "--cpus",
        "0.5",
        "host",
        "/bin/sh",
        "-c",
        "echo clean; read end",
    ]))?;
    eventually("it runs", || Ok(run.stdout() == "clean\n"))?;
    eventually("it is told", || Ok(run.stderr().contains("cgroup:[")))?;
    let detail = context.inspect("told")?;
    let pid = detail["pid"].as_i64().context("no pid")?.to_string();
    strace.signal(Signal::SIGINT)?;
    let seen = strace.wait(TIMEOUT)?.stderr;
    let printed = rows(&run.stderr())?;
    ensure!(
        printed.is_sorted_by_key(|row| row.at),
        "not in order: {}",
        run.stderr()
    );
    let first = printed.iter().position(|row| row.step == "become root");
    let own = printed.get(first.context("no step of the child's")?..);
    same_order(own.unwrap_or_default(), &called(&seen, &pid))?;
    clone_is_the_kernels(&printed, &pid, &seen)?;
    namespaces_are_the_kernels(&printed, &pid)?;
    let cgroup = detail["cgroup"].as_str().context("no cgroup")?;
    files_are_the_kernels(&printed, &pid, cgroup)?;

    context.ok(&["rm", "-f", "told"])?;
    let output = run.wait(TIMEOUT)?;
    ensure!(output.stdout == "clean\n", "{output:?}");
    Ok(())
}

fn nothing_unasked(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let output = context.paddock(&["run", "--name", "mute", "host", "true"])?;
    ensure!(
        output.code == Some(0) && output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
    let id = context.inspect("mute")?["id"]
        .as_str()
        .context("no id")?
        .to_owned();
    let started = context
        .state
        .join("containers")
        .join(id)
        .join("started.json");
    ensure!(!fs::read_to_string(started)?.contains("steps"));
    // Nobody would be there to read it.
    let output = context.paddock(&["run", "-d", "--trace-steps", "host", "true"])?;
    ensure!(
        output.code == Some(125) && output.stdout.is_empty(),
        "{output:?}"
    );
    ensure!(output.stderr.contains("--trace-steps"), "{output:?}");
    Ok(())
}
