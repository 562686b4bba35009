//! `paddock policy learn`: a policy that denies what a container was never seen to do.
//!
//! From the agent's events, so it is as good as they are: what was withheld, or is older than
//! what the agent keeps, is said in the file's first lines.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use anyhow::Context as _;
use hyper::Method;
use paddock_agent::{
    api::PolicyCheck,
    event::{Event, Kind, Verdict},
};
use paddock_policy::Act;

use crate::{
    client::{Client, encode},
    human,
    output::print,
};

#[derive(Debug, clap::Args)]
pub(super) struct Learn {
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// What it did, each thing once.
#[derive(Default)]
struct Record {
    container: Option<String>,
    done: BTreeMap<Done, Times>,
    events: u64,
    /// From and to.
    span: Option<(u64, u64)>,
    withheld: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Done {
    Activity {
        activity: String,
        target: String,
    },
    Namespaces {
        syscall: String,
        targets: Vec<(String, String)>,
    },
}

struct Times {
    count: u64,
    first: u64,
    worst: Verdict,
}

impl Learn {
    pub(super) fn run(&self, state_dir: &Path) -> anyhow::Result<u8> {
        let client = Client::new(state_dir)?;
        let mut record = Record::default();
        let path = format!("/v1/events?all=true&container={}", encode(&self.container));
        client.lines(&path, |line| {
            // What a newer agent tells in another way is nothing that policies judge here.
            if let Ok(event) = serde_json::from_str(line) {
                record.take(event);
            }
            Ok(())
        })?;
        let container = record
            .container
            .clone()
            .with_context(|| format!("no events of {}: nothing to learn from", self.container))?;
        let text = learn(&record, &container, &[])?;
        let check: PolicyCheck =
            client.file(Method::POST, "/v1/policies/check", text.into_bytes())?;
        let unseen = check
            .rules
            .iter()
            .filter(|rule| rule.means.contains_key("unseen"));
        let without: Vec<&str> = unseen.map(|rule| rule.name.as_str()).collect();
        print(&format!(
            "{}{}",
            record.head(&container),
            learn(&record, &container, &without)?
        ))?;
        Ok(0)
    }
}

fn learn(record: &Record, container: &str, without: &[&str]) -> anyhow::Result<String> {
    let targets: Vec<Vec<(&str, &str)>> = record.done.keys().map(Done::targets).collect();
    let acts: Vec<Act<'_>> = record
        .done
        .keys()
        .zip(&targets)
        .map(|(done, targets)| done.act(targets))
        .collect();
    paddock_policy::learn(container, &acts, without)
        .with_context(|| format!("{container} did all that there is to deny"))
}

impl Done {
    fn of(kind: &Kind) -> Option<(Self, Verdict)> {
        match kind {
            Kind::Activity {
                activity,
                target,
                verdict,
                ..
            } => {
                let done = Self::Activity {
                    activity: activity.clone(),
                    target: target.clone(),
                };
                Some((done, *verdict))
            }
            Kind::NamespaceCall {
                syscall,
                targets,
                verdict,
                ..
            } => {
                let target = |one: &paddock_agent::event::NamespaceTarget| {
                    (one.namespace.clone(), one.target.clone())
                };
                let done = Self::Namespaces {
                    syscall: syscall.clone(),
                    targets: targets.iter().map(target).collect(),
                };
                Some((done, *verdict))
            }
            _ => None,
        }
    }

    fn targets(&self) -> Vec<(&str, &str)> {
        match self {
            Self::Activity { .. } => Vec::new(),
            Self::Namespaces { targets, .. } => targets
                .iter()
                .map(|(namespace, target)| (namespace.as_str(), target.as_str()))
                .collect(),
        }
    }

