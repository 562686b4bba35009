//! Capabilities that a policy forbids, where the kernel asks its security modules. Witnesses are
//! the errors that calls return, and what procfs shows.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Files, enforced};
use crate::{
    context::{Context, eventually},
    runner::Scenario,
    scenarios::{found::Cgroup, kernel::equal},
};

pub const ALL: &[Scenario] = &[
    Scenario::new("policy::capability::by_name", by_name),
    Scenario::new("policy::capability::found_and_killed", found_and_killed),
    Scenario::new("policy::capability::a_look_is_no_use", look),
    Scenario::new("policy::capability::a_server_under_hardened", hardened),
];

/// Whether the kernel asks; where not, such a policy is refused with these words.
fn asks(context: &Context, files: &Files) -> Result<bool> {
    if enforced::asks(context)? {
        return Ok(true);
    }
    let check: Value = context.json(&["check", "--format", "json"])?;
    let all = check["capabilities"].as_array().context("capabilities")?;
    let enforce = all.iter().find(|one| one["capability"] == "enforce");
    let refused = &enforce.context("enforce")?["refused"][0];
    let reason = refused["reason"].as_str().context("a reason")?;
    let file = files.write("uses.toml", USES)?;
    let output = context.paddock(&["policy", "apply", &file])?;
    let want = format!(
        "paddock: {file}: not in force: uses: roots: capability cannot be seen here (lsm: {reason}); \
         leave the rule out: launched containers are without by `paddock run --cap-drop`\n"
    );
    ensure!(
        output.code == Some(1) && output.stderr == want,
        "{output:?} instead of {want}"
    );
    Ok(false)
}

const USES: &str = "name = \"uses\"\nmode = \"enforce\"\n\
    [[rule]]\nname = \"roots\"\ncapability = [\"SYS_CHROOT\", \"CAP_SYS_ADMIN\"]\n";

fn hits(context: &Context, container: &str, rule: &str, action: &str) -> Result<f64> {
    let labels = [
        ("container", container),
        ("policy", "uses"),
        ("rule", rule),
        ("action", action),
    ];
    super::hits(context, &labels)
}

/// A container's `try chroot` and `try hostname`, and what they said.
fn tries(context: &Context, name: &str, userns: &str, chroots: u32, names: u32) -> Result<String> {
    let volume = context.workload_volume();
    let script = format!(
        "/run/workload try chroot / {chroots} && /run/workload try hostname {name} {names}"
    );
    let output = context.paddock(&[
        "run",
        "--name",
        name,
        "--userns",
        userns,
        "--cap-add",
        "SYS_ADMIN",
        "-v",
        &volume,
        "host",
        "sh",
        "-c",
        &script,
    ])?;
    ensure!(output.code == Some(0), "{output:?}");
    Ok(output.stdout)
}

