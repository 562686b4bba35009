//! Why an act on record is decided as it is, by what is in force now.
//!
//! The record of a denial has policy and rule, and not the namespaces' types: those are in the
//! record of the call itself, which is looked for beside it.

use std::sync::Arc;

use paddock_policy::{Act, Action, Advice, Held, Peer, Policy, Standing, allowing, explain};
use paddock_probe::{Activity, NsType, network::direction};

use super::{
    Applied, Error, Policies, Who,
    means::{Here, Means},
};
use crate::{
    api::{Allow, Explanation, HeldRule},
    event::{Event, Kind},
    shared::Shared,
};

/// The record of a call is written when it returns.
const CALL_NS: u64 = 1_000_000_000;

/// An act, with what its strings are borrowed from.
enum Asked {
    Activity {
        activity: String,
        target: String,
    },
    Namespaces {
        syscall: String,
        targets: Vec<(String, String)>,
    },
    Capability {
        name: String,
    },
    Device {
        what: String,
    },
    File {
        operation: String,
        path: String,
    },
    Peer(Peer),
}

impl Policies {
    pub(crate) fn explain(&self, shared: &Shared, id: u64) -> Result<Explanation, Error> {
        let event = shared.event(id).ok_or(Error::NoEvent { id })?;
        let mut notes = Vec::new();
        let asked = asked(shared, &event, &mut notes).ok_or(Error::NotJudged { id })?;
        let targets: Vec<(&str, &str)> = match &asked {
            Asked::Namespaces { targets, .. } => targets
                .iter()
                .map(|(namespace, target)| (namespace.as_str(), target.as_str()))
                .collect(),
            Asked::Activity { .. }
            | Asked::Capability { .. }
            | Asked::Device { .. }
            | Asked::File { .. }
            | Asked::Peer(_) => Vec::new(),
        };
        let act = match &asked {
            Asked::Activity { activity, target } => Act::Activity { activity, target },
            Asked::Namespaces { syscall, .. } => Act::Namespaces {
                syscall,
                targets: &targets,
            },
            Asked::Capability { name } => Act::Capability { name },
            Asked::Device { what } => Act::Device { what },
            Asked::File { operation, path } => Act::File { operation, path },
            Asked::Peer(peer) => Act::Peer(*peer),
        };
        let who = who(shared, &event, &mut notes);
        let holding = who.map_or_else(Vec::new, |who| self.holding(shared, &who));
        let policies: Vec<&Policy> = holding.iter().map(|one| &*one.policy).collect();
        let held = explain(&policies, act);
        let allow = holding.iter().filter_map(|one| allow(one, act)).collect();
        let action = held
            .first()
            .and_then(|first| effective(shared, first, &asked, &mut notes));
        Ok(Explanation {
            same: same(&event.kind, held.first(), action),
            rules: held.iter().map(told).collect(),
            allow,
            notes,
            event: Event::clone(&event),
        })
    }
}

fn asked(shared: &Shared, event: &Arc<Event>, notes: &mut Vec<String>) -> Option<Asked> {
    let of_call = |syscall: &str, call: &Event| match &call.kind {
        Kind::NamespaceCall { targets, .. } => Some(Asked::Namespaces {
            syscall: syscall.to_owned(),
            targets: targets
                .iter()
                .map(|one| (one.namespace.clone(), one.target.clone()))
                .collect(),
        }),
        _ => None,
    };
    match &event.kind {
        Kind::NamespaceCall { syscall, .. } => of_call(syscall, event),
        Kind::Denial {
            activity, target, ..
        } if matches!(activity.as_str(), "setns" | "unshare" | "clone") => {
            let nearest = shared
                .events_near(event, CALL_NS)
                .into_iter()
                .filter(|call| is_of(call, event))
                .min_by_key(|call| call.time_ns.abs_diff(event.time_ns));
            nearest.map_or_else(
                || {
                    notes.push(
                        "the record of the call itself is not kept, so that every type of \
                         namespace is taken as asked for"
                            .to_owned(),
                    );
                    let every = NsType::ALL.iter();
                    Some(Asked::Namespaces {
                        syscall: activity.clone(),
                        targets: every
                            .map(|ty| (ty.name().to_owned(), target.clone()))
                            .collect(),
                    })
                },
                |call| of_call(activity, &call),
            )
        }
        Kind::Denial {
            capability: Some(name),
            ..
        } => Some(Asked::Capability { name: name.clone() }),
        Kind::Denial {
            device: Some(what), ..
        } => Some(Asked::Device { what: what.clone() }),
        Kind::Denial {
            file: Some(file), ..
        } => Some(Asked::File {
            operation: file.operation.clone(),
            path: file.path.clone(),
        }),
        Kind::Denial {
            peer: Some(peer), ..
        } => peer.judged().map(Asked::Peer),
        Kind::Activity {
            activity, target, ..
        }
        | Kind::Denial {
            activity, target, ..
        } => Some(Asked::Activity {
            activity: activity.clone(),
            target: target.clone(),
        }),
        _ => None,
    }
}