    fn act<'a>(&'a self, targets: &'a [(&'a str, &'a str)]) -> Act<'a> {
        match self {
            Self::Activity { activity, target } => Act::Activity { activity, target },
            Self::Namespaces { syscall, .. } => Act::Namespaces { syscall, targets },
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Activity { activity, target } => format!("{activity} {target}"),
            Self::Namespaces { syscall, targets } => {
                let targets = targets
                    .iter()
                    .map(|(namespace, target)| format!(" {namespace}={target}"));
                format!("{syscall}{}", targets.collect::<String>())
            }
        }
    }
}

impl Record {
    fn take(&mut self, event: Event) {
        self.events += 1;
        let (from, to) = self.span.unwrap_or((event.time_ns, event.time_ns));
        self.span = Some((from.min(event.time_ns), to.max(event.time_ns)));
        if let Kind::Limited {
            action, withheld, ..
        } = &event.kind
            && action == "stopped"
        {
            self.withheld += withheld;
        }
        if let Some((done, verdict)) = Done::of(&event.kind) {
            let times = self.done.entry(done).or_insert(Times {
                count: 0,
                first: event.id,
                worst: verdict,
            });
            times.count += 1;
            times.worst = times.worst.max(verdict);
        }
        self.container = event.container.or(self.container.take());
    }

    /// Comments, each line with its sign.
    fn head(&self, container: &str) -> String {
        let (from, to) = self.span.unwrap_or_default();
        let mut text = format!(
            "# What {} was never seen to do is denied: from {} events, {} to {} (UTC).\n\
             # Only what the agent keeps is known; look at what it counts in audit before it enforces.\n",
            human::printable(container),
            self.events,
            human::clock(from),
            human::clock(to)
        );
        if self.withheld > 0 {
            let _ = writeln!(
                text,
                "# {} records of it were withheld: it may have done more.",
                self.withheld
            );
        }
        let beyond = |(_, times): &(&Done, &Times)| times.worst > Verdict::Benign;
        for (done, times) in self.done.iter().filter(beyond) {
            let verdict = match times.worst {
                Verdict::Escape => "an escape",
                Verdict::EscapeAttempt => "an attempt to escape",
                _ => "notable",
            };
            let _ = writeln!(
                text,
                "# Allowed, since it did it: {}, {verdict}, {} times, first in event {}.",
                human::printable(&done.words()),
                times.count,
                times.first
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use paddock_agent::event::{Actor, NamespaceTarget};
    use paddock_policy::model::Verb;

    use super::*;

    fn event(id: u64, kind: Kind) -> Event {
        Event {
            schema_version: 1,
            id,
            time_ns: id * 1_000_000_000,
            container: Some("web".into()),
            container_id: None,
            kind,
        }
    }

    fn actor() -> Actor {
        Actor::default()
    }

    #[test]
    fn what_it_did_is_told_once_and_allowed() {
        let joined = || Kind::NamespaceCall {
            syscall: "setns".into(),
            actor: actor(),
            outcome: "allowed".into(),
            errno: None,
            flags: 0,
            fd: Some(3),
            targets: vec![NamespaceTarget {
                namespace: "uts".into(),
                target: "host".into(),
                inode: None,
            }],
            verdict: Verdict::Escape,
        };
        let limited = Kind::Limited {
            action: "stopped".into(),
            reason: "rate_limited".into(),
            withheld: 7,
        };
        let mut record = Record::default();
        for (id, kind) in [(4, joined()), (5, joined()), (6, limited)] {
            record.take(event(id, kind));
        }
        let head = record.head("web");
        assert!(
            head.contains("from 3 events, 00:00:04.000 to 00:00:06.000")
                && head.contains("# 7 records of it were withheld")
                && head.ends_with("setns uts=host, an escape, 2 times, first in event 4.\n"),
            "{head}"
        );
        let text = format!("{head}{}", learn(&record, "web", &[]).unwrap());
        let policy = paddock_policy::parse(text.as_bytes()).unwrap();
        let denied = |name: &str| {
            let mut denials = policy.rules.iter().filter(|rule| rule.verb == Verb::Deny);
            denials.any(|rule| rule.name == name)
        };
        assert!(!denied("namespace-escape") && denied("sysrq") && denied("any-escape"));
    }
}
