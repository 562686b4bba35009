//! `paddock policy test`: policies against what the agent recorded.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Files;
use crate::{
    context::Context,
    runner::Scenario,
    scenarios::kernel::{able, host_way},
};

pub const ALL: &[Scenario] = &[
    Scenario::new("policy::recorded_events_are_judged", judged),
    Scenario::new("policy::what_it_did_is_learned", learned),
    Scenario::new("policy::wrong_records_are_told_by_line", wrong),
];

const POLICY: &str = "name = \"walls\"\nmode = \"enforce\"\ndeny = [\"namespace-escape\"]\n\
    select = { name = \"borer-*\", image = \"alpine\" }\n\
    [[rule]]\nname = \"helper\"\nexec = \"/run\"\nreaction = \"kill\"\n\
    [[rule]]\nname = \"out\"\nnetwork = { direction = \"egress\" }\n";

/// The workload opens the namespace's file once and joins seven times, in both containers.
fn judged(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    for name in ["borer-1", "other"] {
        let mut args = able(name, &[&volume, &way]);
        args.extend(["/run/workload", "setns-loop", "/run/ns", "uts", "7"]);
        context.ok(&args)?;
    }
    let files = Files::new()?;
    let events = context.events()?;
    let first = |kinds: &[&str]| {
        let mut lines = events
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let found = lines.find(|event: &Value| {
            let told = [&event["event"], &event["activity"]];
            let of_kind = |one: &&Value| one.as_str().is_some_and(|one| kinds.contains(&one));
            event["container"] == "borer-1" && told.iter().any(of_kind)
        });
        found.map_or(Value::Null, |event| event["id"].clone())
    };
    let recorded = files.write("events.jsonl", &events)?;
    let policy = files.write("walls.toml", POLICY)?;

    let report: Value = context.json(&[
        "policy", "test", &policy, "--events", &recorded, "--format", "json",
    ])?;
    let want = json!([
        {
            "policy": "walls", "rule": "helper", "action": "kill", "attempts": 1, "succeeded": 1,
            "containers": ["borer-1"], "first_event": first(&["exec"])
        },
        {
            "policy": "walls", "rule": "namespace-escape", "action": "deny", "attempts": 8,
            "succeeded": 8, "containers": ["borer-1"], "first_event": first(&["namespace_call", "proc_ns"])
        },
    ]);
    ensure!(report["rules"] == want, "{report} instead of {want}");
    ensure!(
        report["not_judged"] == json!(["select.image", "network, but for denials"])
            && report["not_understood"] == 0,
        "{report}"
    );

    let table = context.ok(&["policy", "test", &policy, "--events", &recorded])?;
    ensure!(
        table.starts_with("POLICY  RULE")
            && table.ends_with(
                "not judged, since events do not say it: select.image, network, but for denials\n"
            ),
        "{table}"
    );
    // What a policy selects nothing of is forbidden nothing.
    let policy = files.write("walls.toml", POLICY.replace("borer-*", "none"))?;
    let table = context.ok(&["policy", "test", &policy, "--events", &recorded])?;
    ensure!(
        table.starts_with("of ") && table.contains(" events none is forbidden\n"),
        "{table}"
    );
    Ok(())
}

/// What it did stays open to it, and nothing else does.
fn learned(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let runs = |script: &str| {
        let mut args = able("borer", &[&volume, &way]);
        args.insert(1, "--rm");
        args.extend(["sh", "-c", script]);
        context.paddock(&args)
    };
    let usual = "unshare -u true && /run/workload setns-loop /run/ns uts 7";
    let free = "7 calls, 0 refused\n";
    let first = runs(usual)?;
    ensure!(first.stdout == free, "{first:?}");
    // A program that it brought along is not its usual.
    let more = "cp /bin/true /tmp/true && /tmp/true && echo more";
    let text = context.ok(&["policy", "learn", "borer"])?;
    ensure!(
        text.contains("setns uts=host, an escape, 7 times"),
        "{text}"
    );
    let files = Files::new()?;
    let policy = files.write("learned.toml", &text)?;
    context.ok(&["policy", "check", &policy])?;
    let recorded = context.ok(&["events", "--container", "borer", "--format", "json"])?;
    let recorded = files.write("events.jsonl", recorded)?;
    let report = context.ok(&["policy", "test", &policy, "--events", &recorded])?;
    ensure!(report.contains(" events none is forbidden\n"), "{report}");

    let apply = ["policy", "apply", "--mode", "enforce"];
    context.ok(&[&apply[..], &["--when-unenforceable", "audit", &policy]].concat())?;
    let usual = runs(usual)?;
    ensure!(usual.stdout == free && usual.code == Some(0), "{usual:?}");
    let other = runs(more)?;
    ensure!(
        other.stdout.is_empty() && other.code != Some(0),
        "{other:?}"
    );
    context.ok(&["policy", "rm", "learned-borer"])?;
    let open = runs(more)?;
    ensure!(open.stdout == "more\n", "{open:?}");
    let unknown = context.paddock(&["policy", "learn", "nobody"])?;
    ensure!(
        unknown.code == Some(1)
            && unknown.stderr == "paddock: no events of nobody: nothing to learn from\n",
        "{unknown:?}"
    );
    Ok(())
}

fn wrong(context: &Context) -> Result<()> {
    let files = Files::new()?;
    let newer = "{\"event\":\"teleport\"}\n";
    let recorded = files.write("events.jsonl", format!("{newer}TIME CONTAINER\n"))?;
    let test =
        |events: &str| context.paddock(&["policy", "test", "pack:escape", "--events", events]);
    let output = test(&recorded)?;
    let line =
        format!("paddock: {recorded}:2: not an event; record with `paddock events --format json`");
    ensure!(
        output.code == Some(1) && output.stdout.is_empty() && output.stderr.starts_with(&line),
        "{output:?}"
    );
    let recorded = files.write("events.jsonl", newer)?;
    let output = test(&recorded)?;
    ensure!(
        output.code == Some(0)
            && output.stdout == "of 0 events none is forbidden\nnot understood: 1 lines\n",
        "{output:?}"
    );
    let missing = format!("{recorded}.none");
    let output = test(&missing)?;
    let line = format!("paddock: {missing}: cannot open: No such file or directory\n");
    ensure!(
        output.code == Some(1) && output.stderr == line,
        "{output:?}"
    );
    Ok(())
}
