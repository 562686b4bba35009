//! Which of the kernel half's counts of hits have been answered by what their rules say: pause,
//! stop, disarm.
//!
//! The counts decide and records only wake, so a full ring loses no reaction. What was answered
//! is kept for the next agent, which answers what was hit while there was none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use paddock_policy::{RuleInfo, model::Reaction};
use paddock_probe::HitKey;
use serde::{Deserialize, Serialize};

/// What a rule's number in a ruleset stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) policy: String,
    pub(crate) rule: String,
    /// By its name.
    reaction: String,
    /// More containers than these within so many seconds.
    disarm: Option<(u32, u32)>,
}

impl From<RuleInfo> for Numbered {
    fn from(rule: RuleInfo) -> Self {
        Self {
            policy: rule.policy,
            rule: rule.rule,
            reaction: rule.reaction.name().to_owned(),
            disarm: rule.disarm.map(|disarm| (disarm.hits, disarm.window_s)),
        }
    }
}

impl Numbered {
    /// What the agent does about a hit.
    pub(super) fn reaction(&self) -> Option<Reaction> {
        let reaction = Reaction::find(&self.reaction)?;
        matches!(reaction, Reaction::Pause | Reaction::Stop).then_some(reaction)
    }

    /// Whether a hit is more than a count.
    pub(super) fn is_answered(&self) -> bool {
        self.reaction().is_some() || self.disarm.is_some()
    }
}

/// One count, as the next agent reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answered {
    slot: u32,
    ruleset: u32,
    rule: u32,
    action: u32,
    /// Whose slot it was.
    container: String,
    count: u64,
}

/// A rule by its policy's name and its own.
type Name = (String, String);

#[derive(Debug, Default)]
pub(super) struct Answers {
    answered: HashMap<HitKey, (String, u64)>,
    /// When each container was hit last, and its name, of rules that can disarm themselves.
    windows: BTreeMap<Name, BTreeMap<String, (u64, String)>>,
    /// Containers with which something is being done.
    pub(super) busy: BTreeSet<String>,
    /// Something is to be kept.
    changed: bool,
}

impl Answers {
    pub(super) fn restore(&mut self, kept: Vec<Answered>) {
        let entry = |one: Answered| {
            let key = HitKey {
                slot: one.slot,
                ruleset: one.ruleset,
                rule: one.rule,
                action: one.action,
            };
            (key, (one.container, one.count))
        };
        self.answered = kept.into_iter().map(entry).collect();
    }

    /// What is to be kept anew. A container with which something is being done is not answered
    /// yet: where the agent is killed meanwhile, the next one does it again.
    pub(super) fn news(&mut self) -> Option<Vec<Answered>> {
        std::mem::take(&mut self.changed).then(|| self.kept())
    }

    fn kept(&self) -> Vec<Answered> {
        let done = |(_, (container, _)): &(&HitKey, &(String, u64))| !self.busy.contains(container);
        let one = |(key, (container, count)): (&HitKey, &(String, u64))| Answered {
            slot: key.slot,
            ruleset: key.ruleset,
            rule: key.rule,
            action: key.action,
            container: container.clone(),
            count: *count,
        };
        self.answered.iter().filter(done).map(one).collect()
    }

    pub(super) fn is_done(&mut self, container: &str) {
        self.changed |= self.busy.remove(container);
    }

    /// Whether there is more to a count than was answered; from now on there is not.
    pub(super) fn take(&mut self, key: HitKey, container: &str, count: u64) -> bool {
        let before = self.answered.insert(key, (container.to_owned(), count));
        // A slot that has gone to another container begins anew.
        let before = before.filter(|(whose, _)| whose == container);
        let more = count > before.map_or(0, |(_, before)| before);
        self.changed |= more;
        more
    }

    pub(super) fn forget(&mut self, which: impl Fn(&HitKey) -> bool) {
        self.answered.retain(|key, _| !which(key));
    }

    /// A rule hit a container, given by id and name. The names of those that it hit within its window, where they are more
    /// than it may.
    pub(super) fn crowd(
        &mut self,
        rule: &Numbered,
        container: (&str, &str),
        now_ns: u64,
    ) -> Option<Vec<String>> {
        const SECOND: u64 = 1_000_000_000;
        let (hits, window_s) = rule.disarm?;
        let name = (rule.policy.clone(), rule.rule.clone());
        let window = self.windows.entry(name).or_default();
        let (id, name) = container;
        window.insert(id.to_owned(), (now_ns, name.to_owned()));
        let span = u64::from(window_s).saturating_mul(SECOND);
        window.retain(|_, (at, _)| now_ns.saturating_sub(*at) < span);
        let many = window.len() > usize::try_from(hits).unwrap_or(usize::MAX);
        many.then(|| window.values().map(|(_, name)| name.clone()).collect())
    }

    /// A policy's rules are armed anew, or gone.
    pub(super) fn rearm(&mut self, policy: &str) {
        self.windows.retain(|(of, _), _| of != policy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn key(slot: u32) -> HitKey {
        HitKey {
            slot,
            ruleset: 1,
            rule: 0,
            action: 2,
        }
    }

    fn rule(disarm: Option<(u32, u32)>) -> Numbered {
        Numbered {
            policy: "p".into(),
            rule: "r".into(),
            reaction: "pause".into(),
            disarm,
        }
    }

    #[test]
    fn a_count_is_answered_once_also_by_the_next_agent() {
        let mut answers = Answers::default();
        assert!(!answers.take(key(1), "a", 0));
        assert!(answers.take(key(1), "a", 1));
        assert!(!answers.take(key(1), "a", 1));
        assert!(answers.take(key(1), "a", 3));
        let mut next = Answers::default();
        answers.busy.insert("b".into());
        assert!(answers.take(key(2), "b", 1));
        let kept = answers.news().unwrap();
        assert!(answers.news().is_none());
        next.restore(kept);
        // With that one it was busy when it ended.
        assert!(next.take(key(2), "b", 1));
        assert!(!next.take(key(1), "a", 3));
        // The slot is another's.
        assert!(next.take(key(1), "b", 1));
        next.forget(|key| key.slot == 1);
        assert!(next.take(key(1), "b", 1));
    }

    #[test]
    fn more_containers_than_it_may_hit_within_its_window() {
        let mut answers = Answers::default();
        let rule = rule(Some((2, 10)));
        assert_eq!(answers.crowd(&rule, ("a", "a"), 0), None);
        assert_eq!(answers.crowd(&rule, ("a", "a"), SECOND), None);
        assert_eq!(answers.crowd(&rule, ("b", "b"), 2 * SECOND), None);
        // The first is out of it by now.
        assert_eq!(answers.crowd(&rule, ("c", "c"), 11 * SECOND), None);
        let three = ["b", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(answers.crowd(&rule, ("d", "d"), 11 * SECOND), Some(three));
        answers.rearm("p");
        assert_eq!(answers.crowd(&rule, ("e", "e"), 11 * SECOND), None);
        assert_eq!(answers.crowd(&self::rule(None), ("e", "e"), 0), None);
    }

    #[test]
    fn only_what_the_agent_does_is_a_reaction() {
        let named = |reaction: &str| Numbered {
            reaction: reaction.into(),
            ..rule(None)
        };
        assert_eq!(named("pause").reaction(), Some(Reaction::Pause));
        assert_eq!(named("stop").reaction(), Some(Reaction::Stop));
        for other in ["deny", "kill", "teleport"] {
            assert!(!named(other).is_answered(), "{other}");
        }
    }
}
