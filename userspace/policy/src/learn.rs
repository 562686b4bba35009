//! The policy that denies whatever a container was never seen to do.
//!
//! It begins with every named rule and every making of a namespace denied, and takes back what
//! one of the acts on record meets, until none is forbidden: what it says of them is asked of
//! itself.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use paddock_abi::namespace::NsType;

use crate::{
    Act, Policy, explain,
    named::{NAMED, NamedRule},
    parse,
};

const EVERY_ESCAPE: &str = "any-escape";
const NEW: &str = "new-namespaces";
/// Of a policy's name.
const LONGEST: usize = 64;

/// What a learned file says.
#[derive(Clone, Debug)]
struct Draft<'a> {
    name: String,
    container: &'a str,
    deny: BTreeSet<&'static str>,
    allow: BTreeSet<&'static str>,
    /// Namespaces that it never made.
    never_made: BTreeSet<&'static str>,
}

/// A policy file for the container of this name, which did these acts. What is in `without` no
/// rule may be about: a kernel half may not see it. None where nothing is left to deny.
#[must_use]
pub fn learn(container: &str, done: &[Act<'_>], without: &[&str]) -> Option<String> {
    let left = |name: &&'static str| !without.contains(name);
    let mut draft = Draft {
        name: format!("learned-{container}")
            .chars()
            .take(LONGEST)
            .collect(),
        container,
        deny: NAMED.iter().map(|rule| rule.name).filter(left).collect(),
        allow: BTreeSet::new(),
        never_made: NsType::ALL
            .iter()
            .map(|ty| ty.name())
            .filter(|_| !without.contains(&NEW))
            .collect(),
    };
    // Each round takes a name or a type away or lets one pass.
    for _ in 0..=2 * NAMED.len() + NsType::ALL.len() {
        let text = draft.text();
        let policy = parse(text.as_bytes()).ok()?;
        let forbidden = |act: &&Act<'_>| forbids(&policy, **act).is_some();
        let Some(act) = done.iter().find(forbidden) else {
            return Some(text);
        };
        let rule = forbids(&policy, *act)?;
        draft.give_way(&rule, *act);
    }
    None
}

/// The rule that forbids it.
fn forbids(policy: &Policy, act: Act<'_>) -> Option<String> {
    let held = explain(&[policy], act).into_iter().next()?;
    held.action.map(|_| held.rule)
}

impl Draft<'_> {
    /// Says less, so that `rule` is nothing to the act any more.
    fn give_way(&mut self, rule: &str, act: Act<'_>) {
        if rule == NEW {
            if let Act::Namespaces { targets, .. } = act {
                self.never_made
                    .retain(|ty| targets.iter().all(|(namespace, _)| namespace != ty));
            }
            return;
        }
        if rule == EVERY_ESCAPE
            && let Some(narrow) = self.exception(act)
        {
            self.allow.insert(narrow.name);
            return;
        }
        self.deny.remove(rule);
    }

    /// The narrowest name that lets the act pass beside all other escapes.
    fn exception(&self, act: Act<'_>) -> Option<&'static NamedRule> {
        let lets = |rule: &&NamedRule| {
            let free = !self.deny.contains(rule.name) && !self.allow.contains(rule.name);
            let mut next = self.clone();
            next.allow.insert(rule.name);
            let policy = parse(next.text().as_bytes());
            free && policy
                .is_ok_and(|policy| forbids(&policy, act).is_none_or(|rule| rule != EVERY_ESCAPE))
        };
        let found = NAMED.iter().filter(lets);
        found.min_by_key(|rule| rule.cells().count())
    }

    fn text(&self) -> String {
        let mut text = format!(
            "name = \"{}\"\ndescription = \"What {} was never seen to do is denied\"\nmode = \"audit\"\n",
            self.name, self.container
        );
        let mut list = |key: &str, names: &BTreeSet<&str>| {
            if !names.is_empty() {
                let _ = writeln!(text, "{key} = [");
                for name in names {
                    let _ = writeln!(text, "    \"{name}\",");
                }
                text.push_str("]\n");
            }
        };
        list("deny", &self.deny);
        list("allow", &self.allow);
        let _ = writeln!(text, "\n[select]\nname = \"{}\"", self.container);
        if !self.never_made.is_empty() {
            let types: Vec<&str> = self.never_made.iter().copied().collect();
            let _ = writeln!(
                text,
                "\n[[rule]]\nname = \"{NEW}\"\nnamespace = {{ type = {types:?}, target = \"new\" }}"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::named::{TARGETS, target_name};
    use paddock_abi::activity::Activity;

    fn of(done: &[Act<'_>]) -> Policy {
        let text = learn("web", done, &[]).unwrap();
        let policy = parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        for act in done {
            assert_eq!(forbids(&policy, *act), None, "{act:?}\n{text}");
        }
        policy
    }

    #[test]
    fn of_nothing_done_all_is_denied() {
        let policy = of(&[]);
        assert_eq!(policy.rules.len(), NAMED.len() + 1);
        assert_eq!(policy.select.name, ["web"]);
    }

    #[test]
    fn what_was_done_passes_and_the_rest_of_its_kind_does_not() {
        let done = [
            Act::Activity {
                activity: "runtime_socket",
                target: "host",
            },
            Act::Namespaces {
                syscall: "unshare",
                targets: &[("uts", "new"), ("ipc", "new")],
            },
            Act::Namespaces {
                syscall: "setns",
                targets: &[("net", "host")],
            },
        ];
        let policy = of(&done);
        let sysrq = Act::Activity {
            activity: "sysrq",
            target: "host",
        };
        assert_eq!(forbids(&policy, sysrq).as_deref(), Some("sysrq"));
        let net = Act::Namespaces {
            syscall: "unshare",
            targets: &[("net", "new")],
        };
        assert_eq!(forbids(&policy, net).as_deref(), Some(NEW));
        // Another escape without a name of its own in the file.
        assert!(policy.rules.iter().any(|rule| rule.name == EVERY_ESCAPE));
    }

    /// Whatever single act is on record, and all of them together.
    #[test]
    fn no_act_on_record_is_forbidden() {
        let mut all = Vec::new();
        for activity in Activity::ALL {
            for target in TARGETS {
                let act = Act::Activity {
                    activity: activity.name(),
                    target: target_name(target),
                };
                of(&[act]);
                all.push(act);
            }
        }
        of(&all);
    }

    #[test]
    fn what_cannot_be_seen_is_left_out() {
        let text = learn("web", &[], &["kernel-tunables", NEW]).unwrap();
        assert!(
            !text.contains("kernel-tunables") && !text.contains(NEW),
            "{text}"
        );
        let long = "x".repeat(128);
        assert!(parse(learn(&long, &[], &[]).unwrap().as_bytes()).is_ok());
    }
}
