//! Restart policies, `create`, `start`, `restart`. Witness: the clock of the workload itself,
//! which writes the time of each of its starts into a volume.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::scratch::Scratch;
use crate::{
    context::{Context, cgroup_file, cgroup_mounts, eventually},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("life::restart_backs_off", restart_backs_off),
    Scenario::new("life::restart_policies", restart_policies),
    Scenario::new(
        "life::restart_keeps_limits_and_counts",
        restart_keeps_limits_and_counts,
    ),
    Scenario::new("life::stop_between_two_runs", stop_between_two_runs),
    Scenario::new(
        "life::agent_killed_between_two_runs",
        agent_killed_between_two_runs,
    )
    .alone(),
    Scenario::new(
        "life::policies_when_an_agent_starts",
        policies_when_an_agent_starts,
    )
    .alone(),
    Scenario::new("life::create_start_restart", create_start_restart),
    Scenario::new("life::failed_start_again", failed_start_again),
];

/// Writes when it started, then does the rest.
fn started(rest: &str) -> String {
    format!("cut -d' ' -f1 /proc/uptime >> /out/starts; {rest}")
}

fn is(context: &Context, name: &str, state: &str) -> Result<bool> {
    Ok(context.inspect(name)?["state"] == state)
}

fn restart_backs_off(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let scratch = Scratch::new(context)?;
    let script = started("echo run; sleep 0.5; exit 3");
    let id = context.ok(&[
        "run",
        "-d",
        "--name",
        "crash",
        "--restart",
        "on-failure:4",
        "-v",
        &scratch.volume(),
        "host",
        "sh",
        "-c",
        &script,
    ])?;
    // The end of a run, not of them all.
    ensure!(context.ok(&["wait", "crash"])?.trim() == "3");
    ensure!(
        scratch.times("starts")?.len() < 5,
        "wait returned at the last end"
    );
    eventually("it is given up", || is(context, "crash", "exited"))?;
    let starts = scratch.times("starts")?;
    ensure!(starts.len() == 5, "{starts:?}");
    // Each run lasted half a second; the clock counts hundredths.
    for (pair, pause) in starts.windows(2).zip([0.1, 0.2, 0.4, 0.8]) {
        ensure!(
            pair[1] - pair[0] >= 0.5 + pause - 0.02,
            "{pause}: {starts:?}"
        );
    }
    let said = context.inspect("crash")?;
    ensure!(
        said["id"] == id.trim() && said["restart_count"] == 4 && said["exit_code"] == 3,
        "{said}"
    );
    ensure!(
        context.ok(&["logs", "crash"])? == "run\n".repeat(5),
        "the log did not go on"
    );
    let events = context.ok(&["events", "--format", "json", "--container", "crash"])?;
    let told: Vec<String> = events
        .lines()
        .map(serde_json::from_str::<serde_json::Value>)
        .collect::<Result<Vec<_>, _>>()?
        .iter()
        .filter(|event| event["event"] == "container")
        .filter_map(|event| event["action"].as_str().map(str::to_owned))
        .collect();
    let mut want = vec!["created"];
    for _ in 0..4 {
        want.extend(["started", "exited", "restarting"]);
    }
    want.extend(["started", "exited"]);
    ensure!(told == want, "{told:?}");
    Ok(())
}