/// Whether that is the call that a denial is of.
fn is_of(call: &Event, denial: &Event) -> bool {
    let (
        Kind::NamespaceCall { syscall, actor, .. },
        Kind::Denial {
            activity,
            actor: Some(other),
            ..
        },
    ) = (&call.kind, &denial.kind)
    else {
        return false;
    };
    syscall == activity
        && actor.tid == other.tid
        && call.container_id == denial.container_id
        && call.time_ns.abs_diff(denial.time_ns) < CALL_NS
}

fn who(shared: &Shared, event: &Event, notes: &mut Vec<String>) -> Option<Who> {
    let name = event.container.as_deref()?;
    let id = event.container_id.as_deref().unwrap_or_default();
    let found = shared.registry.find(id).ok();
    let found = found.or_else(|| shared.registry.gone(id));
    Some(found.map_or_else(
        || {
            notes.push(format!(
                "{name} is gone: policies that select it by more than its name are not known to"
            ));
            Who::gone(name)
        },
        |container| Who::of(&container),
    ))
}

/// What comes of it here: nothing is kept from happening that is only counted.
fn effective(
    shared: &Shared,
    held: &Held,
    asked: &Asked,
    notes: &mut Vec<String>,
) -> Option<Action> {
    let here = Here::of(shared);
    let means_of = |name: &str| {
        let activity = Activity::ALL.iter().find(|one| one.name() == name)?;
        Some(here.means(*activity))
    };
    let (name, means) = match asked {
        Asked::Activity { activity, .. } => (activity.as_str(), means_of(activity)?),
        Asked::Namespaces { syscall, .. } => (syscall.as_str(), means_of(syscall)?),
        Asked::Capability { name } => (name.as_str(), here.capability()),
        Asked::Device { what } => (what.as_str(), here.device()),
        Asked::File { operation, .. } => (operation.as_str(), here.paths()),
        // It was told of a container whose sockets are known.
        Asked::Peer(peer) if peer.direction == direction::IN => ("network", here.ingress(false)),
        Asked::Peer(_) => ("network", here.network()),
    };
    if held.action > Some(Action::Audit) && means >= Means::Count {
        notes.push(format!(
            "this kernel cannot keep {name} from happening: it is counted only"
        ));
        return Some(Action::Audit);
    }
    held.action
}

fn same(kind: &Kind, first: Option<&Held>, now: Option<Action>) -> Option<bool> {
    let Kind::Denial {
        policy: Some(policy),
        rule: Some(rule),
        action,
        ..
    } = kind
    else {
        return None;
    };
    let forbids = now.is_some_and(|now| now > Action::Audit);
    Some(first.is_some_and(|first| {
        first.action.is_some()
            && first.policy == *policy
            && first.rule == *rule
            && forbids == (action != "audit")
    }))
}

fn told(held: &Held) -> HeldRule {
    HeldRule {
        policy: held.policy.clone(),
        rule: held.rule.clone(),
        action: held.action.map_or("allow", Action::name).to_owned(),
        about: held.about.clone(),
        why: match &held.standing {
            Standing::Decides => "decides".to_owned(),
            Standing::Wider { rule } => format!("{rule} of the same file is more specific"),
            Standing::Milder { policy, rule } if *policy == held.policy => {
                format!("{rule} answers for what else was asked, and is as strict or stricter")
            }
            Standing::Milder { policy, rule } => {
                format!("{policy}/{rule} is as strict or stricter")
            }
        },
    }
}

fn allow(one: &Applied, act: Act<'_>) -> Option<Allow> {
    let text = str::from_utf8(&one.text).ok()?;
    let (replaces, lines) = match allowing(text, one.overrides, act)? {
        Advice::Add(lines) => (None, lines),
        Advice::Replace { rule, with } => (Some(rule), with),
    };
    Some(Allow {
        policy: one.policy.name.clone(),
        replaces,
        lines: lines.trim_start().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event;

    #[test]
    fn a_denial_is_decided_the_same_by_the_same_rule_with_the_same_end() {
        let denial = |action: &str| Kind::Denial {
            activity: "sysrq".into(),
            actor: Some(event::Actor::default()),
            target: "host".into(),
            action: action.into(),
            policy: Some("p".into()),
            rule: Some("sysrq".into()),
            other_pid: None,
            peer: None,
            capability: None,
            device: None,
            file: None,
        };
        let policy = paddock_policy::parse(b"name = \"p\"\nmode = \"enforce\"\ndeny = [\"sysrq\"]");
        let act = Act::Activity {
            activity: "sysrq",
            target: "host",
        };
        let held = explain(&[&policy.unwrap()], act);
        let first = held.first();
        // Who is killed where nothing can refuse was denied by the same rule.
        for (action, now, want) in [
            ("deny", Some(Action::Deny), true),
            ("kill", Some(Action::Deny), true),
            ("audit", Some(Action::Audit), true),
            ("deny", Some(Action::Audit), false),
            ("audit", Some(Action::Deny), false),
        ] {
            assert_eq!(same(&denial(action), first, now), Some(want), "{action}");
        }
        assert_eq!(same(&denial("deny"), None, None), Some(false));
    }
}
