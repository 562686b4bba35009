//! `paddock policy test`: what policies would have done to what is on record.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::{BufRead, BufReader, Read as _, stdin},
    path::Path,
};

use anyhow::Context as _;
use paddock_agent::event::{Event, Kind};
use paddock_policy::{Answer, Policy, Ruleset, compile, model::Select};
use serde::Serialize;

use super::load;
use crate::{
    commands::event_line::what,
    human,
    output::{self, Format, print, print_json},
    table::{Column, render},
};

/// An event has a few texts of at most some thousand bytes.
const LINE: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Test {
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// What `paddock events --format json` wrote; - is standard input
    #[arg(long, value_name = "FILE")]
    events: String,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Report {
    /// Events that were looked at.
    events: u64,
    /// Lines of a newer agent.
    not_understood: u64,
    /// Keys of the policies that events say nothing about.
    not_judged: Vec<&'static str>,
    rules: Vec<Hits>,
}

/// What one rule hit.
#[derive(Serialize)]
struct Hits {
    policy: String,
    rule: String,
    action: &'static str,
    attempts: u64,
    /// Of them, those that the kernel had let through.
    succeeded: u64,
    containers: BTreeSet<String>,
    first_event: u64,
    #[serde(skip)]
    example: String,
}

impl Test {
    pub(super) fn run(&self) -> anyhow::Result<u8> {
        let (loaded, code) = load(&self.files);
        if code != 0 {
            return Ok(code);
        }
        let policies: Vec<Policy> = loaded.into_iter().map(|one| one.policy).collect();
        let report = if self.events == "-" {
            judge(&policies, "stdin", stdin().lock())?
        } else {
            let file = File::open(Path::new(&self.events))
                .with_context(|| format!("{}: cannot open", self.events))?;
            judge(&policies, &self.events, BufReader::new(file))?
        };
        if self.format == Format::Json {
            print_json(&report)?;
        } else {
            print(&text(&report))?;
        }
        Ok(0)
    }
}

fn judge(policies: &[Policy], name: &str, mut events: impl BufRead) -> anyhow::Result<Report> {
    let mut report = Report {
        events: 0,
        not_understood: 0,
        not_judged: not_judged(policies)?,
        rules: Vec::new(),
    };
    let mut rulesets: BTreeMap<String, Ruleset> = BTreeMap::new();
    let mut hits: BTreeMap<(String, String, &str), Hits> = BTreeMap::new();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = events.by_ref().take(LINE).read_until(b'\n', &mut line);
        if read.with_context(|| format!("{name}: cannot read"))? == 0 {
            break;
        }
        let value: serde_json::Value = serde_json::from_slice(&line).with_context(|| {
            format!("{name}:{number}: not an event; record with `paddock events --format json`")
        })?;
        let Ok(event) = serde_json::from_value::<Event>(value) else {
            report.not_understood += 1;
            continue;
        };
        report.events += 1;
        // Policies hold for containers.
        let Some(container) = event.container.clone() else {
            continue;
        };
        if !rulesets.contains_key(&container) {
            rulesets.insert(container.clone(), ruleset(policies, &container)?);
        }
        let Some(answer) = rulesets.get(&container).and_then(|of| answer(of, &event)) else {
            continue;
        };
        let rule = answer.rule;
        let key = (rule.policy.clone(), rule.rule.clone(), answer.action.name());
        let hit = hits.entry(key).or_insert_with(|| Hits {
            policy: rule.policy.clone(),
            rule: rule.rule.clone(),
            action: answer.action.name(),
            attempts: 0,
            succeeded: 0,
            containers: BTreeSet::new(),
            first_event: event.id,
            example: what(&event.kind),
        });
        hit.attempts += 1;
        hit.succeeded += u64::from(succeeded(&event.kind));
        hit.containers.insert(container);
    }
    report.rules = hits.into_values().collect();
    Ok(report)
}

