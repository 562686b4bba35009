//! The policies in force, and which of them hold for which container.
//!
//! Each distinct choice of policies has a ruleset of the kernel half, which containers share. A
//! change first writes rulesets that nobody is bound to and then one word for each container: at
//! each moment the old or the new holds. A number is not used again before all others were, so
//! that a denial that is still in the ring is told by the rule that it was of.

mod answered;
mod answers;
mod devices;
pub(crate) mod directory;
mod explain;
mod files;
mod ledger;
mod means;
mod paths;
mod peers;
pub(crate) mod reactions;
mod sets;
mod who;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use paddock_policy::{
    Overrides, Policy, TooManyRules,
    model::{self, WhenUnenforceable},
};
use paddock_probe::{HitKey, RULESETS, Slot};
use tokio::sync::Notify;

use self::{
    devices::TooManyDevices,
    ledger::Ledger,
    means::{CAPABILITY, FILE, Here, INGRESS, Means, begun_by_peers, denials},
    paths::TooDeep,
    peers::TooManyPorts,
    sets::Sets,
    who::{chosen, holds},
};
pub(crate) use self::{ledger::Hit, who::Who};
use crate::{
    api::{PolicyCheck, PolicyDetail, PolicyOverrides, PolicySummary, RuleSummary},
    guard,
    shared::Shared,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Rules(#[from] TooManyRules),
    #[error(transparent)]
    Ports(#[from] TooManyPorts),
    #[error(transparent)]
    Devices(#[from] TooManyDevices),
    #[error(transparent)]
    Paths(#[from] TooDeep),
    #[error(
        "more than {} choices of policies would hold at once; let policies select more alike",
        RULESETS - 1
    )]
    Full,
    #[error("no policy '{name}' is in force")]
    Unknown { name: String },
    #[error("this kernel cannot enforce policies: {reason}")]
    Off { reason: String },
    #[error(
        "{policy}: {rule}: this kernel cannot keep {what} from happening{why}; leave the rule \
         out, or have it counted only: when_unenforceable = \"audit\""
    )]
    Unenforceable {
        policy: String,
        rule: String,
        what: String,
        why: String,
    },
    #[error("{policy}: {rule}: {what} cannot be seen here{why}; leave the rule out{instead}")]
    Unseen {
        policy: String,
        rule: String,
        what: String,
        why: String,
        instead: &'static str,
    },
    #[error("{0}")]
    Faults(String),
    #[error("no event {id}: there was none, or it is not kept any more")]
    NoEvent { id: u64 },
    #[error(
        "event {id} is no act that policies judge: setns, unshare, clone, an activity, a denial"
    )]
    NotJudged { id: u64 },
    #[error("cannot keep the policy for the next agent")]
    Keep {
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write what policies say")]
    Kernel {
        #[source]
        source: paddock_probe::Error,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Policies {
    inner: Mutex<Inner>,
    /// A denial was told: counts have grown.
    stirred: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    applied: BTreeMap<String, Applied>,
    sets: Sets,
    ledger: Ledger,
    answers: answered::Answers,
    /// Files of `policy.dir` that are not in force, and why.
    refused: Vec<String>,
    /// What a predecessor had in force could not all be read: what it bound stays bound.
    unread: bool,
}

#[derive(Clone, Debug)]
struct Applied {
    /// With the rules that are disarmed in audit.
    policy: Arc<Policy>,
    text: Vec<u8>,
    overrides: Overrides,
    disarmed: BTreeSet<String>,
}

impl Policies {
    /// In the place of one of the same name. What fails leaves what was in force.
    pub(crate) fn apply(
        &self,
        shared: &Shared,
        text: &[u8],
        overrides: Overrides,
    ) -> Result<PolicySummary, Error> {
        if let Some(reason) = shared.kernel.unavailable() {
            return Err(Error::Off {
                reason: reason.to_owned(),
            });
        }
        let policy = paddock_policy::parse_with(text, overrides)
            .map_err(|faults| Error::Faults(faults.lines("policy")))?;
        served(shared, &policy)?;
        let mut inner = self.lock();
        let name = policy.name.clone();
        let new = Applied {
            policy: Arc::new(policy),
            text: text.to_vec(),
            overrides,
            disarmed: BTreeSet::new(),
        };
        let mut applied = inner.applied.clone();
        let old = applied.insert(name.clone(), new);
        let state = shared.instance.dir();
        let keep = |one: &Applied| one.keep(state, &name);
        keep(&applied[&name]).map_err(|source| Error::Keep { source })?;
        if let Err(error) = inner.change(shared, applied) {
            let back = old.map_or_else(|| files::forget(state, &name), |old| keep(&old));
            if let Err(error) = back {
                tracing::error!(
                    "{name}: what is kept for the next agent is not what is in force: {error}"
                );
            }
            inner.rest(shared);
            return Err(error);
        }
        inner.answers.rearm(&name);
        drop(inner);
        guard::follow(shared, self);
        self.summary(shared, &name)
    }

    /// Puts one that is in force to another mode.
    pub(crate) fn set_mode(
        &self,
        shared: &Shared,
        name: &str,
        overrides: Overrides,
    ) -> Result<PolicySummary, Error> {
        let unknown = || Error::Unknown {
            name: name.to_owned(),
        };
        let old = self.lock().applied.get(name).cloned();
        let old = old.ok_or_else(unknown)?;
        let overrides = Overrides {
            mode: overrides.mode.or(old.overrides.mode),
            when_unenforceable: overrides
                .when_unenforceable
                .or(old.overrides.when_unenforceable),
        };
        self.apply(shared, &old.text, overrides)
    }

    pub(crate) fn remove(&self, shared: &Shared, name: &str) -> Result<(), Error> {
        let mut inner = self.lock();
        let mut applied = inner.applied.clone();
        if applied.remove(name).is_none() {
            return Err(Error::Unknown {
                name: name.to_owned(),
            });
        }
        let last = applied.is_empty();
        // What hangs for none of them goes with it.
        inner.change(shared, applied)?;
        inner.answers.rearm(name);
        let state = shared.instance.dir();
        files::forget(state, name).map_err(|source| Error::Keep { source })?;
        if last {
            // Names of rules, too, which nobody is bound to.
            files::forget_all(state);
        }
        drop(inner);
        guard::follow(shared, self);
        Ok(())
    }

    /// Takes up what a predecessor had in force, before any container is known. Until they are
    /// bound anew its containers stay bound as they were: the kernel half goes on with that.
    pub(crate) fn restore(&self, shared: &Shared) {
        let mut inner = self.lock();
        inner.sets.inherit(shared);
        if shared.kernel.adopted() {
            inner
                .answers
                .restore(files::answered(shared.instance.dir()));
        }
        let kept = match files::kept(shared.instance.dir()) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(
                    "policies of the last agent cannot be read, what they forbid its containers \
                     stays so until a policy is applied or removed: {error}"
                );
                inner.unread = true;
                return;
            }
        };
        for kept in kept {
            let policy = match paddock_policy::parse_with(&kept.text, kept.overrides) {
                Ok(policy) => policy,
                Err(faults) => {
                    tracing::error!(
                        "a policy of the last agent cannot be read, what it forbids that agent's \
                         containers stays so until a policy is applied or removed: {}",
                        faults.lines(&kept.name).trim_end()
                    );
                    inner.unread = true;
                    continue;
                }
            };
            // Another kernel than it was put in force on: what can be enforced is.
            if let Err(error) = served(shared, &policy) {
                tracing::error!("{error}; until then it is enforced as far as it can be");
            }
            let applied = Applied {
                policy: Arc::new(reactions::audited(policy, &kept.disarmed)),
                text: kept.text,
                overrides: kept.overrides,
                disarmed: kept.disarmed,
            };
            inner.applied.insert(applied.policy.name.clone(), applied);
        }
    }

    /// Whether anything is kept from happening.
    pub(crate) fn enforce(&self) -> bool {
        let inner = self.lock();
        let enforced =
            |one: &Applied| denials(&one.policy).any(|rule| rule.mode == model::Mode::Enforce);
        inner.unread || inner.applied.values().any(enforced)
    }

    /// In the order of their names.
    pub(crate) fn all(&self, shared: &Shared) -> Vec<PolicySummary> {
        let names: Vec<String> = self.lock().applied.keys().cloned().collect();
        let summary = |name: &String| self.summary(shared, name).ok();
        names.iter().filter_map(summary).collect()
    }

    fn summary(&self, shared: &Shared, name: &str) -> Result<PolicySummary, Error> {
        let one = self.lock().applied.get(name).cloned();
        let Applied {
            policy, disarmed, ..
        } = one.ok_or_else(|| Error::Unknown {
            name: name.to_owned(),
        })?;
        let hits = {
            let mut inner = self.lock();
            inner.read_hits(shared);
            inner.ledger.of_policy(name)
        };
        let all = shared.registry.all().into_iter();
        Ok(PolicySummary {
            name: policy.name.clone(),
            description: policy.description.clone(),
            mode: policy.mode.name().to_owned(),
            rules: rules(shared, &policy, &disarmed, &hits),
            containers: all
                .filter(|one| holds(&policy, shared, &Who::of(one)))
                .map(|one| one.name.clone())
                .collect(),
        })
    }

    pub(crate) fn detail(&self, shared: &Shared, name: &str) -> Result<PolicyDetail, Error> {
        let summary = self.summary(shared, name)?;
        let one = self.lock().applied.get(name).cloned();
        let one = one.ok_or_else(|| Error::Unknown {
            name: name.to_owned(),
        })?;
        let when = |when: WhenUnenforceable| when.name().to_owned();
        Ok(PolicyDetail {
            summary,
            when_unenforceable: when(one.policy.when_unenforceable),
            overrides: PolicyOverrides {
                mode: one.overrides.mode.map(|mode| mode.name().to_owned()),
                when_unenforceable: one.overrides.when_unenforceable.map(when),
            },
            text: String::from_utf8_lossy(&one.text).into_owned(),
        })
    }

    /// What a policy would be enforced by, before it is in force.
    pub(crate) fn check(shared: &Shared, text: &[u8]) -> Result<PolicyCheck, Error> {
        let policy =
            paddock_policy::parse(text).map_err(|faults| Error::Faults(faults.lines("policy")))?;
        let refused = match shared.kernel.unavailable() {
            Some(reason) => Err(Error::Off {
                reason: reason.to_owned(),
            }),
            None => served(shared, &policy),
        };
        Ok(PolicyCheck {
            rules: rules(shared, &policy, &BTreeSet::new(), &BTreeMap::new()),
            refused: refused.err().map(|error| error.to_string()),
        })
    }

    /// Before its first instruction where it is launched, as soon as it is found else.
    pub(crate) fn bind(&self, shared: &Shared, who: &Who, slot: Slot) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.unread && shared.kernel.ruleset_of(slot) != 0 {
            return Ok(());
        }
        let chosen = chosen(&inner.applied, shared, who);
        if any_paths(&inner.applied) {
            let kernel = &shared.kernel;
            let hung = kernel.any_paths(true);
            hung.map_err(|source| Error::Kernel { source })?;
        }
        let number = inner.number_of(shared, &chosen, &[])?;
        inner.sets.bind(shared, slot, number)
    }

    /// Binds all anew: more became known of one.
    pub(crate) fn refresh(&self, shared: &Shared) -> Result<(), Error> {
        let mut inner = self.lock();
        let applied = inner.applied.clone();
        if applied.is_empty() || inner.unread {
            return Ok(());
        }
        inner.change(shared, applied)
    }

    /// Policy and rule that a number of the kernel half's stands for.
    pub(crate) fn rule(&self, ruleset: u32, rule: u32) -> Option<(String, String)> {
        let inner = self.lock();
        let rule = inner.sets.rule(ruleset, rule)?;
        Some((rule.policy.clone(), rule.rule.clone()))
    }

    /// How often each rule was hit, by container; `exported` are those that have series.
    pub(crate) fn hits(
        &self,
        shared: &Shared,
        exported: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, BTreeMap<Hit, u64>> {
        let mut inner = self.lock();
        inner.read_hits(shared);
        inner.ledger.keep(exported);
        inner.ledger.by_container().clone()
    }

    /// A slot is about to be another's.
    pub(crate) fn leave(&self, shared: &Shared, slot: Slot) {
        let mut inner = self.lock();
        if inner.applied.is_empty() && shared.kernel.hits().is_empty() {
            return;
        }
        inner.read_hits(shared);
        inner.forget_hits(shared, |key| key.slot == slot.0);
    }

    /// In the order of their names, those that hold for a container.
    fn holding(&self, shared: &Shared, who: &Who) -> Vec<Applied> {
        let applied = self.lock().applied.clone();
        let holds = |one: &Applied| holds(&one.policy, shared, who);
        applied.into_values().filter(holds).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves what is in force as it was.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn read_hits(&mut self, shared: &Shared) {
        self.ledger.read(shared, &self.sets);
    }

    fn forget_hits(&mut self, shared: &Shared, which: impl Fn(&HitKey) -> bool + Copy) {
        self.ledger.forget(which);
        self.answers.forget(which);
        if let Err(error) = shared.kernel.forget_hits(which) {
            tracing::warn!("counts of policies' rules stay: {error}");
        }
    }

    fn number_of(
        &mut self,
        shared: &Shared,
        chosen: &[Arc<Policy>],
        next: &[(Slot, u32)],
    ) -> Result<u32, Error> {
        if let Some(number) = self.sets.known(chosen) {
            return Ok(number);
        }
        let number = self.sets.free(shared, next).ok_or(Error::Full)?;
        // Counts under this number are of the rules before.
        self.read_hits(shared);
        self.forget_hits(shared, |key| key.ruleset == number);
        self.sets.write(shared, chosen, number, next)
    }

    /// What hangs that nothing in force asks for goes.
    fn rest(&self, shared: &Shared) {
        if self.unread {
            return;
        }
        let kernel = &shared.kernel;
        let mut let_go = Ok(());
        if !any_paths(&self.applied) {
            let_go = kernel.any_paths(false);
        }
        if self.applied.is_empty() {
            let_go = let_go.and(kernel.any_bound(false));
        }
        if let Err(error) = let_go {
            tracing::warn!("hooks of policies stay, which ask for nobody: {error}");
        }
    }

    /// All or nothing.
    fn change(&mut self, shared: &Shared, applied: BTreeMap<String, Applied>) -> Result<(), Error> {
        if !applied.is_empty() {
            // What asks hangs before anybody is bound.
            shared
                .kernel
                .any_bound(true)
                .map_err(|source| Error::Kernel { source })?;
        }
        if any_paths(&applied) {
            shared
                .kernel
                .any_paths(true)
                .map_err(|source| Error::Kernel { source })?;
        }
        let mut next: Vec<(Slot, u32)> = Vec::new();
        for container in shared.registry.all() {
            let Some(slot) = container.facts().slot else {
                continue;
            };
            let chosen = chosen(&applied, shared, &Who::of(&container));
            let number = self.number_of(shared, &chosen, &next)?;
            next.push((slot, number));
        }
        let mut done = Vec::new();
        for (slot, number) in next {
            let before = shared.kernel.ruleset_of(slot);
            if let Err(error) = self.sets.bind(shared, slot, number) {
                for (slot, before) in done {
                    // What has just been written can be written.
                    let _ = self.sets.bind(shared, slot, before);
                }
                return Err(error);
            }
            done.push((slot, before));
        }
        self.applied = applied;
        self.unread = false;
        self.rest(shared);
        Ok(())
    }
}

/// Whether any names paths that something is forbidden at.
fn any_paths(applied: &BTreeMap<String, Applied>) -> bool {
    let names = |rule: &model::Rule| {
        let mut all = rule.matches.iter();
        all.any(|one| matches!(one, model::Match::Path(_)))
    };
    let mut all = applied.values();
    all.any(|one| denials(&one.policy).any(names))
}

fn rules(
    shared: &Shared,
    policy: &Policy,
    disarmed: &BTreeSet<String>,
    hits: &BTreeMap<String, (u64, u64)>,
) -> Vec<RuleSummary> {
    let here = Here::of(shared);
    let begun_by_peers = begun_by_peers(policy);
    let whom = who::whom(shared, policy);
    let summary = |rule: &model::Rule| {
        let (denied, would_deny) = hits.get(&rule.name).copied().unwrap_or_default();
        RuleSummary {
            name: rule.name.clone(),
            mode: rule.mode.name().to_owned(),
            disarmed: disarmed.contains(&rule.name),
            means: here.of_rule(rule, &begun_by_peers, whom).named(),
            denied,
            would_deny,
        }
    };
    denials(policy).map(summary).collect()
}

/// Refuses what would not be enforced, unless the policy says that it need not be.
fn served(shared: &Shared, policy: &Policy) -> Result<(), Error> {
    let here = Here::of(shared);
    let begun_by_peers = begun_by_peers(policy);
    let whom = who::whom(shared, policy);
    for rule in denials(policy) {
        let by = here.of_rule(rule, &begun_by_peers, whom).by;
        let listed = |means| {
            let all = by.get(&means)?;
            let all: Vec<_> = all.iter().copied().collect();
            Some(all.join(", "))
        };
        let why = || {
            let reason = shared.kernel.why_not("enforce");
            reason.map_or_else(String::new, |reason| format!(" ({reason})"))
        };
        let (policy_name, rule_name) = (policy.name.clone(), rule.name.clone());
        if let Some(what) = listed(Means::Unseen) {
            let asked = [CAPABILITY, FILE].contains(&what.as_str());
            let instead = match what.as_str() {
                CAPABILITY => ": launched containers are without by `paddock run --cap-drop`",
                FILE => ": launched containers write nothing by `paddock run --read-only`",
                // Of launched ones it is.
                INGRESS if listed(Means::Cgroup).is_some_and(|seen| seen.contains(INGRESS)) => {
                    " or let the policy select origin = \"launched\": sockets of others say whose \
                     they are where cgroup v2 is alone"
                }
                _ => "",
            };
            return Err(Error::Unseen {
                policy: policy_name,
                rule: rule_name,
                what,
                why: if asked { why() } else { String::new() },
                instead,
            });
        }
        let enforced = rule.mode == model::Mode::Enforce;
        if let Some(what) = listed(Means::Count)
            && enforced
            && policy.when_unenforceable == WhenUnenforceable::Fail
        {
            return Err(Error::Unenforceable {
                policy: policy_name,
                rule: rule_name,
                what,
                why: why(),
            });
        }
    }
    Ok(())
}