/// In the container's own user namespace as in the host's, with an exception from a wider rule, and
/// in audit.
fn by_name(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    if !asks(context, &files)? {
        return Ok(());
    }
    let file = files.write("uses.toml", USES)?;
    context.ok(&["policy", "apply", &file])?;
    for (name, userns) in [("own", "private"), ("hosts", "host")] {
        let said = tries(context, name, userns, 7, 11)?;
        ensure!(
            said == "7 calls, 7 refused\n11 calls, 11 refused\n",
            "{said}"
        );
        equal(name, hits(context, name, "roots", "deny")?, 7 + 11)?;
    }
    let rules: Value = context.json(&["policy", "list", "uses", "--format", "json"])?;
    ensure!(
        rules["rules"][0]["means"]["lsm"] == serde_json::json!(["capability"]),
        "{rules}"
    );
    explained(context, &files)?;

    context.ok(&["policy", "mode", "uses", "audit"])?;
    let said = tries(context, "audited", "private", 7, 11)?;
    ensure!(
        said == "7 calls, 0 refused\n11 calls, 0 refused\n",
        "{said}"
    );
    equal("audit", hits(context, "audited", "roots", "audit")?, 7 + 11)?;

    let text = "name = \"uses\"\nmode = \"enforce\"\n\
        [[rule]]\nname = \"every\"\ncapability = \"ALL\"\n\
        [[rule]]\nname = \"names\"\neffect = \"allow\"\ncapability = \"SYS_ADMIN\"\n";
    let file = files.write("uses.toml", text)?;
    context.ok(&["policy", "apply", &file])?;
    for (name, userns) in [("except", "private"), ("except-hosts", "host")] {
        let said = tries(context, name, userns, 13, 17)?;
        ensure!(
            said == "13 calls, 13 refused\n17 calls, 0 refused\n",
            "{said}"
        );
        equal(name, hits(context, name, "every", "deny")?, 13)?;
        // overlayfs works with the capabilities of who mounted it: what is below stays hidden.
        let lower = format!("/paddock-lower-{}", std::process::id());
        fs::create_dir(&lower)?;
        fs::write(format!("{lower}/file"), "")?;
        let script =
            format!("ls {lower} && rm -r {lower} && mkdir {lower} && ls -A {lower} | wc -l");
        let output = context.paddock(&[
            "run", "--rm", "--userns", userns, "host", "sh", "-c", &script,
        ]);
        fs::remove_dir_all(&lower)?;
        let output = output?;
        ensure!(output.stdout == "file\n0\n", "{output:?}");
    }
    context.ok(&["policy", "rm", "uses"])?;
    let said = tries(context, "free", "private", 3, 5)?;
    ensure!(said == "3 calls, 0 refused\n5 calls, 0 refused\n", "{said}");
    Ok(())
}

/// The event names it, `policy explain` says what allows it, `policy test` judges it.
fn explained(context: &Context, files: &Files) -> Result<()> {
    let events = context.events()?;
    let denial = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["event"] == "denial" && event["container"] == "own");
    let denial = denial.context("no denial on record")?;
    ensure!(
        denial["activity"] == "capability"
            && denial["capability"] == "CAP_SYS_CHROOT"
            && denial["actor"]["exe"] == "paddock-workload",
        "{denial}"
    );
    let id = denial["id"].to_string();
    let told = context.ok(&["policy", "explain", &id])?;
    ensure!(
        told.contains("capability CAP_SYS_CHROOT by ")
            && told.contains("\nnow: denied, by uses/roots, as then\n"),
        "{told}"
    );
    let other = files.write(
        "other.toml",
        "name = \"other\"\nmode = \"enforce\"\n[[rule]]\nname = \"jails\"\ncapability = \"SYS_CHROOT\"\n",
    )?;
    let events = files.write("events.jsonl", events)?;
    let report: Value = context.json(&[
        "policy", "test", &other, "--events", &events, "--format", "json",
    ])?;
    ensure!(
        report["rules"][0]["rule"] == "jails" && report["rules"][0]["succeeded"] == 0,
        "{report}"
    );
    Ok(())
}

fn found_and_killed(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    if !asks(context, &files)? {
        return Ok(());
    }
    let file = files.write("uses.toml", USES)?;
    context.ok(&["policy", "apply", &file])?;
    let found = Cgroup::new(3)?;
    let name = found.id[..12].to_owned();
    eventually("it is found", || {
        Ok(context.ok(&["ps", "-a"])?.contains(&name))
    })?;
    let workload = context.workload.display().to_string();
    let command = format!("{workload} try chroot / 7");
    let output = found.joined(&command).output()?;
    ensure!(output.stdout == b"7 calls, 7 refused\n", "{output:?}");
    equal("deny", hits(context, &name, "roots", "deny")?, 7)?;

    let text = USES.replace("[[rule]]", "[[rule]]\nreaction = \"kill\"");
    let file = files.write("uses.toml", text)?;
    context.ok(&["policy", "apply", &file])?;
    let volume = context.workload_volume();
    let output = context.paddock(&[
        "run",
        "--name",
        "doomed",
        "-v",
        &volume,
        "host",
        "/run/workload",
        "try",
        "chroot",
        "/",
        "7",
    ])?;
    ensure!(
        output.code == Some(137) && output.stdout.is_empty(),
        "{output:?}"
    );
    equal("kill", hits(context, "doomed", "roots", "kill")?, 1)?;
    context.ok(&["policy", "rm", "uses"]).map(drop)
}

