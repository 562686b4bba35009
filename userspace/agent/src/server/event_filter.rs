//! Which events a reader of `/v1/events` wants.

use std::time::Duration;

use serde::Deserialize;

use super::error::Failure;
use crate::{
    clock,
    event::{Event, KINDS, Kind, Verdict},
    registry::Registry,
};

#[derive(Debug, Deserialize)]
pub(super) struct Options {
    #[serde(default)]
    pub(super) follow: bool,
    /// Name, id, or an id's beginning.
    container: Option<String>,
    /// Several with commas between them, as are verdicts.
    kind: Option<String>,
    verdict: Option<String>,
    since_ns: Option<u64>,
    until_ns: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Filter {
    of: Of,
    /// Empty: any.
    kinds: Vec<&'static str>,
    verdicts: Vec<Verdict>,
    since_ns: u64,
    until_ns: Option<u64>,
}

/// Whose.
#[derive(Debug)]
enum Of {
    All,
    Id(String),
    /// Nobody known now: as the events themselves name it.
    Reference(String),
}

impl Filter {
    pub(super) fn new(registry: &Registry, options: &Options) -> Result<Self, Failure> {
        let of = match &options.container {
            None => Of::All,
            Some(reference) => match registry.find(reference) {
                Ok(container) => Of::Id(container.id.clone()),
                Err(_) => Of::Reference(reference.clone()),
            },
        };
        Ok(Self {
            of,
            kinds: words(options.kind.as_deref(), kind)?,
            verdicts: words(options.verdict.as_deref(), verdict)?,
            since_ns: options.since_ns.unwrap_or(0),
            until_ns: options.until_ns,
        })
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        let whose = match &self.of {
            Of::All => true,
            Of::Id(id) => event.container_id.as_ref() == Some(id),
            Of::Reference(reference) => {
                let begins = |id: &String| id.starts_with(reference);
                event.container.as_ref() == Some(reference)
                    || event.container_id.as_ref().is_some_and(begins)
            }
        };
        let kind = self.kinds.is_empty() || self.kinds.contains(&event.kind.name());
        let judged = |verdict| self.verdicts.contains(&verdict);
        let verdict = self.verdicts.is_empty() || verdict_of(&event.kind).is_some_and(judged);
        let late = self.until_ns.is_some_and(|until| event.time_ns > until);
        whose && kind && verdict && event.time_ns >= self.since_ns && !late
    }

    /// After which nothing that comes is wanted.
    pub(super) fn ends_in(&self) -> Option<Duration> {
        let until = self.until_ns?;
        Some(Duration::from_nanos(until.saturating_sub(clock::now_ns())))
    }
}

fn verdict_of(kind: &Kind) -> Option<Verdict> {
    match kind {
        Kind::NamespaceCall { verdict, .. } | Kind::Activity { verdict, .. } => Some(*verdict),
        _ => None,
    }
}

fn words<T>(text: Option<&str>, one: fn(&str) -> Result<T, String>) -> Result<Vec<T>, Failure> {
    let words = text.unwrap_or_default().split(',').map(str::trim);
    let words = words.filter(|word| !word.is_empty());
    words
        .map(|word| one(word).map_err(|error| Failure::bad_input(&error)))
        .collect()
}

fn kind(word: &str) -> Result<&'static str, String> {
    let known = KINDS.iter().find(|kind| **kind == word);
    let all = || format!("no kind of event is called {word}: {}", KINDS.join(", "));
    known.copied().ok_or_else(all)
}

fn verdict(word: &str) -> Result<Verdict, String> {
    let known = Verdict::ALL.iter().find(|(_, name)| *name == word);
    let names = Verdict::ALL.map(|(_, name)| name);
    let all = || format!("no verdict is called {word}: {}", names.join(", "));
    known.map(|(verdict, _)| *verdict).ok_or_else(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time_ns: u64, container: &str, verdict: Option<Verdict>) -> Event {
        let kind = match verdict {
            Some(verdict) => Kind::NamespaceCall {
                syscall: "setns".into(),
                actor: crate::event::Actor::default(),
                outcome: "allowed".into(),
                errno: None,
                flags: 0,
                fd: None,
                targets: Vec::new(),
                verdict,
            },
            None => Kind::Lost { count: 1 },
        };
        Event {
            schema_version: 1,
            id: 1,
            time_ns,
            container: Some(container.into()),
            container_id: Some(format!("{container}0123")),
            kind,
        }
    }

    fn filter(options: &str) -> Result<Filter, Failure> {
        let options = serde_json::from_str(options).unwrap();
        Filter::new(&Registry::default(), &options)
    }

    #[test]
    fn each_word_leaves_out_what_it_does_not_say() {
        let all = [
            event(5, "web", Some(Verdict::Escape)),
            event(6, "web", Some(Verdict::Benign)),
            event(7, "job", None),
        ];
        for (options, want) in [
            ("{}", &[5, 6, 7][..]),
            (r#"{"container": "web"}"#, &[5, 6]),
            (r#"{"container": "job01"}"#, &[7]),
            (r#"{"kind": "lost"}"#, &[7]),
            (r#"{"kind": "lost, namespace_call"}"#, &[5, 6, 7]),
            (r#"{"verdict": "escape,escape_attempt"}"#, &[5]),
            (r#"{"since_ns": 6}"#, &[6, 7]),
            (r#"{"since_ns": 6, "until_ns": 6}"#, &[6]),
        ] {
            let filter = filter(options).unwrap();
            let found: Vec<u64> = all
                .iter()
                .filter(|event| filter.wants(event))
                .map(|event| event.time_ns)
                .collect();
            assert_eq!(found, want, "{options}");
        }
    }

    #[test]
    fn unknown_words_are_refused() {
        assert!(filter(r#"{"kind": "oom"}"#).is_err());
        assert!(filter(r#"{"verdict": "bad"}"#).is_err());
    }
}
