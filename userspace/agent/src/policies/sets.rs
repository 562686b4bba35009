//! Rulesets of the kernel half: which number stands for which choice of policies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paddock_policy::{Policy, compile};
use paddock_probe::{RULESETS, Slot};

use super::{
    Error, answered::Numbered, answers::answers, files, means::Here, paths::paths, peers::peers,
};
use crate::shared::Shared;

#[derive(Debug, Default)]
pub(super) struct Sets {
    /// By number; 0 is of no policy.
    sets: BTreeMap<u32, Set>,
    last: u32,
}

/// One choice of policies.
#[derive(Debug)]
struct Set {
    /// None where it is a predecessor's.
    policies: Vec<Arc<Policy>>,
    rules: Vec<Numbered>,
    /// A hit of one of them is more than a count.
    answered: bool,
    slots: BTreeSet<Slot>,
}

impl Set {
    fn of_predecessor(rules: Vec<Numbered>) -> Self {
        Self {
            policies: Vec::new(),
            answered: rules.iter().any(Numbered::is_answered),
            rules,
            slots: BTreeSet::new(),
        }
    }
}

impl Sets {
    /// What a predecessor's slots are bound to stays so until they are bound anew.
    pub(super) fn inherit(&mut self, shared: &Shared) {
        for number in 1..RULESETS {
            let Ok(number) = u32::try_from(number) else {
                return;
            };
            let rules = files::rules(shared.instance.dir(), number);
            if !rules.is_empty() {
                self.sets.insert(number, Set::of_predecessor(rules));
            }
        }
        for slot in shared.kernel.slots() {
            let number = shared.kernel.ruleset_of(slot);
            if number != 0 {
                let set = self.sets.entry(number);
                let set = set.or_insert_with(|| Set::of_predecessor(Vec::new()));
                set.slots.insert(slot);
                self.last = self.last.max(number);
            }
        }
    }

    pub(super) fn rule(&self, ruleset: u32, rule: u32) -> Option<&Numbered> {
        let rules = &self.sets.get(&ruleset)?.rules;
        rules.get(usize::try_from(rule).ok()?)
    }

    /// Whether a hit of any rule is more than a count.
    pub(super) fn any_answered(&self) -> bool {
        self.sets.values().any(|set| set.answered)
    }

    /// The number of a choice; 0 is of none.
    pub(super) fn known(&self, chosen: &[Arc<Policy>]) -> Option<u32> {
        if chosen.is_empty() {
            return Some(0);
        }
        let same = |set: &Set| {
            set.policies.len() == chosen.len()
                && set
                    .policies
                    .iter()
                    .zip(chosen)
                    .all(|(one, other)| Arc::ptr_eq(one, other))
        };
        let found = self.sets.iter().find(|(_, set)| same(set));
        found.map(|(number, _)| *number)
    }

    /// Gives a choice a number that nobody is bound to.
    pub(super) fn write(
        &mut self,
        shared: &Shared,
        chosen: &[Arc<Policy>],
        number: u32,
        next: &[(Slot, u32)],
    ) -> Result<u32, Error> {
        let policies: Vec<&Policy> = chosen.iter().map(AsRef::as_ref).collect();
        let ruleset = compile(&policies)?;
        let paths = paths(&ruleset)?;
        let said = answers(&ruleset, paths.root, &Here::of(shared))?;
        let peers = peers(&ruleset, number)?;
        let rules: Vec<_> = ruleset.rules.into_iter().map(Numbered::from).collect();
        if let Err(error) = files::keep_rules(shared.instance.dir(), number, &rules) {
            // What is in force needs no disk, and must come into force on a full one.
            tracing::warn!(
                "an agent after this one will not know the names of the rules that hold: {error}"
            );
        }
        self.sets.remove(&number);
        let idle: Vec<u32> = self.idle(next).collect();
        let forgotten = shared.kernel.set_peers(number, &peers, &idle);
        let also = shared.kernel.set_paths(number, &paths.names, &idle);
        if !matches!((&forgotten, &also), (Ok(false), Ok(false))) {
            // Their rules' names stay, for denials that are still in the ring.
            let sets = self.sets.iter_mut();
            let idle = sets.filter(|(number, _)| idle.contains(number));
            idle.for_each(|(_, set)| set.policies.clear());
        }
        forgotten
            .and(also)
            .and_then(|_| shared.kernel.set_answers(number, &said))
            .map_err(|source| Error::Kernel { source })?;
        self.last = number;
        let set = Set {
            policies: chosen.to_vec(),
            answered: rules.iter().any(Numbered::is_answered),
            rules,
            slots: BTreeSet::new(),
        };
        self.sets.insert(number, set);
        Ok(number)
    }

    /// The next that nobody is bound to; `next` are those that are about to be.
    pub(super) fn free(&mut self, shared: &Shared, next: &[(Slot, u32)]) -> Option<u32> {
        // Slots that were given back are bound to nothing.
        let bound = |slot: &Slot, number: u32| shared.kernel.ruleset_of(*slot) == number;
        for (number, set) in &mut self.sets {
            set.slots.retain(|slot| bound(slot, *number));
        }
        // In turn.
        self.idle(next)
            .min_by_key(|number| (*number <= self.last, *number))
    }

    /// Numbers that nobody is bound to nor about to be.
    fn idle(&self, next: &[(Slot, u32)]) -> impl Iterator<Item = u32> {
        let used = move |number: &u32| {
            let set = self.sets.get(number);
            set.is_some_and(|set| !set.slots.is_empty())
                || next.iter().any(|(_, other)| other == number)
        };
        (1..RULESETS)
            .filter_map(|number| u32::try_from(number).ok())
            .filter(move |number| !used(number))
    }

    pub(super) fn bind(&mut self, shared: &Shared, slot: Slot, number: u32) -> Result<(), Error> {
        let kernel = &shared.kernel;
        let told = if number == 0 {
            Ok(())
        } else {
            kernel.any_bound(true)
        };
        told.and_then(|()| kernel.bind_ruleset(slot, number))
            .map_err(|source| Error::Kernel { source })?;
        for (other, set) in &mut self.sets {
            if *other == number {
                set.slots.insert(slot);
            } else {
                set.slots.remove(&slot);
            }
        }
        Ok(())
    }
}
