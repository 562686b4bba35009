//! Devices that a policy forbids, on every kernel. Witnesses are the errors that opens and mknods
//! return.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Files;
use crate::{
    context::{Context, eventually},
    runner::Scenario,
    scenarios::{found::Cgroup, kernel::equal},
};

pub const ALL: &[Scenario] = &[
    Scenario::new("policy::device::by_number", by_number).alone(),
    Scenario::new("policy::device::found", found),
    Scenario::new("policy::device::killed_for_it", killed),
    Scenario::new("policy::device::so_many_and_no_more", too_many),
];

/// All of memory's but null; full may be made.
const DEVICES: &str = "name = \"parts\"\nmode = \"enforce\"\n\
    [[rule]]\nname = \"memory\"\ndevice = \"c 1:* rwm\"\n\
    [[rule]]\nname = \"null\"\neffect = \"allow\"\ndevice = \"c 1:3 rw\"\n\
    [[rule]]\nname = \"full\"\neffect = \"allow\"\ndevice = \"c 1:7 m\"\n\
    [[rule]]\nname = \"zero\"\nmode = \"audit\"\ndevice = \"c 1:5 r\"\n";

fn hits(context: &Context, container: &str, rule: &str, action: &str) -> Result<f64> {
    let labels = [
        ("container", container),
        ("policy", "parts"),
        ("rule", rule),
        ("action", action),
    ];
    super::hits(context, &labels)
}

/// What is tried, on what, how often, and how many of them are refused under the policy.
type Try<'a> = (&'a str, &'a str, u32, u32);

const TRIES: &[Try<'_>] = &[
    ("read", "/dev/null", 3, 0),
    ("write", "/dev/null", 5, 0),
    ("read", "/dev/zero", 7, 0),
    ("write", "/dev/zero", 11, 11),
    ("read", "/dev/full", 13, 13),
    ("both", "/dev/null", 17, 0),
    ("both", "/dev/zero", 19, 19),
    ("node", "/dev/paddock-node:1:7", 23, 0),
    ("node", "/dev/paddock-node:1:3", 29, 29),
];

fn script(workload: &str) -> String {
    let one = |(what, on, count, _): &Try<'_>| format!("{workload} try {what} {on} {count}");
    let all: Vec<_> = TRIES.iter().map(one).collect();
    all.join(" && ")
}

fn said(refused: impl Fn(u32) -> u32) -> String {
    let one = |(_, _, count, no): &Try<'_>| format!("{count} calls, {} refused\n", refused(*no));
    TRIES.iter().map(one).collect()
}

/// All that is refused, and what is counted in audit.
fn counts() -> (u32, u32) {
    let refused = TRIES.iter().map(|(.., no)| no).sum();
    let audited = TRIES
        .iter()
        .filter(|(what, on, ..)| (*what, *on) == ("read", "/dev/zero"))
        .map(|(_, _, count, _)| count)
        .sum();
    (refused, audited)
}

/// Launched, in the host's user namespace, where nodes can be made.
fn run(context: &Context, name: &str) -> Result<String> {
    let (volume, script) = (context.workload_volume(), script("/run/workload"));
    let output = context.paddock(&[
        "run", "--name", name, "--userns", "host", "-v", &volume, "host", "sh", "-c", &script,
    ])?;
    ensure!(output.code == Some(0), "{output:?}");
    Ok(output.stdout)
}

fn by_number(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    let (refused, audited) = counts();
    ensure!(run(context, "before")? == said(|_| 0));
    let file = files.write("parts.toml", DEVICES)?;
    context.ok(&["policy", "apply", &file])?;
    let held = run(context, "held")?;
    ensure!(held == said(|no| no), "{held}");
    equal("deny", hits(context, "held", "memory", "deny")?, refused)?;
    equal("zero", hits(context, "held", "zero", "audit")?, audited)?;
    let rules: Value = context.json(&["policy", "list", "parts", "--format", "json"])?;
    ensure!(
        rules["rules"][0]["means"]["cgroup"] == serde_json::json!(["device"]),
        "{rules}"
    );
    told(context, &files)?;

    // The agent is gone, and it is refused all the same.
    context.ok(&["run", "-d", "--name", "alone", "host", "sleep", "600"])?;
    context.kill_agent()?;
    context.start_agent(&["--detach-on-exit"])?;
    let held = run(context, "after")?;
    ensure!(held == said(|no| no), "{held}");
    equal("deny", hits(context, "after", "memory", "deny")?, refused)?;

    // Under audit the rule for zero alone would say nothing of its own.
    let (text, _) = DEVICES.rsplit_once("[[rule]]").context("rules")?;
    let file = files.write("parts.toml", text)?;
    context.ok(&["policy", "apply", "--mode", "audit", &file])?;
    let counted = run(context, "audited")?;
    ensure!(counted == said(|_| 0), "{counted}");
    let memory = hits(context, "audited", "memory", "audit")?;
    equal("audit", memory, refused + audited)?;
    context.ok(&["policy", "rm", "parts"])?;
    ensure!(run(context, "free")? == said(|_| 0));
    Ok(())
}

