//! `paddock ns` and `ns enter`, against what procfs and the cgroups say.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::namespaces::{link, pid};
use crate::{context::Context, runner::Scenario};

pub const ALL: &[Scenario] = &[
    Scenario::new("ns::lists_whose_they_are", lists_whose_they_are),
    Scenario::new("ns::works_without_an_agent", works_without_an_agent).alone(),
    Scenario::new("ns::enter_is_nsenter", enter_is_nsenter),
];

const TYPES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// `net:[4026531840]`.
fn named(entry: &Value) -> Result<String> {
    let kind = entry["namespace"].as_str().context("no type")?;
    let inode = entry["inode"].as_u64().context("no inode")?;
    Ok(format!("{kind}:[{inode}]"))
}

fn list(context: &Context, flags: &[&str]) -> Result<Vec<Value>> {
    let args = [&["ns", "--format", "json"][..], flags].concat();
    let all = context.json(&args)?;
    Ok(all.as_array().context("no list")?.clone())
}

fn lists_whose_they_are(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let script = "sleep 600 & sleep 600 & exec sleep 600";
    context.ok(&["run", "-d", "--name", "three", "host", "sh", "-c", script])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "guest",
        "--network",
        "container:three",
        "--userns",
        "container:three",
        "host",
        "sleep",
        "600",
    ])?;
    let (three, guest) = (pid(context, "three")?, pid(context, "guest")?);
    crate::context::eventually("three processes", || {
        let all = list(context, &["--container", "three", "--type", "pid"])?;
        Ok(all.iter().any(|entry| entry["processes"] == 3))
    })?;
    let all = list(context, &[])?;
    for kind in TYPES {
        let find = |name: &str| -> Result<&Value> {
            let found = all
                .iter()
                .find(|entry| named(entry).is_ok_and(|one| one == name));
            found.with_context(|| format!("{name} is not listed"))
        };
        // The host's are the test's own.
        let host = link("self", kind)?;
        ensure!(find(&host)?["owner"] == "host", "{host}");
        let one = link(&three, kind)?;
        let entry = find(&one)?;
        let (owner, processes, containers): (&str, u64, &[&str]) = match kind {
            "time" => continue,
            "net" | "user" => ("shared", 4, &["guest", "three"]),
            _ => ("own", 3, &["three"]),
        };
        ensure!(
            entry["owner"] == owner
                && entry["processes"] == processes
                && entry["containers"] == serde_json::json!(containers),
            "{kind}: {entry}"
        );
        let same = link(&guest, kind)? == one;
        ensure!(same == (owner == "shared"), "{kind} of the guest");
    }
    let only = list(context, &["--container", "guest", "--type", "net,uts"])?;
    ensure!(only.len() == 2, "{only:?}");
    Ok(())
}

fn works_without_an_agent(context: &Context) -> Result<()> {
    let table = context.ok(&["ns", "--type", "uts"])?;
    let host = link("self", "uts")?;
    let inode = host.trim_start_matches("uts:[").trim_end_matches(']');
    let line = table.lines().find(|line| line.contains(inode));
    ensure!(line.is_some_and(|line| line.contains("host")), "{table}");
    ensure!(
        !context.state.join("paddock.sock").exists(),
        "an agent was started"
    );
    let output = context.paddock(&["ns", "--type", "nets"])?;
    ensure!(
        output.code == Some(1) && output.stderr.lines().count() == 1,
        "{output:?}"
    );
    Ok(())
}

fn enter_is_nsenter(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "one", "host", "sleep", "600"])?;
    let one = pid(context, "one")?;
    let show = "for n in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$n; done";
    for target in ["one", &one] {
        let said = context.ok(&["ns", "enter", target, "sh", "-c", show])?;
        for (line, kind) in said.lines().zip(TYPES) {
            ensure!(line == link(&one, kind)?, "{target}: {line}");
        }
        ensure!(said.lines().count() == 8, "{said}");
    }
    let said = context.ok(&["ns", "enter", "--type", "net,uts", "one", "sh", "-c", show])?;
    for (line, kind) in said.lines().zip(TYPES) {
        let whose = if ["net", "uts"].contains(&kind) {
            &*one
        } else {
            "self"
        };
        ensure!(line == link(whose, kind)?, "{kind}: {line}");
    }
    for (args, code) in [
        (&["one", "sh", "-c", "exit 19"][..], 19),
        (&["one", "no-such-command"], 127),
        (&["one", "/etc"], 126),
        (&["nobody"], 1),
        (&["999999999"], 1),
    ] {
        let output = context.paddock(&[&["ns", "enter"][..], args].concat())?;
        ensure!(
            output.code == Some(code) && output.stderr.lines().count() <= 1,
            "{args:?}: {output:?}"
        );
    }
    Ok(())
}
