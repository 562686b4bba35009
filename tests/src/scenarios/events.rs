//! `paddock events` with its filters: what each leaves is what a reader of all would have picked.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{context::Context, runner::Scenario};

pub const ALL: &[Scenario] = &[
    Scenario::new("events::filters_pick_what_they_say", filters),
    Scenario::new("events::following_ends_in_time", following_ends),
];

fn read(context: &Context, words: &[&str]) -> Result<Vec<Value>> {
    let mut args = vec!["events", "--format", "json"];
    args.extend(words);
    let text = context.ok(&args)?;
    let events = text.lines().map(serde_json::from_str);
    Ok(events.collect::<Result<_, _>>()?)
}

fn filters(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let volume = context.workload_volume();
    let mut args = vec![
        "run",
        "--name",
        "talker",
        "--userns",
        "host",
        "--cap-add",
        "SYS_ADMIN",
    ];
    args.extend(["-v", &volume, "--memory", "64m", "host", "sh", "-c"]);
    args.push("/run/workload setns-loop /proc/self/ns/uts uts 7; tail /dev/zero; exit 3");
    ensure!(context.paddock(&args)?.code == Some(3));
    let all = read(context, &["--container", "talker"])?;
    let is = |event: &Value, key: &str, word: &str| event[key] == word;
    for (words, key, wanted) in [
        (["--kind", "oom_kill"], "event", &["oom_kill"][..]),
        (["--kind", "exec,exit"], "event", &["exec", "exit"]),
        (["--verdict", "benign"], "verdict", &["benign"]),
        (
            ["--verdict", "escape,escape_attempt"],
            "verdict",
            &["escape", "escape_attempt"],
        ),
    ] {
        let picked: Vec<_> = all
            .iter()
            .filter(|event| wanted.iter().any(|word| is(event, key, word)))
            .cloned()
            .collect();
        let told = read(context, &["--container", "talker", words[0], words[1]])?;
        ensure!(told == picked, "{words:?}: {told:?}, not {picked:?}");
    }
    let kills = read(context, &["--container", "talker", "--kind", "oom_kill"])?;
    ensure!(kills.len() == 1, "{kills:?}");
    // From the kill on, and up to it, to the nanosecond.
    let time = kills[0]["time_ns"].as_u64().context("no time")?;
    let at = format!("{}.{:09}", time / 1_000_000_000, time % 1_000_000_000);
    for (flag, after) in [("--since", true), ("--until", false)] {
        let picked: Vec<_> = all
            .iter()
            .filter(|event| {
                event["time_ns"]
                    .as_u64()
                    .is_some_and(|one| one == time || (one > time) == after)
            })
            .cloned()
            .collect();
        let told = read(context, &["--container", "talker", flag, &at])?;
        ensure!(told == picked, "{flag} {at}: {told:?}, not {picked:?}");
    }
    for (words, line) in [
        (
            ["--kind", "oom"],
            "paddock: no kind of event is called oom: container, ",
        ),
        (
            ["--verdict", "bad"],
            "paddock: no verdict is called bad: benign, ",
        ),
    ] {
        let refused = context.paddock(&["events", words[0], words[1]])?;
        ensure!(
            refused.code == Some(1)
                && refused.stderr.starts_with(line)
                && refused.stderr.lines().count() == 1,
            "{refused:?}"
        );
    }
    context.ok(&["rm", "talker"]).map(drop)
}

fn following_ends(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let end = (now + Duration::from_secs(3)).as_secs().to_string();
    let began = Instant::now();
    context.ok(&["events", "--follow", "--until", &end])?;
    let took = began.elapsed();
    ensure!(took >= Duration::from_secs(1), "it ended after {took:?}");
    Ok(())
}