/// What holds for a container, as far as its name says.
fn ruleset(policies: &[Policy], container: &str) -> anyhow::Result<Ruleset> {
    let selecting: Vec<&Policy> = policies
        .iter()
        .filter(|policy| policy.select.holds_for_name(container))
        .collect();
    Ok(compile(&selecting)?)
}

fn answer<'r>(rules: &'r Ruleset, event: &Event) -> Option<Answer<'r>> {
    match &event.kind {
        Kind::NamespaceCall {
            syscall, targets, ..
        } => {
            let targets = targets
                .iter()
                .map(|one| (one.namespace.as_str(), one.target.as_str()));
            rules.namespace_call(syscall, targets)
        }
        Kind::Activity {
            activity, target, ..
        } => rules.activity(activity, target),
        Kind::Exec { filename, .. } => rules.exec(filename),
        // Nothing else tells of its use.
        Kind::Denial {
            capability: Some(name),
            ..
        } => rules.capability(name),
        Kind::Denial {
            device: Some(what), ..
        } => rules.device(what),
        Kind::Denial {
            file: Some(file), ..
        } => rules.file(&file.operation, &file.path),
        Kind::Denial {
            peer: Some(peer), ..
        } => rules.peer(peer.judged()?),
        _ => None,
    }
}

fn succeeded(kind: &Kind) -> bool {
    match kind {
        Kind::NamespaceCall { outcome, .. } | Kind::Activity { outcome, .. } => {
            outcome == "allowed"
        }
        Kind::Denial { action, .. } => action == "audit",
        _ => true,
    }
}

fn not_judged(policies: &[Policy]) -> anyhow::Result<Vec<&'static str>> {
    let all: Vec<&Policy> = policies.iter().collect();
    let rules = compile(&all)?;
    let selects = |given: fn(&Select) -> bool| policies.iter().any(|policy| given(&policy.select));
    let rows = [
        (selects(|select| !select.image.is_empty()), "select.image"),
        (selects(|select| !select.label.is_empty()), "select.label"),
        (
            selects(|select| !select.runtime.is_empty()),
            "select.runtime",
        ),
        (selects(|select| select.origin.is_some()), "select.origin"),
        (
            rules.capabilities.iter().any(|cell| *cell != 0),
            "capability, but for denials",
        ),
        (!rules.devices.is_empty(), "device, but for denials"),
        (!rules.networks.is_empty(), "network, but for denials"),
        (rules.has_file_rules(), "file, but for denials and exec"),
        (!rules.syscalls.is_empty(), "syscall"),
    ];
    let given = rows.into_iter().filter(|(given, _)| *given);
    Ok(given.map(|(_, key)| key).collect())
}

fn text(report: &Report) -> String {
    let columns = [
        Column::shrinking("POLICY"),
        Column::shrinking("RULE"),
        Column::fixed("ACTION"),
        Column::number("ATTEMPTS"),
        Column::number("SUCCEEDED"),
        Column::shrinking("CONTAINERS"),
        Column::shrinking("FIRST"),
    ];
    let row = |hits: &Hits| {
        let containers: Vec<&str> = hits.containers.iter().map(String::as_str).collect();
        vec![
            hits.policy.clone(),
            hits.rule.clone(),
            hits.action.to_owned(),
            hits.attempts.to_string(),
            hits.succeeded.to_string(),
            human::printable(&containers.join(",")),
            human::printable(&format!("{}: {}", hits.first_event, hits.example)),
        ]
    };
    let rows: Vec<_> = report.rules.iter().map(row).collect();
    let mut text = if rows.is_empty() {
        format!("of {} events none is forbidden\n", report.events)
    } else {
        render(&columns, &rows, output::width())
    };
    if !report.not_judged.is_empty() {
        let keys = report.not_judged.join(", ");
        let _ = writeln!(text, "not judged, since events do not say it: {keys}");
    }
    if report.not_understood > 0 {
        let _ = writeln!(text, "not understood: {} lines", report.not_understood);
    }
    text
}
