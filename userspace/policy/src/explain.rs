//! Why an act is decided as it is: each statement that holds for it, the one that decides, and
//! what a file would have to say to let it pass.
//!
//! The same order as [`crate::compile`]'s, so that what is said here is what the kernel half does.

use std::net::IpAddr;

use paddock_abi::{
    activity::Activity,
    namespace::{NsType, Target},
    policy::ACTION_AUDIT,
};

use crate::{
    answer::Action,
    compile::{Rank, action_of, rank_of},
    model::{Cidr, Device, Match, Policy, Rule, access, below, operation, protocol},
    named::{NAMED, NamedRule, TARGETS, bit, target_name},
    read::{Overrides, parse_with},
    rule::{DIRECTIONS, PROTOCOLS},
    scope::{Scope, holds},
    values::{capability_named as capability, devices},
    words::thing,
};

const REMOVE: &str = operation::NAMES[operation::REMOVE.trailing_zeros() as usize];
/// More rules than these no act needs to be let through a file.
const MOST: usize = 4;

/// What was done, by the names of docs/verdicts.md.
#[derive(Clone, Copy, Debug)]
pub enum Act<'a> {
    Activity {
        activity: &'a str,
        target: &'a str,
    },
    /// setns, unshare or clone: each type it was for, and whose that was.
    Namespaces {
        syscall: &'a str,
        targets: &'a [(&'a str, &'a str)],
    },
    /// Using one, by its name with `CAP_`.
    Capability {
        name: &'a str,
    },
    /// As `c 1:3 rw`.
    Device {
        what: &'a str,
    },
    /// By a name of [`operation::NAMES`], and an absolute path.
    File {
        operation: &'a str,
        path: &'a str,
    },
    /// Talking to somebody.
    Peer(Peer),
}

/// Whom a container talks to.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: IpAddr,
    /// 0 of a protocol that has none.
    pub port: u16,
    /// One of [`protocol`].
    pub protocol: u8,
    /// One of [`direction`].
    pub direction: u8,
}

/// A statement that holds for an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub policy: String,
    pub rule: String,
    /// What it says; none: it allows.
    pub action: Option<Action>,
    /// What it is about, in words.
    pub about: String,
    pub standing: Standing,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Decides,
    /// Decides in its own file; of the files this rule's is the stricter, or as strict and first.
    Milder {
        policy: String,
        rule: String,
    },
    /// A rule of its own file is more specific.
    Wider {
        rule: String,
    },
}

/// What would let an act pass a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// These lines at the file's end.
    Add(String),
    /// Nothing is more specific than this rule: to be taken out, or these lines in its place,
    /// which only count.
    Replace { rule: String, with: String },
}

/// One thing that the kernel half looks up.
#[derive(Clone, Copy, Debug)]
enum Question<'a> {
    Act(Activity, Target),
    Namespace(NsType, Target),
    /// A bit.
    Capability(u64),
    /// With one access.
    Device(Device),
    /// A bit of [`operation`].
    File(u8, &'a str),
    Peer(Peer),
}

#[derive(Debug)]
struct Candidate<'p> {
    policy: &'p Policy,
    rule: &'p Rule,
    matched: &'p Match,
    rank: Rank,
}

impl Candidate<'_> {
    fn action(&self) -> u16 {
        action_of(self.rule)
    }

    fn held(&self, standing: Standing) -> Held {
        Held {
            policy: self.policy.name.clone(),
            rule: self.rule.name.clone(),
            action: Action::of(self.action()),
            about: thing(self.matched),
            standing,
        }
    }
}

