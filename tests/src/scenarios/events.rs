//! `paddock events` with its filters: what each leaves is what a reader of all would have picked.

pub mod otlp;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    context::{Context, eventually},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("events::filters_pick_what_they_say", filters),
    Scenario::new("events::following_ends_in_time", following_ends),
    Scenario::new("events::a_follower_goes_on_over_killed_agents", goes_on).alone(),
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

/// What the workload counts to, in three steps.
const STEPS: [u64; 3] = [70, 140, 211];

/// The container numbers its programs; each number is an exec. A prime of them is followed over a
/// kill of the agent while nothing happens, and over one in the midst of it.
fn goes_on(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let gate = context.state.with_extension("gate");
    fs::create_dir(&gate)?;
    let seen = context.state.with_extension("seen");
    let mut follower = context
        .command(&["events", "--follow", "--format", "json"])
        .args(["--container", "numbered", "--kind", "exec"])
        .stdin(Stdio::null())
        .stdout(File::create(&seen)?)
        .stderr(File::create(gate.join("stderr"))?)
        .spawn()?;
    let done = count_over_kills(context, &gate, &seen, &mut follower);
    if done.is_err() {
        let _ = follower.kill();
    }
    let _ = follower.wait();
    let told = fs::read_to_string(gate.join("stderr"))?;
    for path in [&gate, &seen] {
        let _ = fs::remove_dir_all(path);
        let _ = fs::remove_file(path);
    }
    done?;
    let waits = told.lines().filter(|line| {
        line.starts_with("paddock: the agent ended, waiting for the next one to go on after event ")
    });
    ensure!(waits.count() == 2, "{told}");
    Ok(())
}

fn count_over_kills(
    context: &Context,
    gate: &Path,
    seen: &Path,
    follower: &mut Child,
) -> Result<()> {
    let script = format!(
        "i=0; for end in {} {} {}; do
         while [ ! -e /gate/$end ]; do /run/workload sleep 0.05; done
         while [ $i -lt $end ]; do i=$((i+1)); ln -s /run/workload /tmp/w$i; /tmp/w$i exit 0; done
         done; exec /run/workload sleep 1000",
        STEPS[0], STEPS[1], STEPS[2]
    );
    let volumes = [
        context.workload_volume(),
        format!("{}:/gate:ro", gate.display()),
    ];
    let mut args = vec!["run", "-d", "--name", "numbered"];
    args.extend([
        "-v",
        &volumes[0],
        "-v",
        &volumes[1],
        "host",
        "sh",
        "-c",
        &script,
    ]);
    context.ok(&args)?;
    let go = |step: u64| File::create(gate.join(step.to_string()));
    let reaches = |number: u64| {
        eventually(&format!("the follower is told of {number}"), || {
            Ok(numbers(&fs::read_to_string(seen)?)?.contains_key(&number))
        })
    };
    go(STEPS[0])?;
    reaches(STEPS[0])?;
    // Time enough to be stored.
    std::thread::sleep(Duration::from_secs(1));
    context.kill_agent()?;
    context.start_agent(&["--detach-on-exit"])?;
    go(STEPS[1])?;
    reaches(STEPS[1])?;
    ensure!(
        lost(&fs::read_to_string(seen)?)? == 0,
        "nothing was under way"
    );
    go(STEPS[2])?;
    reaches(STEPS[1] + 10)?;
    context.kill_agent()?;
    context.start_agent(&["--detach-on-exit"])?;
    // The last one may be what the killed agent took along.
    eventually("the follower is told of the end", || {
        let text = fs::read_to_string(seen)?;
        let told = numbers(&text)?.len();
        Ok(u64::try_from(told)? + lost(&text)? >= STEPS[2])
    })?;
    kill(Pid::from_raw(follower.id().cast_signed()), Signal::SIGINT)?;
    ensure!(follower.wait()?.code() == Some(0));
    let text = fs::read_to_string(seen)?;
    let told = numbers(&text)?;
    let missing = (1..=STEPS[2]).filter(|number| !told.contains_key(number));
    let missing = u64::try_from(missing.count())?;
    let lost = lost(&text)?;
    ensure!(
        missing <= lost,
        "{missing} numbers are missing, {lost} were told to be: {text}"
    );
    ensure!(
        told.values().all(|times| *times == 1),
        "told twice: {told:?}"
    );
    // What was stored can be read again; what was told and not stored yet is told to be missing.
    let again = context.ok(&[
        "events",
        "--after",
        "0",
        "--format",
        "json",
        "--container",
        "numbered",
        "--kind",
        "exec",
    ])?;
    let stored = numbers(&again)?;
    ensure!(
        stored.values().all(|times| *times == 1),
        "stored twice: {stored:?}"
    );
    let quiet = (1..=STEPS[0]).all(|number| stored.contains_key(&number));
    ensure!(
        quiet,
        "what was told before a quiet kill is not stored: {stored:?}"
    );
    let missing = STEPS[2] - u64::try_from(stored.len())?;
    let lost = self::lost(&again)?;
    ensure!(
        missing <= lost,
        "{missing} are not stored, {lost} were told to be missing"
    );
    let after = told_ids(&text)?;
    ensure!(
        after.windows(2).all(|pair| pair[0] < pair[1]),
        "ids went back: {text}"
    );
    context.ok(&["rm", "-f", "numbered"]).map(drop)
}

/// How often each number was told.
fn numbers(lines: &str) -> Result<BTreeMap<u64, u32>> {
    let mut numbers = BTreeMap::new();
    for line in whole(lines) {
        let event: Value = serde_json::from_str(line)?;
        let name = event["filename"].as_str().unwrap_or_default();
        if let Some(number) = name.strip_prefix("/tmp/w") {
            *numbers.entry(number.parse()?).or_default() += 1;
        }
    }
    Ok(numbers)
}

fn lost(lines: &str) -> Result<u64> {
    let mut lost = 0;
    for line in whole(lines) {
        let event: Value = serde_json::from_str(line)?;
        if event["event"] == "lost" {
            lost += event["count"].as_u64().context("no count")?;
        }
    }
    Ok(lost)
}

fn told_ids(lines: &str) -> Result<Vec<u64>> {
    whole(lines)
        .map(|line| {
            let event: Value = serde_json::from_str(line)?;
            event["id"].as_u64().context("no id")
        })
        .collect()
}

/// Lines that were written to their end.
fn whole(text: &str) -> impl Iterator<Item = &str> {
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    text[..end].lines()
}
