//! Policies in force: setns refused by its target, whatever happens to the agent meanwhile.

use std::{fs, io::Read as _, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Files;
use crate::{
    context::{Context, eventually},
    runner::Scenario,
    scenarios::kernel::{able, equal, host_way, served},
};

pub const ALL: &[Scenario] = &[
    Scenario::new("policy::setns_is_judged_by_target", by_target).alone(),
    Scenario::new("policy::one_that_never_stops", never_stops).alone(),
    Scenario::new("policy::what_cannot_be_read_stays_in_force", unread).alone(),
    Scenario::new("policy::wrong_ones_leave_what_is_in_force", wrong),
];

/// Only the joining: the file of the namespace may be opened.
pub(super) const WALLS: &str = "name = \"walls\"\nmode = \"enforce\"\n\
    [[rule]]\nname = \"joining\"\nnamespace = { target = [\"host\", \"peer\"] }\n";

/// Whether the kernel asks its security modules before the act.
pub(crate) fn asks(context: &Context) -> Result<bool> {
    served(context, "enforce", "lsm")
}

/// Whether setns is refused before it happens; where not, who did it is killed.
pub(super) fn refuses(context: &Context) -> Result<bool> {
    Ok(asks(context)? || served(context, "question", "seccomp")?)
}

pub(super) fn hits(context: &Context, container: &str, action: &str) -> Result<f64> {
    let labels = [
        ("container", container),
        ("policy", "walls"),
        ("rule", "joining"),
        ("action", action),
    ];
    super::hits(context, &labels)
}

/// Its own it may join, the host's not; in audit it may, and that is counted.
fn by_target(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (asks, refuses) = (asks(context)?, refuses(context)?);
    let files = Files::new()?;
    let policy = files.write("walls.toml", WALLS)?;
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let joins = |name: &str, path: &str| {
        let mut args = able(name, &[&volume, &way]);
        args.extend(["/run/workload", "setns-loop", path, "uts", "7"]);
        context.paddock(&args)
    };
    // By the kernel's own file system: a link that nobody has hangs nowhere.
    let hangs = || context.state.join("bpf/link_lsm_capable").exists();
    ensure!(!hangs(), "a hook hangs without a policy");
    context.ok(&["policy", "apply", &policy])?;
    ensure!(hangs() == asks, "it does not hang as it should");
    let own = joins("own", "/proc/self/ns/uts")?;
    ensure!(
        own.stdout == "7 calls, 0 refused\n" && own.code == Some(0),
        "{own:?}"
    );
    let host = joins("intruder", "/run/ns")?;
    let (action, want) = if refuses { ("deny", 7) } else { ("kill", 1) };
    let said = if refuses { "7 calls, 7 refused\n" } else { "" };
    let code = if refuses { 0 } else { 137 };
    ensure!(host.stdout == said && host.code == Some(code), "{host:?}");
    equal(action, hits(context, "intruder", action)?, want)?;

    context.ok(&["policy", "mode", "walls", "audit"])?;
    let shown = context.ok(&["policy", "show", "walls"])?;
    let head = "# in force: mode audit (said in place of the file), when_unenforceable fail\n# holds for: ";
    ensure!(
        shown.starts_with(head) && shown.ends_with(&format!("\n{WALLS}")),
        "{shown}"
    );
    let audited = joins("audited", "/run/ns")?;
    ensure!(audited.stdout == "7 calls, 0 refused\n", "{audited:?}");
    equal("audit", hits(context, "audited", "audit")?, 7)?;
    let all: Value = context.json(&["policy", "list", "walls", "--format", "json"])?;
    let rule = &all["rules"][0];
    ensure!(
        rule["denied"] == want && rule["would_deny"] == 7 && rule["mode"] == "audit",
        "{all}"
    );

    explained(context, &files)?;

    context.ok(&["policy", "rm", "walls"])?;
    ensure!(!hangs(), "a hook hangs on");
    let free = joins("free", "/run/ns")?;
    ensure!(free.stdout == "7 calls, 0 refused\n", "{free:?}");
    equal("hits", hits(context, "free", "audit")?, 0)
}

/// A denial of then beside what is in force now; what is advised lets the kernel let it pass.
fn explained(context: &Context, files: &Files) -> Result<()> {
    let events = context.events()?;
    let mut events = events
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let denial =
        events.find(|event: &Value| event["event"] == "denial" && event["container"] == "intruder");
    let id = denial.context("no denial on record")?["id"].to_string();
    let told: Value = context.json(&["policy", "explain", &id, "--format", "json"])?;
    let first = &told["rules"][0];
    ensure!(
        first["policy"] == "walls" && first["rule"] == "joining" && first["why"] == "decides",
        "{told}"
    );
    // It was denied, and audit is in force by now.
    ensure!(
        first["action"] == "audit" && told["same"] == false,
        "{told}"
    );
    let lines = told["allow"][0]["lines"].as_str().context("no advice")?;
    ensure!(
        lines.contains("namespace = { type = [\"uts\"], target = [\"host\"] }"),
        "{told}"
    );
    let policy = files.write("open.toml", format!("{WALLS}\n{lines}"))?;
    context.ok(&["policy", "apply", &policy])?;
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let mut args = able("allowed", &[&volume, &way]);
    args.extend(["/run/workload", "setns-loop", "/run/ns", "uts", "7"]);
    let allowed = context.ok(&args)?;
    ensure!(allowed == "7 calls, 0 refused\n", "{allowed}");
    let told = context.ok(&["policy", "explain", &id])?;
    ensure!(
        told.contains("\nnow: allowed, by walls/allow-host, not as then\n"),
        "{told}"
    );

    let unknown = context.paddock(&["policy", "explain", "4000000000"])?;
    let line = "paddock: no event 4000000000: there was none, or it is not kept any more\n";
    ensure!(
        unknown.code == Some(1) && unknown.stderr == line,
        "{unknown:?}"
    );
    let other = context.paddock(&["policy", "explain", "1"])?;
    ensure!(
        other.code == Some(1)
            && other
                .stderr
                .starts_with("paddock: event 1 is no act that policies judge"),
        "{other:?}"
    );
    Ok(())
}

/// Through kills of the agent, restarts and swaps of the policy: not one success.
fn never_stops(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let refuses = refuses(context)?;
    let files = Files::new()?;
    let policy = files.write("walls.toml", WALLS)?;
    let other = WALLS.replace("[[rule]]", "deny = [\"sysrq\"]\n[[rule]]");
    let other = files.write("other.toml", other)?;
    context.ok(&["policy", "apply", &policy])?;
    let flags = context.state.with_extension("flags");
    fs::create_dir(&flags)?;
    let (volume, way, flag) = (
        context.workload_volume(),
        host_way("uts"),
        format!("{}:/flags", flags.display()),
    );
    let mut args = able("attacker", &[&volume, &way, &flag]);
    args.insert(1, "-d");
    let script =
        "while ! test -e /flags/end; do /run/workload setns-loop /run/ns uts 50; echo $?; done";
    args.extend(["sh", "-c", script]);
    context.ok(&args)?;
    for round in 0..20_u64 {
        context.kill_agent()?;
        thread::sleep(pause()?);
        context.start_agent(&[])?;
        let next = if round % 2 == 0 { &other } else { &policy };
        context.ok(&["policy", "apply", next])?;
        context.stop_agent()?;
        context.start_agent(&[])?;
    }
    fs::write(flags.join("end"), "")?;
    eventually("it has ended", || {
        Ok(context.inspect("attacker")?["state"] == "exited")
    })?;
    let log = context.ok(&["logs", "attacker"])?;
    let tries = log.lines().filter(|line| *line == "0" || *line == "137");
    let tries = u32::try_from(tries.count())?;
    ensure!(tries > 100, "{tries} tries");
    let (each, action) = if refuses { (50, "deny") } else { (1, "kill") };
    let want: Vec<&str> = if refuses {
        vec!["50 calls, 50 refused", "0"]
    } else {
        vec!["137"]
    };
    let mut lines = log.lines();
    // A shell says of a kill what it is.
    let mut said = lines.by_ref().filter(|line| !line.starts_with("Killed"));
    for _ in 0..tries {
        for want in &want {
            let line = said.next().context("a line is missing")?;
            ensure!(line == *want, "{line} instead of {want}");
        }
    }
    equal(action, hits(context, "attacker", action)?, tries * each)?;
    fs::remove_dir_all(&flags)?;
    context.ok(&["policy", "rm", "walls"]).map(drop)
}

/// Up to 32 ms, another one each time: no interval of the attacker's is met for ever.
fn pause() -> Result<Duration> {
    let mut byte = [0];
    fs::File::open("/dev/urandom")?.read_exact(&mut byte)?;
    Ok(Duration::from_micros(u64::from(byte[0]) * 125))
}

/// The agent dies, and what it kept is spoilt: its container is held all the same.
fn unread(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let (refuses, files) = (refuses(context)?, Files::new()?);
    let policy = files.write("walls.toml", WALLS)?;
    context.ok(&["policy", "apply", &policy])?;
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let mut args = able("held", &[&volume, &way]);
    args.insert(1, "-d");
    args.extend(["sleep", "600"]);
    context.ok(&args)?;
    context.kill_agent()?;
    fs::write(context.state.join("policies/walls.toml"), "spoilt")?;
    context.start_agent(&[])?;
    ensure!(context.ok(&["policy", "list", "--format", "json"])? == "[]\n");
    let join = [
        "exec",
        "held",
        "/run/workload",
        "setns-loop",
        "/run/ns",
        "uts",
        "7",
    ];
    let held = context.paddock(&join)?;
    let (said, code) = if refuses {
        ("7 calls, 7 refused\n", 0)
    } else {
        ("", 137)
    };
    ensure!(held.stdout == said && held.code == Some(code), "{held:?}");
    // Whoever says anew what holds has said it.
    context.ok(&["policy", "apply", &policy])?;
    context.ok(&["policy", "rm", "walls"])?;
    let free = context.paddock(&join)?;
    ensure!(free.stdout == "7 calls, 0 refused\n", "{free:?}");
    Ok(())
}

fn wrong(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    let good = files.write("walls.toml", WALLS)?;
    context.ok(&["policy", "apply", &good])?;
    let before = context.ok(&["policy", "list", "--format", "json"])?;
    let refused = |text: &str, line: &str| -> Result<()> {
        let file = files.write("next.toml", text)?;
        let output = context.paddock(&["policy", "apply", &file])?;
        let want = format!("paddock: {file}: not in force: {line}\n");
        ensure!(
            output.code == Some(1) && output.stderr == want && output.stdout.is_empty(),
            "{output:?} instead of {want}"
        );
        ensure!(context.ok(&["policy", "list", "--format", "json"])? == before);
        // Asked before, it says the same.
        let output = context.paddock(&["policy", "check", &file])?;
        let end = format!("\n  here: `policy apply` refuses it: {line}\n");
        ensure!(
            output.code == Some(0) && output.stderr.is_empty() && output.stdout.ends_with(&end),
            "{output:?} instead of {end}"
        );
        Ok(())
    };
    refused(
        "name = \"walls\"\n[[rule]]\nname = \"out\"\nnetwork = { direction = \"ingress\", protocol = \"other\" }\n",
        "walls: out: network of protocol other cannot be seen here; leave the rule out",
    )?;
    if !asks(context)? {
        let output = context.paddock(&["policy", "apply", "--mode", "enforce", "pack:escape"])?;
        let begins = "paddock: pack:escape: not in force: escape: mount-outside: this kernel cannot keep mount, move_mount";
        ensure!(
            output.code == Some(1) && output.stderr.starts_with(begins),
            "{output:?}"
        );
    }
    for none in [
        &["mode", "none", "enforce"][..],
        &["rm", "none"],
        &["show", "none"],
    ] {
        let output = context.paddock(&[&["policy"], none].concat())?;
        ensure!(
            output.code == Some(1) && output.stderr == "paddock: no policy 'none' is in force\n",
            "{output:?}"
        );
    }
    context.ok(&["policy", "rm", "walls"]).map(drop)
}