fn restart_policies(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    for (policy, script) in [("no", "exit 1"), ("on-failure", "exit 0")] {
        context.ok(&[
            "run",
            "-d",
            "--name",
            "once",
            "--restart",
            policy,
            "host",
            "sh",
            "-c",
            script,
        ])?;
        eventually("it ends", || is(context, "once", "exited"))?;
        thread::sleep(Duration::from_millis(700));
        let said = context.inspect("once")?;
        ensure!(
            said["state"] == "exited" && said["restart_count"] == 0,
            "{policy}: {said}"
        );
        context.ok(&["rm", "once"])?;
    }
    for policy in ["always", "unless-stopped"] {
        context.ok(&[
            "run",
            "-d",
            "--name",
            "again",
            "--restart",
            policy,
            "host",
            "true",
        ])?;
        eventually("a success is followed by another run", || {
            Ok(context.inspect("again")?["restart_count"].as_u64() > Some(1))
        })?;
        context.ok(&["rm", "-f", "again"])?;
    }
    // What a user ends stays ended, whatever the policy.
    for (number, policy) in ["always", "unless-stopped", "on-failure"]
        .into_iter()
        .enumerate()
    {
        for (end, code) in [
            (&["stop", "-t", "0"][..], 137),
            (&["kill"], 137),
            (&["kill", "-s", "INT"], 2),
        ] {
            let name = format!("kept{number}{}", end.len());
            let script = "trap 'exit 2' INT; echo up; while :; do sleep 0.05; done";
            context.ok(&[
                "run",
                "-d",
                "--name",
                &name,
                "--restart",
                policy,
                "host",
                "sh",
                "-c",
                script,
            ])?;
            eventually("the trap is set", || {
                Ok(context.ok(&["logs", &name])?.contains("up"))
            })?;
            context.ok(&[end, &[&*name]].concat())?;
            eventually("it ends", || is(context, &name, "exited"))?;
            thread::sleep(Duration::from_millis(500));
            let said = context.inspect(&name)?;
            ensure!(
                said["state"] == "exited"
                    && said["restart_count"] == 0
                    && said["exit_code"] == code,
                "{policy} {end:?}: {said}"
            );
            context.ok(&["rm", &name])?;
        }
    }
    for (wrong, word) in [
        (&["--rm", "--restart", "always"][..], "--rm"),
        (&["--restart", "sometimes"], "sometimes"),
        (&["--restart", "always:3"], "always"),
        (&["--stop-signal", "SIGNOPE"], "SIGNOPE"),
        (&["--log-opt", "max-size=8k"], "64k"),
    ] {
        let output = context.paddock(&[&["run"], wrong, &["host", "true"]].concat())?;
        ensure!(
            output.code == Some(125)
                && output.stderr.trim().lines().count() == 1
                && output.stderr.contains(word),
            "{wrong:?}: {output:?}"
        );
    }
    Ok(())
}

/// Every run has the limits, and what is counted never goes back.
fn restart_keeps_limits_and_counts(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let script = "/run/workload spin 0.3; /run/workload alloc 134217728; sleep 1; exit 9";
    context.ok(&[
        "run",
        "-d",
        "--name",
        "cycle",
        "--restart",
        "always",
        "--memory",
        "64m",
        "-v",
        &volume,
        "host",
        "sh",
        "-c",
        script,
    ])?;
    let oom = || {
        context.metrics().map(|metrics| {
            metrics.sum(
                "paddock_container_oom_kills_total",
                &[("container", "cycle")],
            )
        })
    };
    let cpu = || {
        context.metrics().map(|metrics| {
            metrics.sum(
                "paddock_container_cpu_usage_seconds_total",
                &[("container", "cycle")],
            )
        })
    };
    let (mut kills, mut seconds) = (0.0, 0.0);
    let cgroup = context.inspect("cycle")?["cgroup"]
        .as_str()
        .context("no cgroup")?
        .to_owned();
    let file = cgroup_file(&cgroup, "memory.max", ("memory", "memory.limit_in_bytes"));
    eventually("three runs", || {
        let (now, used) = (oom()?, cpu()?);
        ensure!(
            now > kills - 0.5 && used >= seconds,
            "{kills} {now}, {seconds} {used}"
        );
        (kills, seconds) = (now, used);
        Ok(kills > 2.5 && context.inspect("cycle")?["restart_count"].as_u64() >= Some(2))
    })?;
    // Between two runs there is no cgroup.
    eventually("the limit is there again", || {
        Ok(fs::read_to_string(&file).is_ok_and(|text| text.trim() == "67108864"))
    })?;
    // The kernel's count is of one run.
    let own = || -> Result<f64> {
        let file = cgroup_file(&cgroup, "cpu.stat", ("cpuacct", "cpuacct.usage"));
        let text = fs::read_to_string(file)?;
        let usec = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        Ok(match usec {
            Some(usec) => usec.trim().parse::<f64>()? / 1e6,
            None => text.trim().parse::<f64>()? / 1e9,
        })
    };
    eventually("the sum of three is more than the third", || {
        let Ok(own) = own() else { return Ok(false) };
        Ok(cpu()? > own + 0.02)
    })?;
    let id = context.inspect("cycle")?["cgroup"].clone();
    ensure!(id == cgroup.as_str(), "another cgroup: {id}");
    context.ok(&["stop", "-t", "0", "cycle"])?;
    let after = oom()?;
    ensure!(after > kills - 0.5, "{kills} kills, then {after}");
    ensure!(
        cgroup_mounts()?
            .iter()
            .all(|(_, root)| !root.join(&cgroup).exists()),
        "its cgroup stayed"
    );
    Ok(())
}

