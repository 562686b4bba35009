//! How often each rule was hit, by container: the kernel half's counts, with names.
//!
//! The kernel half counts by slot, ruleset and the rule's number in it, which all are used again.
//! What has grown since the last look is added up here before they are.

use std::collections::{BTreeMap, HashMap};

use paddock_probe::{HitKey, Slot, policy};

use super::sets::Sets;
use crate::shared::Shared;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hit {
    pub(crate) policy: String,
    pub(crate) rule: String,
    /// `ACTION_*`.
    pub(crate) action: u32,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    seen: HashMap<HitKey, u64>,
    by_container: BTreeMap<String, BTreeMap<Hit, u64>>,
}

impl Ledger {
    /// Takes in what has grown. What is nobody's yet stays for the next look.
    pub(super) fn read(&mut self, shared: &Shared, sets: &Sets) {
        for (key, count) in shared.kernel.hits() {
            let Some(container) = shared.registry.of_slot(Slot(key.slot)) else {
                continue;
            };
            let Some(rule) = sets.rule(key.ruleset, key.rule) else {
                continue;
            };
            let seen = self.seen.insert(key, count).unwrap_or(0);
            let hit = Hit {
                policy: rule.policy.clone(),
                rule: rule.rule.clone(),
                action: key.action,
            };
            let rules = self.by_container.entry(container.name.clone()).or_default();
            *rules.entry(hit).or_default() += count.saturating_sub(seen);
        }
    }

    pub(super) fn forget(&mut self, which: impl Fn(&HitKey) -> bool) {
        self.seen.retain(|key, _| !which(key));
    }

    /// Those whose series are gone.
    pub(super) fn keep(&mut self, exported: impl Fn(&str) -> bool) {
        self.by_container.retain(|name, _| exported(name));
    }

    /// A policy's rules: what was refused, and what audit let through.
    pub(super) fn of_policy(&self, name: &str) -> BTreeMap<String, (u64, u64)> {
        let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let all = self.by_container.values().flatten();
        for (rule, count) in all.filter(|(rule, _)| rule.policy == name) {
            let (denied, would_deny) = sums.entry(rule.rule.clone()).or_default();
            if rule.action == u32::from(policy::ACTION_AUDIT) {
                *would_deny += count;
            } else {
                *denied += count;
            }
        }
        sums
    }

    pub(super) fn by_container(&self) -> &BTreeMap<String, BTreeMap<Hit, u64>> {
        &self.by_container
    }
}
