//! What paddock said of a case, from its events and its counters, against what it should say.

use std::{
    collections::BTreeMap,
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{context::Context, metrics::Metrics, scenarios::kernel::equal};

const ACTIVITIES: &str = "paddock_container_activities_total";
const ESCAPES: &str = "paddock_container_escapes_total";
/// Told as calls of their own, with a target for each namespace.
const CALLS: [&str; 3] = ["setns", "unshare", "clone"];

/// One kind of thing that was told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Told {
    pub(super) activity: String,
    pub(super) target: String,
    pub(super) verdict: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.activity, self.target, self.verdict)
    }
}

pub(super) type Tally = BTreeMap<Told, u32>;

impl Told {
    /// Of lines `ACTIVITY TARGET VERDICT [xCOUNT]`.
    pub(super) fn expected(lines: &[String]) -> Result<Tally> {
        let mut tally = Tally::new();
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            let (activity, target, verdict, count) = match words[..] {
                [activity, target, verdict] => (activity, target, verdict, 1),
                [activity, target, verdict, count] => {
                    let count = count.strip_prefix('x').context("no xCOUNT")?;
                    (activity, target, verdict, count.parse()?)
                }
                _ => bail!("{line}"),
            };
            let told = Self {
                activity: activity.to_owned(),
                target: target.to_owned(),
                verdict: verdict.to_owned(),
            };
            let known = ["notable", "escape_attempt", "escape"].contains(&verdict);
            ensure!(known, "{line}: no verdict");
            ensure!(tally.insert(told, count).is_none(), "{line}: twice");
        }
        Ok(tally)
    }

    /// Of an event that is not benign.
    pub(super) fn of(event: &Value) -> Option<Self> {
        let text = |key: &str| Some(event.get(key)?.as_str()?.to_owned());
        let verdict = text("verdict")?;
        if verdict == "benign" {
            return None;
        }
        let (activity, target) = match event.get("event")?.as_str()? {
            "activity" => (text("activity")?, text("target")?),
            "namespace_call" => {
                let targets = event.get("targets")?.as_array()?;
                let has = |word: &str| targets.iter().any(|one| one["target"] == word);
                let whose = ["host", "peer"].into_iter().find(|word| has(word));
                (text("syscall")?, whose.unwrap_or("unknown").to_owned())
            }
            _ => return None,
        };
        Some(Self {
            activity,
            target,
            verdict,
        })
    }
}

/// Counters first: they are there at once. Events follow; as many come as were counted.
pub(super) fn judge(context: &Context, name: &str, expect: &[String]) -> Result<()> {
    let want = Told::expected(expect)?;
    let events = wait_for(context, name, want.values().sum())?;
    let mut saw = Tally::new();
    for told in events.lines().filter_map(told) {
        *saw.entry(told).or_default() += 1;
    }
    let judged: Vec<_> = events
        .lines()
        .filter(|line| line.contains("verdict"))
        .collect();
    ensure!(
        saw == want,
        "told {} instead of {}\n{}",
        listed(&saw),
        listed(&want),
        judged.join("\n")
    );
    let metrics = context.metrics()?;
    counted(&metrics, name, &want)
}

fn told(line: &str) -> Option<Told> {
    Told::of(&serde_json::from_str(line).ok()?)
}

/// All of its events, once as many are told as should be or none come any more.
fn wait_for(context: &Context, name: &str, count: u32) -> Result<String> {
    let args = ["events", "--format", "json", "--container", name];
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let events = context.ok(&args)?;
        let told = events.lines().filter_map(told).count();
        if told >= count as usize || Instant::now() > deadline {
            return Ok(events);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn counted(metrics: &Metrics, name: &str, want: &Tally) -> Result<()> {
    let mut by_verdict: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let (mut escapes, mut attempts) = (0, 0);
    for (told, count) in want {
        if !CALLS.contains(&&*told.activity) {
            *by_verdict
                .entry((&told.activity, &told.verdict))
                .or_default() += count;
        }
        match &*told.verdict {
            "escape" => escapes += count,
            "escape_attempt" => attempts += count,
            _ => {}
        }
    }
    let sum = |labels: &[(&str, &str)]| {
        metrics.sum(ACTIVITIES, &[&[("container", name)], labels].concat())
    };
    for ((activity, verdict), count) in &by_verdict {
        let saw = sum(&[("activity", activity), ("verdict", verdict)]);
        equal(&format!("{activity} {verdict}"), saw, *count)?;
    }
    for verdict in ["notable", "escape_attempt", "escape"] {
        let calls: f64 = CALLS
            .iter()
            .map(|call| sum(&[("activity", call), ("verdict", verdict)]))
            .sum();
        let of_this = by_verdict.iter().filter(|((_, one), _)| *one == verdict);
        let count = of_this.map(|(_, count)| count).sum();
        equal(verdict, sum(&[("verdict", verdict)]) - calls, count)?;
    }
    for (outcome, count) in [("allowed", escapes), ("failed", attempts)] {
        let labels = [("container", name), ("outcome", outcome)];
        let what = format!("escapes {outcome}");
        equal(&what, metrics.sum(ESCAPES, &labels), count)?;
    }
    Ok(())
}

fn listed(tally: &Tally) -> String {
    if tally.is_empty() {
        return "nothing".to_owned();
    }
    let all: Vec<_> = tally
        .iter()
        .map(|(told, count)| format!("{told} x{count}"))
        .collect();
    all.join(", ")
}