fn stop_between_two_runs(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let scratch = Scratch::new(context)?;
    let script = started("exit 1");
    context.ok(&[
        "run",
        "-d",
        "--name",
        "loop",
        "--restart",
        "always",
        "-v",
        &scratch.volume(),
        "host",
        "sh",
        "-c",
        &script,
    ])?;
    // The next pause lasts 6.4 s: it is to be at rest for what follows, on a slow machine, too.
    eventually("seven runs", || Ok(scratch.times("starts")?.len() >= 7))?;
    eventually("it rests", || is(context, "loop", "restarting"))?;
    let listed = context.ok(&["ps"])?;
    ensure!(listed.contains("Restarting (1)"), "{listed}");
    let output = context.paddock(&["rm", "loop"])?;
    ensure!(
        output.code == Some(1),
        "removed while it restarts: {output:?}"
    );
    // A start does not wait for the pause's end.
    let before = scratch.times("starts")?.len();
    context.ok(&["start", "loop"])?;
    eventually("it started", || Ok(scratch.times("starts")?.len() > before))?;
    eventually("five more runs", || {
        Ok(scratch.times("starts")?.len() > before + 5)
    })?;
    context.ok(&["stop", "loop"])?;
    ensure!(is(context, "loop", "exited")?);
    let runs = scratch.times("starts")?.len();
    thread::sleep(Duration::from_secs(4));
    ensure!(
        scratch.times("starts")?.len() == runs,
        "it ran after its stop"
    );
    context.ok(&["rm", "loop"])?;
    Ok(())
}

fn agent_killed_between_two_runs(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let scratch = Scratch::new(context)?;
    let script = started("exit 1");
    let id = context.ok(&[
        "run",
        "-d",
        "--name",
        "loop",
        "--restart",
        "always",
        "-v",
        &scratch.volume(),
        "host",
        "sh",
        "-c",
        &script,
    ])?;
    eventually("five runs", || Ok(scratch.times("starts")?.len() >= 5))?;
    eventually("it rests", || is(context, "loop", "restarting"))?;
    context.kill_agent()?;
    // A run that was under way ends.
    thread::sleep(Duration::from_secs(1));
    let runs = scratch.times("starts")?.len();
    thread::sleep(Duration::from_secs(2));
    ensure!(scratch.times("starts")?.len() == runs, "who started it?");
    context.start_agent(&["--detach-on-exit"])?;
    eventually("the next agent goes on", || {
        Ok(scratch.times("starts")?.len() > runs)
    })?;
    let said = context.inspect("loop")?;
    ensure!(
        said["id"] == id.trim() && said["restart_count"].as_u64() >= Some(5),
        "{said}"
    );
    Ok(())
}

/// Docker's difference between the two.
fn policies_when_an_agent_starts(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let all = ["always", "unless-stopped", "on-failure"];
    for policy in all {
        context.ok(&[
            "run",
            "-d",
            "--name",
            policy,
            "--restart",
            policy,
            "host",
            "sleep",
            "60",
        ])?;
        context.ok(&["stop", "-t", "0", policy])?;
    }
    context.stop_agent()?;
    context.start_agent(&["--detach-on-exit"])?;
    eventually("the one runs again", || is(context, "always", "running"))?;
    thread::sleep(Duration::from_millis(500));
    for policy in ["unless-stopped", "on-failure"] {
        ensure!(is(context, policy, "exited")?, "{policy} runs again");
    }
    Ok(())
}

