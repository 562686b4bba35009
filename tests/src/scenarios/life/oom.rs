//! Kinds of OOM kills told apart. Witness: the kernel's own files and the workload's fate.

use std::{fs, io::ErrorKind, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    context::{Context, cgroup_file, eventually, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "life::oom_of_main_process_then_restart",
        oom_of_main_process_then_restart,
    ),
    Scenario::new("life::oom_of_a_child", oom_of_a_child),
    Scenario::new("life::oom_of_the_group", oom_of_the_group),
    Scenario::new("life::oom_of_the_host", oom_of_the_host),
];

/// More than any limit here.
const GREED: &str = "134217728";

fn oom_of_main_process_then_restart(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let args = [
        "-v",
        &volume,
        "--memory",
        "32m",
        "host",
        "/run/workload",
        "alloc",
        GREED,
    ];
    let output = context.paddock(&[&["run", "--name", "once"], &args[..]].concat())?;
    ensure!(
        output.code == Some(137)
            && output
                .stderr
                .contains("main process killed at the 32 MiB limit (exit 137)"),
        "{output:?}"
    );
    let oom = &context.inspect("once")?["oom"];
    ensure!(
        oom["victim"] == "main-process" && oom["constraint"] == "memcg" && oom["kills"] == 1,
        "{oom}"
    );
    context.ok(&[
        &["run", "-d", "--name", "again", "--restart", "on-failure:2"],
        &args[..],
    ]
    .concat())?;
    ensure!(context.ok(&["wait", "again"])?.trim() == "137");
    eventually("it is given up", || {
        Ok(context.inspect("again")?["state"] == "exited")
    })?;
    let said = context.inspect("again")?;
    ensure!(
        said["restart_count"] == 2
            && said["exit_code"] == 137
            && said["oom_killed"] == true
            && said["oom"]["kills"] == 1
            && said["oom_kills"] == 3,
        "{said}"
    );
    let metrics = context.metrics()?;
    let total = metrics.sum(
        "paddock_container_oom_kills_total",
        &[("container", "again")],
    );
    ensure!((total - 3.0).abs() < 0.5, "{total} kills in three runs");
    let listed = context.ok(&["ps", "-a"])?;
    ensure!(listed.contains("OOM (137)"), "{listed}");
    Ok(())
}

/// The container goes on, and its end is its own.
fn oom_of_a_child(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let script = format!(
        "/run/workload alloc {GREED}; echo child gave $?; while [ ! -e /go ]; do sleep 0.05; done; exit 3"
    );
    let mut run = context
        .command(&[
            "run", "--name", "parent", "--memory", "64m", "-v", &volume, "host", "sh", "-c",
            &script,
        ])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    eventually("the child was killed", || {
        let output = context.paddock(&["logs", "parent"])?;
        Ok(output.stdout.contains("child gave 137"))
    })?;
    eventually("it is told", || {
        let said = context.inspect("parent")?;
        Ok(said["state"] == "running"
            && said["oom_killed"] == false
            && said["oom"]["victim"] == "child"
            && said["oom"]["kills"] == 1)
    })?;
    ensure!(context.ok(&["ps"])?.contains("Up "));
    context.ok(&["exec", "parent", "touch", "/go"])?;
    let mut said = String::new();
    std::io::Read::read_to_string(&mut run.stderr.take().context("no stderr")?, &mut said)?;
    ensure!(run.wait()?.code() == Some(3), "{said}");
    ensure!(
        said.contains("1 process killed at the 64 MiB limit; the main process went on (exit 3)"),
        "{said}"
    );
    let said = context.inspect("parent")?;
    ensure!(
        said["oom"]["victim"] == "child" && said["oom_killed"] == false,
        "{said}"
    );
    Ok(())
}

/// v2 kills all of a cgroup at once where it is told to; v1 cannot.
fn oom_of_the_group(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let script =
        format!("while [ ! -e /go ]; do sleep 0.05; done; /run/workload alloc {GREED}; sleep 60");
    context.ok(&[
        "run", "-d", "--name", "group", "--memory", "64m", "-v", &volume, "host", "sh", "-c",
        &script,
    ])?;
    let cgroup = context.inspect("group")?["cgroup"]
        .as_str()
        .context("no cgroup")?
        .to_owned();
    let switch = cgroup_file(&cgroup, "memory.oom.group", ("memory", "memory.oom.group"));
    if !pure_v2() {
        let missing = fs::metadata(&switch).map(drop);
        ensure!(
            missing
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::NotFound),
            "v1 kills by group: {missing:?}"
        );
        return Ok(());
    }
    fs::write(&switch, "1")?;
    let events = cgroup_file(&cgroup, "memory.events", ("", ""));
    let grouped = fs::read_to_string(events)?.contains("oom_group_kill");
    context.ok(&["exec", "group", "touch", "/go"])?;
    ensure!(context.ok(&["wait", "group"])?.trim() == "137");
    let said = context.inspect("group")?;
    // The shell, and its child. Before 5.17 the kernel does not tell that they went together.
    let (victim, told) = if grouped {
        ("group", "Group OOM (137)")
    } else {
        ("main-process", " OOM (137)")
    };
    ensure!(
        said["oom"]["victim"] == victim && said["oom"]["kills"].as_u64() >= Some(2),
        "{said}"
    );
    ensure!(context.ok(&["ps", "-a"])?.contains(told));
    Ok(())
}

/// The machine's own shortage, as sysrq makes it in a guest that is ours alone. Elsewhere it
/// would be a stranger's process: there the same victim must be told as its own limit's.
fn oom_of_the_host(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    context.ok(&[
        "run",
        "-d",
        "--name",
        "victim",
        "--memory",
        "64m",
        "-v",
        &volume,
        "host",
        "sh",
        "-c",
        "while [ ! -e /go ]; do sleep 0.05; done; exec /run/workload alloc 134217728",
    ])?;
    let ours = fs::read_to_string("/etc/os-release")?.contains("ID=paddock-guest");
    let pid = context.inspect("victim")?["pid"]
        .as_i64()
        .context("no pid")?;
    if ours {
        fs::write(format!("/proc/{pid}/oom_score_adj"), "1000")?;
        thread::sleep(Duration::from_millis(300));
        fs::write("/proc/sysrq-trigger", "f")?;
    } else {
        context.ok(&["exec", "victim", "touch", "/go"])?;
    }
    ensure!(context.ok(&["wait", "victim"])?.trim() == "137");
    let said = context.inspect("victim")?;
    let want = if ours { "host" } else { "memcg" };
    ensure!(
        said["oom"]["victim"] == "main-process" && said["oom"]["constraint"] == want,
        "{said}"
    );
    let listed = context.ok(&["ps", "-a"])?;
    ensure!(
        listed.contains(if ours { "Host OOM (137)" } else { "OOM (137)" }),
        "{listed}"
    );
    Ok(())
}
