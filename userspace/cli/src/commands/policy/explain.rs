//! `paddock policy explain`: which rule decides an act on record, why, and how to allow it.

use std::{fmt::Write as _, path::Path};

use paddock_agent::{
    api::{Allow, Explanation, HeldRule},
    event::Kind,
};

use crate::{
    client::Client,
    commands::event_line::what,
    human,
    output::{self, Format, print, print_json},
};

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// As `id` in `paddock events --format json`
    #[arg(value_name = "EVENT_ID")]
    id: u64,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Explain {
    pub(super) fn run(&self, state_dir: &Path) -> anyhow::Result<u8> {
        let path = format!("/v1/events/{}/explain", self.id);
        let explanation: Explanation = Client::new(state_dir)?.get(&path)?;
        match self.format {
            Format::Json => print_json(&explanation)?,
            Format::Table => print(&text(&explanation, output::width()))?,
        }
        Ok(0)
    }
}

fn text(told: &Explanation, width: Option<usize>) -> String {
    let event = &told.event;
    let mut text = String::new();
    let mut line = |line: &str| text += &human::wrap(line, width);
    let container = event.container.as_deref().unwrap_or("no container");
    line(&human::printable(&format!(
        "event {}, {}, {container}: {}",
        event.id,
        human::clock(event.time_ns),
        what(&event.kind)
    )));
    if let Kind::Denial {
        policy,
        rule,
        action,
        ..
    } = &event.kind
    {
        let by = policy.as_deref().zip(rule.as_deref());
        let by = by.map_or_else(
            || "by a rule that was replaced since".to_owned(),
            |(policy, rule)| format!("by {policy}/{rule}"),
        );
        line(&format!("then: {}, {by}", came(action)));
    }
    match told.rules.split_first() {
        None => line("now: no rule in force has a word on it"),
        Some((first, others)) => {
            let same = match told.same {
                Some(true) => ", as then",
                Some(false) => ", not as then",
                None => "",
            };
            let said = came(&first.action);
            line(&format!(
                "now: {said}, by {}/{}{same}",
                first.policy, first.rule
            ));
            line(&format!("  {}", of(first)));
            for one in others {
                line(&format!(
                    "  beside it {}/{}, {}: {}; {}",
                    one.policy,
                    one.rule,
                    one.action,
                    of(one),
                    one.why
                ));
            }
        }
    }
    for note in &told.notes {
        line(&human::printable(&format!("note: {note}")));
    }
    for allow in &told.allow {
        text += &advice(allow, width);
    }
    text
}

fn of(rule: &HeldRule) -> String {
    human::printable(&rule.about)
}

fn came(action: &str) -> &'static str {
    match action {
        "allow" => "allowed",
        "audit" => "let through and counted as would-deny",
        "kill" => "its process was killed",
        _ => "denied",
    }
}

fn advice(allow: &Allow, width: Option<usize>) -> String {
    let policy = &allow.policy;
    let line = match (&allow.replaces, allow.lines.is_empty()) {
        (None, _) => format!("to allow it, at the end of {policy}'s file:"),
        (Some(rule), true) => format!(
            "to allow it, take '{rule}' out of {policy}'s file: nothing more specific can be said"
        ),
        (Some(rule), false) => format!(
            "to allow it, take '{rule}' out of {policy}'s file: nothing more specific can be \
             said; or have it counted only, by these lines in its place:"
        ),
    };
    let mut text = format!("\n{}", human::wrap(&line, width));
    if !allow.lines.is_empty() {
        let _ = write!(text, "\n{}", allow.lines);
    }
    text
}