/// /proc/PID/stat shows less to who may not trace: refused where it is enforced, and never counted.
fn look(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    if !asks(context, &files)? {
        return Ok(());
    }
    let text = "name = \"uses\"\nmode = \"enforce\"\n\
        [[rule]]\nname = \"tracing\"\ncapability = \"SYS_PTRACE\"\n";
    let file = files.write("uses.toml", text)?;
    let volume = context.workload_volume();
    let looks = |name: &str| {
        context.ok(&[
            "run",
            "--name",
            name,
            "--cap-add",
            "SYS_PTRACE",
            "-v",
            &volume,
            "host",
            "/run/workload",
            "look",
            "7",
        ])
    };
    let free = looks("free")?;
    ensure!(free == "7 looks, 7 shown\n", "{free}");
    context.ok(&["policy", "apply", &file])?;
    let kept = looks("kept")?;
    ensure!(kept == "7 looks, 0 shown\n", "{kept}");
    equal("deny", hits(context, "kept", "tracing", "deny")?, 0)?;
    context.ok(&["policy", "mode", "uses", "audit"])?;
    let audited = looks("audited")?;
    ensure!(audited == "7 looks, 7 shown\n", "{audited}");
    equal("audit", hits(context, "audited", "tracing", "audit")?, 0)?;
    context.ok(&["policy", "rm", "uses"]).map(drop)
}

/// A port below 1024, a file given away, another user: nothing that the pack forbids.
fn hardened(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    if !asks(context, &files)? {
        return Ok(());
    }
    context.ok(&[
        "policy",
        "apply",
        "--mode",
        "enforce",
        "--when-unenforceable",
        "audit",
        "pack:hardened",
    ])?;
    let volume = context.workload_volume();
    for (name, userns) in [("server", "private"), ("server-hosts", "host")] {
        let script = "/run/workload serve 80 65534 /tmp/pid 5 & sleep 1; \
             /run/workload talk tcp 127.0.0.1 80 5; wait; cat /tmp/pid; stat -c %u /tmp/pid";
        let output = context.paddock(&[
            "run", "--name", name, "--userns", userns, "-v", &volume, "host", "sh", "-c", script,
        ])?;
        let said = output.stdout.as_str();
        ensure!(
            output.code == Some(0)
                && said.contains("5 calls, 0 refused\n")
                && said.contains("served 5 as 65534\n")
                && said.ends_with("served65534\n"),
            "{output:?}"
        );
    }
    let list: Value = context.json(&["policy", "list", "hardened", "--format", "json"])?;
    let rules = list["rules"].as_array().context("rules")?;
    let hit = |rule: &&Value| rule["denied"] != 0 || rule["would_deny"] != 0;
    let hit: Vec<_> = rules.iter().filter(hit).collect();
    ensure!(hit.is_empty() && rules.len() > 30, "{hit:?}");
    // And what it does forbid is refused.
    let volume = context.workload_volume();
    let output = context.ok(&[
        "run",
        "--rm",
        "--cap-add",
        "SYS_ADMIN",
        "-v",
        &volume,
        "host",
        "/run/workload",
        "try",
        "hostname",
        "x",
        "7",
    ])?;
    ensure!(output == "7 calls, 7 refused\n", "{output}");
    context.ok(&["policy", "rm", "hardened"]).map(drop)
}