/// All statements that hold for it, the one that decides first; empty where no file has a word
/// on it.
#[must_use]
pub fn explain(policies: &[&Policy], act: Act<'_>) -> Vec<Held> {
    let asked = asked(policies, act);
    let Some(decides) = decider(&asked) else {
        return Vec::new();
    };
    let mut all: Vec<Held> = Vec::new();
    for own in &asked {
        for (place, one) in own.iter().enumerate() {
            let standing = match own.first() {
                _ if std::ptr::eq(one, decides) => Standing::Decides,
                Some(first) if place > 0 => Standing::Wider {
                    rule: first.rule.name.clone(),
                },
                _ => Standing::Milder {
                    policy: decides.policy.name.clone(),
                    rule: decides.rule.name.clone(),
                },
            };
            let held = one.held(standing);
            let same = |other: &&mut Held| {
                (&other.policy, &other.rule, &other.about)
                    == (&held.policy, &held.rule, &held.about)
            };
            match all.iter_mut().find(same) {
                // Of several types it may decide for one and not for another.
                Some(other) if other.standing > held.standing => *other = held,
                Some(_) => {}
                None => all.push(held),
            }
        }
    }
    all.sort_by(|one, other| one.standing.cmp(&other.standing));
    all
}

/// What to write in the file of a policy, `text` with `overrides`, for the act to pass it; none
/// where it does.
#[must_use]
pub fn allowing(text: &str, overrides: Overrides, act: Act<'_>) -> Option<Advice> {
    let mut added = String::new();
    for _ in 0..MOST {
        let policy = with(text, &added, overrides)?;
        let asked = asked(&[&policy], act);
        let decides = decider(&asked).filter(|one| one.action() >= ACTION_AUDIT);
        let Some(decides) = decides else {
            return (!added.is_empty()).then_some(Advice::Add(added));
        };
        let fits = |lines: &String| {
            let next = with(text, &format!("{added}{lines}"), overrides);
            // Nearer: this one has no word in it any more.
            next.is_some_and(|next| {
                let next_asked = self::asked(&[&next], act);
                decider(&next_asked).is_none_or(|next| next.rule.name != decides.rule.name)
            })
        };
        let narrower = narrower(decides, &policy, act);
        match narrower.into_iter().find(fits) {
            Some(lines) => added.push_str(&lines),
            None => return Some(instead(decides)),
        }
    }
    None
}

fn with(text: &str, added: &str, overrides: Overrides) -> Option<Policy> {
    parse_with(format!("{text}\n{added}").as_bytes(), overrides).ok()
}

/// Rules that allow some of what one forbids, the least first.
fn narrower(decides: &Candidate<'_>, policy: &Policy, act: Act<'_>) -> Vec<String> {
    let name = |base: String| {
        let taken = |name: &str| policy.rules.iter().any(|rule| rule.name == name);
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut names = std::iter::once(base.clone()).chain(numbered);
        names.find(|name| !taken(name)).unwrap_or(base)
    };
    match decides.matched {
        Match::Named(wide) => {
            let questions = questions(act);
            let holds = |rule: &&NamedRule| {
                questions.iter().any(|question| match question {
                    Question::Act(activity, target) => {
                        wide.holds(*activity, *target) && rule.holds(*activity, *target)
                    }
                    _ => false,
                })
            };
            let mut rules: Vec<&NamedRule> = NAMED.iter().filter(holds).collect();
            rules.sort_by_key(|rule| rule.cells().count());
            let lines = |rule: &NamedRule| {
                let name = name(format!("allow-{}", rule.name));
                format!(
                    "\n[[rule]]\nname = \"{name}\"\neffect = \"allow\"\nnamed = \"{}\"\n",
                    rule.name
                )
            };
            rules.into_iter().map(lines).collect()
        }
        Match::Namespace(_) => {
            let (types, targets) = of_namespaces(act);
            let name = name(format!("allow-{}", targets.join("-")));
            vec![format!(
                "\n[[rule]]\nname = \"{name}\"\neffect = \"allow\"\nnamespace = {{ type = {types:?}, target = {targets:?} }}\n"
            )]
        }
        Match::Capability(_) => {
            let Act::Capability { name: capability } = act else {
                return Vec::new();
            };
            let bare = capability.trim_start_matches("CAP_");
            let name = name(format!("allow-{}", bare.to_ascii_lowercase()));
            vec![format!(
                "\n[[rule]]\nname = \"{name}\"\neffect = \"allow\"\ncapability = \"{bare}\"\n"
            )]
        }
        Match::Device(_) => {
            let Act::Device { what } = act else {
                return Vec::new();
            };
            let name = name("allow-device".to_owned());
            vec![format!(
                "\n[[rule]]\nname = \"{name}\"\neffect = \"allow\"\ndevice = \"{what}\"\n"
            )]
        }
        Match::Network(_) => {
            let Act::Peer(peer) = act else {
                return Vec::new();
            };
            let name = name(format!("allow-{}", peer.address).replace(':', "-"));
            let port = if peer.protocol == protocol::OTHER {
                String::new()
            } else {
                format!(", port = {}", peer.port)
            };
            vec![format!(
                "\n[[rule]]\nname = \"{name}\"\neffect = \"allow\"\n\
                 network = {{ direction = \"{}\", net = \"{}\"{port}, protocol = \"{}\" }}\n",
                word(&DIRECTIONS, peer.direction),
                peer.address,
                word(&PROTOCOLS, peer.protocol)
            )]
        }
        Match::Path(_) => {
            let Act::File { operation, path } = act else {
                return Vec::new();
            };
            let name = name("allow-file".to_owned());
            vec![format!(
                "\n[[rule]]\nname = \"{name}\"\neffect = \"allow\"\n\
                 file = {{ path = {path:?}, operation = \"{operation}\" }}\n"
            )]
        }
        Match::Syscall(_) => Vec::new(),
    }
}

