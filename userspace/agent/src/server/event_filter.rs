//! Which events a reader of `/v1/events` wants.

use std::time::Duration;

use serde::Deserialize;

use super::error::Failure;
use crate::{
    clock,
    event::{KINDS, Verdict},
    registry::Registry,
    store::{Start, Wanted, Whose},
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
    /// A cursor: what has a higher id, and what is missing of that.
    after: Option<u64>,
    /// All that is stored.
    #[serde(default)]
    all: bool,
    /// So many, the last ones that fit.
    last: Option<usize>,
}

/// A reader's `last` costs memory.
const MOST: usize = 1_000_000;

/// What they ask for, understood.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) wanted: Wanted,
    /// Where to begin in the store; `None`: with what is in memory.
    pub(super) start: Option<Start>,
}

/// What a reader gets who says what it wants and not how much of it.
const USUAL: usize = 4096;

impl Filter {
    pub(super) fn new(registry: &Registry, options: &Options) -> Result<Self, Failure> {
        let whose = match &options.container {
            None => Whose::All,
            Some(reference) => match registry.find(reference) {
                Ok(container) => Whose::Id(container.id.clone()),
                // Nobody known now: as the events themselves name it.
                Err(_) => Whose::Reference(reference.clone()),
            },
        };
        let wanted = Wanted {
            whose,
            kinds: words(options.kind.as_deref(), kind)?,
            verdicts: words(options.verdict.as_deref(), verdict)?,
            since_ns: options.since_ns.unwrap_or(0),
            until_ns: options.until_ns,
        };
        let timed = options.since_ns.is_some() || options.until_ns.is_some();
        let start = match (options.after, options.last) {
            (Some(_), Some(_)) => {
                return Err(Failure::bad_input("after and last exclude each other"));
            }
            (Some(after), None) => Some(Start::After(after)),
            (None, Some(last)) => Some(Start::Last(last.min(MOST))),
            (None, None) if options.all || timed => Some(Start::All),
            (None, None) if wanted.is_picky() => Some(Start::Last(USUAL)),
            (None, None) => None,
        };
        Ok(Self { wanted, start })
    }

    /// After which nothing that comes is wanted.
    pub(super) fn ends_in(&self) -> Option<Duration> {
        let until = self.wanted.until_ns?;
        Some(Duration::from_nanos(until.saturating_sub(clock::now_ns())))
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
    use crate::event::{Event, Kind};

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
                .filter(|event| filter.wanted.wants(event))
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