/// The event has it as a policy file would, of each device a few; `policy explain` says what to
/// write.
fn told(context: &Context, files: &Files) -> Result<()> {
    let text = context.events()?;
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == "denial" && event["container"] == "held")
        .collect();
    let of = |device: &str| events.iter().find(|event| event["device"] == device);
    for device in ["c 1:5 r", "c 1:5 w", "c 1:7 r", "c 1:3 m"] {
        ensure!(of(device).is_some(), "{device}: {text}");
    }
    let first = of("c 1:7 r").context("a denial")?;
    ensure!(
        first["activity"] == "device"
            && first["actor"]["exe"] == "paddock-workload"
            && first["actor"]["comm"] == "workload"
            && first["actor"]["uid"] == 0
            && first["actor"]["inner_pid"].as_i64() > Some(1),
        "{first}"
    );
    let id = first["id"].to_string();
    let told: Value = context.json(&["policy", "explain", &id, "--format", "json"])?;
    let lines = told["allow"][0]["lines"].as_str().context("no advice")?;
    ensure!(
        told["same"] == true && lines.contains("device = \"c 1:7 r\""),
        "{told}"
    );
    let more = files.write("more.toml", format!("{DEVICES}\n{lines}"))?;
    let report = context.ok(&["policy", "check", &more])?;
    ensure!(
        report.contains("reading character device 1:7: allowed"),
        "{report}"
    );
    let (parts, events) = (
        files.write("again.toml", DEVICES)?,
        files.write("events.jsonl", text)?,
    );
    let report: Value = context.json(&[
        "policy", "test", &parts, "--events", &events, "--format", "json",
    ])?;
    let rules: Vec<_> = report["rules"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|rule| (rule["rule"].as_str(), rule["succeeded"].as_u64() > Some(0)))
        .collect();
    ensure!(
        rules == [(Some("memory"), false), (Some("zero"), true)],
        "{report}"
    );
    Ok(())
}

fn found(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    let file = files.write("parts.toml", DEVICES)?;
    context.ok(&["policy", "apply", &file])?;
    let cgroup = Cgroup::new(5)?;
    let name = cgroup.id[..12].to_owned();
    eventually("it is found", || {
        Ok(context.ok(&["ps", "-a"])?.contains(&name))
    })?;
    let script = script(&context.workload.display().to_string());
    let output = cgroup.joined(&format!("sh -c '{script}'")).output()?;
    ensure!(output.stdout == said(|no| no).as_bytes(), "{output:?}");
    let (refused, audited) = counts();
    equal("deny", hits(context, &name, "memory", "deny")?, refused)?;
    equal("zero", hits(context, &name, "zero", "audit")?, audited)?;
    context.ok(&["policy", "rm", "parts"]).map(drop)
}

fn killed(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    let file = files.write(
        "parts.toml",
        "name = \"parts\"\nmode = \"enforce\"\n[[rule]]\nname = \"full\"\nreaction = \"kill\"\n\
         device = \"c 1:7\"\n",
    )?;
    context.ok(&["policy", "apply", &file])?;
    let volume = context.workload_volume();
    let tries = |name: &str, device: &str, count: &str| {
        context.paddock(&[
            "run",
            "--name",
            name,
            "-v",
            &volume,
            "host",
            "/run/workload",
            "try",
            "read",
            device,
            count,
        ])
    };
    // It goes on until it is dead.
    let output = tries("doomed", "/dev/full", "4294967295")?;
    ensure!(
        output.code == Some(137) && output.stdout.is_empty(),
        "{output:?}"
    );
    ensure!(hits(context, "doomed", "full", "kill")? > 0.5);
    let output = tries("spared", "/dev/zero", "7")?;
    ensure!(output.stdout == "7 calls, 0 refused\n", "{output:?}");
    context.ok(&["policy", "rm", "parts"]).map(drop)
}

fn too_many(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    let many = |count: u32| {
        let list: Vec<_> = (0..count).map(|minor| format!("\"c 9:{minor}\"")).collect();
        let list = list.join(",");
        format!("name = \"parts\"\n[[rule]]\ndevice = [{list}]\n")
    };
    let file = files.write("parts.toml", many(64))?;
    context.ok(&["policy", "apply", &file])?;
    context.ok(&["run", "-d", "--name", "one", "host", "sleep", "600"])?;
    let file = files.write("more.toml", many(65))?;
    let output = context.paddock(&["policy", "apply", &file])?;
    let want = format!(
        "paddock: {file}: not in force: policies that hold for one container name 65 devices, \
         more than 64; let rules name majors, as 'b 8:*', or fewer\n"
    );
    ensure!(
        output.code == Some(1) && output.stderr == want,
        "{output:?} instead of {want}"
    );
    context.ok(&["policy", "rm", "parts"]).map(drop)
}