/// The name of a bit.
fn word(names: &[(&'static str, u8)], bit: u8) -> &'static str {
    let found = names.iter().find(|(_, one)| *one == bit);
    found.map_or("", |(name, _)| name)
}

fn of_namespaces(act: Act<'_>) -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut types, mut targets) = (Vec::new(), Vec::new());
    for question in questions(act) {
        if let Question::Namespace(ty, target) = question {
            let (ty, target) = (ty.name(), target_name(target));
            if !types.contains(&ty) {
                types.push(ty);
            }
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
    }
    (types, targets)
}

fn instead(decides: &Candidate<'_>) -> Advice {
    let rule = decides.rule.name.clone();
    let with = match decides.matched {
        Match::Named(named) => format!(
            "\n[[rule]]\nname = \"{rule}\"\nmode = \"audit\"\nnamed = \"{}\"\n",
            named.name
        ),
        _ => String::new(),
    };
    Advice::Replace { rule, with }
}

/// For each question and policy those that hold, the one that decides there first.
fn asked<'p>(policies: &[&'p Policy], act: Act<'_>) -> Vec<Vec<Candidate<'p>>> {
    let of_itself = answers(policies, questions(act));
    if decider(&of_itself).is_some_and(|one| one.action() >= ACTION_AUDIT) {
        return of_itself;
    }
    let along = answers(policies, taken_along(policies, act));
    if decider(&along).is_some_and(|one| one.action() >= ACTION_AUDIT) {
        return along;
    }
    of_itself
}

/// A directory that is given another name takes files out of the reach of rules that name what
/// is below it: refused where anything is refused there.
fn taken_along<'p>(policies: &[&'p Policy], act: Act<'_>) -> Vec<Question<'p>> {
    let Act::File { operation, path } = act else {
        return Vec::new();
    };
    if operation != REMOVE {
        return Vec::new();
    }
    let rules = policies.iter().flat_map(|policy| &policy.rules);
    let mut named: Vec<&str> = rules
        .flat_map(|rule| &rule.matches)
        .filter_map(|matched| match Scope::from(matched) {
            Scope::Path { path, .. } => Some(path),
            _ => None,
        })
        .filter(|named| *named != path && below(path, named))
        .collect();
    named.sort_unstable();
    named.dedup();
    let each = |path| (0..operation::COUNT).map(move |place| Question::File(1 << place, path));
    named.into_iter().flat_map(each).collect()
}

fn answers<'p, 'q>(
    policies: &[&'p Policy],
    questions: impl IntoIterator<Item = Question<'q>>,
) -> Vec<Vec<Candidate<'p>>> {
    let mut all = Vec::new();
    for question in questions {
        for policy in policies {
            let mut own: Vec<Candidate<'p>> = Vec::new();
            for rule in &policy.rules {
                for matched in &rule.matches {
                    let scope = Scope::from(matched);
                    if question.is_in(&scope) {
                        own.push(Candidate {
                            policy,
                            rule,
                            matched,
                            rank: rank_of(rule.posture, &scope, action_of(rule)),
                        });
                    }
                }
            }
            // Of equal ones the first in the file decides.
            own.sort_by_key(|one| one.rank);
            if !own.is_empty() {
                all.push(own);
            }
        }
    }
    all
}

/// The strictest of what decides in each file, the first of several.
fn decider<'a, 'p>(asked: &'a [Vec<Candidate<'p>>]) -> Option<&'a Candidate<'p>> {
    let firsts = asked.iter().filter_map(|own| own.first());
    firsts.reduce(|strictest, one| {
        if one.action() > strictest.action() {
            one
        } else {
            strictest
        }
    })
}

fn questions(act: Act<'_>) -> Vec<Question<'_>> {
    match act {
        Act::Activity { activity, target } => {
            let act = activity_named(activity).zip(target_named(target));
            act.map(|(activity, target)| Question::Act(activity, target))
                .into_iter()
                .collect()
        }
        Act::Namespaces { syscall, targets } => {
            let mut all = Vec::new();
            for (namespace, target) in targets {
                let Some(target) = target_named(target) else {
                    continue;
                };
                let act = activity_named(syscall);
                all.extend(act.map(|activity| Question::Act(activity, target)));
                let ty = NsType::ALL.into_iter().find(|ty| ty.name() == *namespace);
                all.extend(ty.map(|ty| Question::Namespace(ty, target)));
            }
            all
        }
        Act::Capability { name } => {
            let bits = capability(name).map(Question::Capability);
            bits.into_iter().collect()
        }
        Act::Device { what } => {
            let asked = devices(what).unwrap_or_default().into_iter();
            let each = asked.flat_map(|device| {
                let bits = [access::READ, access::WRITE, access::MKNOD].into_iter();
                let bits = bits.filter(move |bit| device.access & bit != 0);
                bits.map(move |access| Device { access, ..device })
            });
            each.map(Question::Device).collect()
        }
        Act::File { operation, path } => {
            let place = operation::NAMES.iter().position(|name| *name == operation);
            let bit = place.map(|place| Question::File(1 << place, path));
            bit.into_iter().collect()
        }
        Act::Peer(peer) => vec![Question::Peer(peer)],
    }
}

impl Question<'_> {
    fn is_in(self, scope: &Scope<'_>) -> bool {
        match (self, scope) {
            (Self::Act(activity, target), Scope::Acts(rule)) => rule.holds(activity, target),
            (Self::Namespace(ty, target), Scope::Namespaces(namespaces)) => {
                namespaces.types & ty.bit() != 0 && namespaces.targets & bit(target) != 0
            }
            (Self::Capability(bit), Scope::Capabilities(bits)) => bits & bit != 0,
            (Self::Device(device), Scope::Device(wide)) => {
                holds(wide, &device) && wide.access & device.access != 0
            }
            (
                Self::File(bit, path),
                Scope::Path {
                    path: wide,
                    operations,
                },
            ) => below(wide, path) && operations & bit != 0,
            (Self::Peer(peer), Scope::Network(wide)) => {
                let (from, to) = wide.ports;
                wide.net.covers(&Cidr::of(peer.address))
                    && (from..=to).contains(&peer.port)
                    && wide.protocols & peer.protocol != 0
                    && wide.directions & peer.direction != 0
            }
            _ => false,
        }
    }
}

fn activity_named(name: &str) -> Option<Activity> {
    let found = Activity::ALL.iter().find(|one| one.name() == name);
    found.copied()
}

fn target_named(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|one| target_name(*one) == name)
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