fn create_start_restart(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let scratch = Scratch::new(context)?;
    let cidfile = context.state.with_extension("cid");
    let script = started("echo out; echo err >&2; exit 5");
    let made = context.ok(&[
        "create",
        "--name",
        "job",
        "--cidfile",
        &cidfile.to_string_lossy(),
        "-v",
        &scratch.volume(),
        "host",
        "sh",
        "-c",
        &script,
    ]);
    let written = fs::read_to_string(&cidfile);
    let again = context.paddock(&["create", "--cidfile", &cidfile.to_string_lossy(), "host"]);
    fs::remove_file(&cidfile)?;
    ensure!(made?.trim() == written?, "the id file");
    let again = again?;
    ensure!(
        again.code == Some(125) && again.stderr.contains("--cidfile"),
        "{again:?}"
    );
    let said = context.inspect("job")?;
    let cgroup = said["cgroup"].as_str().context("no cgroup")?.to_owned();
    ensure!(said["state"] == "created", "{said}");
    ensure!(
        cgroup_mounts()?
            .iter()
            .all(|(_, root)| !root.join(&cgroup).exists()),
        "one that was not started has a cgroup"
    );
    for runs in 1..=3 {
        let output = context.paddock(&["start", "-a", "job"])?;
        ensure!(
            output.code == Some(5) && output.stdout == "out\n" && output.stderr == "err\n",
            "{output:?}"
        );
        ensure!(scratch.times("starts")?.len() == runs);
    }
    let output = context.paddock(&["logs", "job"])?;
    ensure!(output.stdout == "out\n".repeat(3), "{output:?}");

    context.ok(&[
        "run", "-d", "--rm", "--name", "server", "host", "sleep", "60",
    ])?;
    let pid = |name: &str| Ok::<_, anyhow::Error>(context.inspect(name)?["pid"].as_i64());
    let first = pid("server")?.context("no pid")?;
    context.ok(&["restart", "-t", "0", "server"])?;
    let second = pid("server")?.context("removed by its restart")?;
    ensure!(first != second && fs::metadata(format!("/proc/{first}")).is_err());
    let line = fs::read(format!("/proc/{second}/cmdline"))?;
    ensure!(line == b"sleep\x0060\0", "{line:?}");
    // One that runs is started already.
    ensure!(context.ok(&["start", "server"])?.trim() == "server");
    ensure!(pid("server")? == Some(second));
    context.ok(&["stop", "-t", "0", "server"])?;
    eventually("--rm means the stop", || {
        Ok(context.paddock(&["inspect", "server"])?.code == Some(1))
    })?;
    for words in [
        &["start", "nobody"][..],
        &["restart", "nobody"],
        &["start", "-a", "job", "server"],
    ] {
        let output = context.paddock(words)?;
        ensure!(
            output.code == Some(1) && output.stderr.trim().lines().count() == 1,
            "{words:?}: {output:?}"
        );
    }
    Ok(())
}

/// What cannot be started again says so, keeps its last record, and leaves nothing.
fn failed_start_again(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let scratch = Scratch::new(context)?;
    let dir = context.state.with_extension("out");
    let program = dir.join("program");
    fs::copy(&context.workload, &program)?;
    let volume = scratch.volume();
    context.ok(&[
        "create",
        "--name",
        "gone",
        "-v",
        &volume,
        "host",
        "/out/program",
        "exit",
        "6",
    ])?;
    ensure!(context.paddock(&["start", "-a", "gone"])?.code == Some(6));
    fs::remove_file(&program)?;
    let output = context.paddock(&["start", "gone"])?;
    ensure!(
        output.code == Some(1) && output.stderr.contains("/out/program: command not found"),
        "{output:?}"
    );
    ensure!(context.paddock(&["start", "-a", "gone"])?.code == Some(127));
    let said = context.inspect("gone")?;
    let cgroup = said["cgroup"].as_str().context("no cgroup")?.to_owned();
    ensure!(
        said["state"] == "exited" && said["exit_code"] == 127,
        "{said}"
    );
    ensure!(
        cgroup_mounts()?
            .iter()
            .all(|(_, root)| !root.join(&cgroup).exists())
    );
    fs::copy(&context.workload, &program)?;
    ensure!(context.paddock(&["start", "-a", "gone"])?.code == Some(6));
    // A policy gives up what cannot be executed.
    let script = "rm /out/program; exit 1";
    context.ok(&[
        "create",
        "--name",
        "crash",
        "--restart",
        "always",
        "-v",
        &volume,
        "host",
        "/out/run",
    ])?;
    fs::write(
        dir.join("run"),
        format!("#!/bin/sh\n{}\n", script.replace("program", "run")),
    )?;
    fs::set_permissions(
        dir.join("run"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    context.ok(&["start", "crash"])?;
    eventually("it is given up", || is(context, "crash", "exited"))?;
    let said = context.inspect("crash")?;
    ensure!(
        said["exit_code"] == 127 && said["restart_count"] == 1,
        "{said}"
    );
    Ok(())
}
