//! What follows a denial beyond itself, where its rule says so: its container is paused or
//! stopped, or the rule, having hit too many containers, goes to audit.
//!
//! Decided by the kernel half's counts, which are looked at when a denial is told and every
//! second. What paddock launched is paused and stopped as an operator does it. A found container
//! is frozen by its cgroup; to stop one its processes are killed, and only where the policy says
//! by `[select]` which containers it means: a policy for all of them freezes it instead.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use paddock_policy::{
    Policy,
    model::{Mode, Reaction},
};
use paddock_probe::{Slot, policy::ACTION_AUDIT};
use tokio::{task::JoinSet, time::sleep};

use super::{Applied, Error, Inner, Policies, files};
use crate::{
    api::Origin, bus::Subject, chain::chain, clock, container::Container, event::Kind, launch,
    shared::Shared,
};

/// Between two looks where nothing is told.
const LOOK: Duration = Duration::from_secs(1);
/// From one look to the next where much is told.
const REST: Duration = Duration::from_millis(20);
/// Of containers that are named when a rule disarms itself.
const NAMED: usize = 16;

/// Something to do with a container.
#[derive(Debug)]
struct Due {
    container: Arc<Container>,
    policy: String,
    rule: String,
    reaction: Reaction,
    /// The policy says which containers it means.
    selects: bool,
}

/// Does what is due until the agent ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    let mut doing: JoinSet<String> = JoinSet::new();
    loop {
        let finished = tokio::select! {
            () = shared.policies.stirred.notified() => None,
            () = sleep(LOOK) => None,
            Some(done) = doing.join_next() => done.ok(),
            _ = shutdown.wait_for(|down| *down) => return,
        };
        let this = Arc::clone(&shared);
        let look = tokio::task::spawn_blocking(move || this.policies.look(&this, finished));
        // A panic in it has told of itself.
        for due in look.await.unwrap_or_default() {
            doing.spawn(answer(Arc::clone(&shared), due));
        }
        sleep(REST).await;
    }
}

impl Policies {
    /// A denial was told.
    pub(crate) fn stir(&self) {
        self.stirred.notify_one();
    }

    /// Rules that can disarm themselves, and whether they have.
    pub(crate) fn disarming(&self) -> Vec<(String, String, bool)> {
        let inner = self.lock();
        let of = |one: &Applied| {
            let able = one.policy.rules.iter().filter(|rule| rule.disarm.is_some());
            able.map(|rule| {
                let disarmed = one.disarmed.contains(&rule.name);
                (one.policy.name.clone(), rule.name.clone(), disarmed)
            })
            .collect::<Vec<_>>()
        };
        inner.applied.values().flat_map(of).collect()
    }

    /// What is to be done with whom since the last look. What `finished` was hit by in the
    /// meantime is answered with that. Blocking: files are written.
    fn look(&self, shared: &Shared, finished: Option<String>) -> Vec<Due> {
        let mut inner = self.lock();
        let mut due = Vec::new();
        if inner.sets.any_answered() {
            let crowds = inner.grown(shared, &mut due);
            for ((policy, rule), names) in crowds {
                inner.disarm(shared, &policy, &rule, &names);
            }
        }
        due.retain(|one| !inner.is_disarmed(&one.policy, &one.rule));
        for one in &due {
            inner.answers.busy.insert(one.container.id.clone());
        }
        if let Some(finished) = finished {
            inner.answers.is_done(&finished);
        }
        // With the last policy its directory went.
        let any = !inner.applied.is_empty() || inner.unread;
        if any
            && let Some(news) = inner.answers.news()
            && let Err(error) = files::keep_answered(shared.instance.dir(), &news)
        {
            tracing::warn!("what denials led to is not kept for the next agent: {error}");
        }
        due
    }
}

impl Applied {
    pub(super) fn keep(&self, state: &Path, name: &str) -> std::io::Result<()> {
        files::keep(state, name, &self.text, self.overrides, &self.disarmed)
    }
}

impl Inner {
    /// Takes up the counts that have grown: what is due by them, and of rules that hit too many
    /// containers which these are.
    fn grown(
        &mut self,
        shared: &Shared,
        due: &mut Vec<Due>,
    ) -> BTreeMap<(String, String), Vec<String>> {
        let mut crowds = BTreeMap::new();
        for (key, count) in shared.kernel.hits() {
            if key.action <= u32::from(ACTION_AUDIT) {
                continue;
            }
            // What is nobody's yet stays for the next look.
            let Some(container) = shared.registry.of_slot(Slot(key.slot)) else {
                continue;
            };
            let rule = self.sets.rule(key.ruleset, key.rule);
            let Some(rule) = rule.filter(|rule| rule.is_answered()).cloned() else {
                continue;
            };
            if !self.answers.take(key, &container.id, count) {
                continue;
            }
            let whose = (container.id.as_str(), container.name.as_str());
            if let Some(names) = self.answers.crowd(&rule, whose, clock::now_ns()) {
                crowds.insert((rule.policy.clone(), rule.rule.clone()), names);
            }
            let taken = due.iter().any(|one| one.container.id == container.id)
                || self.answers.busy.contains(&container.id);
            if let Some(reaction) = rule.reaction()
                && !taken
            {
                let applied = self.applied.get(&rule.policy);
                due.push(Due {
                    container,
                    reaction,
                    selects: applied.is_some_and(|one| !one.policy.select.is_empty()),
                    policy: rule.policy,
                    rule: rule.rule,
                });
            }
        }
        crowds
    }

    fn is_disarmed(&self, policy: &str, rule: &str) -> bool {
        let applied = self.applied.get(policy);
        applied.is_some_and(|one| one.disarmed.contains(rule))
    }

    /// Puts a rule to audit, until its policy is applied or gets its mode anew.
    fn disarm(&mut self, shared: &Shared, policy: &str, rule: &str, names: &[String]) {
        let mut applied = self.applied.clone();
        let Some(one) = applied.get_mut(policy) else {
            return;
        };
        let enforced = one.policy.rules.iter().any(|one| one.name == rule);
        if !enforced || !one.disarmed.insert(rule.to_owned()) {
            return;
        }
        one.policy = Arc::new(audited(Policy::clone(&one.policy), &one.disarmed));
        let state = shared.instance.dir();
        let kept = one
            .keep(state, policy)
            .map_err(|source| Error::Keep { source });
        let result = kept.and_then(|()| self.change(shared, applied));
        if let Err(error) = &result {
            tracing::error!("{policy}: {rule} stays armed: {}", chain(error));
            if let Some(one) = self.applied.get(policy)
                && let Err(error) = one.keep(state, policy)
            {
                tracing::error!("{policy}: cannot be kept as it is: {error}");
            }
        } else {
            tracing::warn!("{policy}: {rule} has disarmed itself and only counts from now on");
        }
        let detail = match result {
            Ok(()) => crowd(names),
            Err(error) => chain(&error),
        };
        let outcome = if self.is_disarmed(policy, rule) {
            "done"
        } else {
            "failed"
        };
        let kind = Kind::Reaction {
            action: "disarm".to_owned(),
            policy: policy.to_owned(),
            rule: rule.to_owned(),
            outcome: outcome.to_owned(),
            detail: Some(detail),
        };
        shared
            .bus
            .publish(clock::now_ns(), Subject::default(), kind);
    }
}

/// The policy with these rules in audit.
pub(super) fn audited(mut policy: Policy, rules: &BTreeSet<String>) -> Policy {
    for rule in &mut policy.rules {
        if rules.contains(&rule.name) {
            rule.mode = Mode::Audit;
        }
    }
    policy
}

fn crowd(names: &[String]) -> String {
    let listed: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED);
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    format!("hit {}{more}", listed.join(", "))
}

/// Does it and tells of it; the container's id.
async fn answer(shared: Arc<Shared>, due: Due) -> String {
    let container = &due.container;
    let (action, result) = match due.reaction {
        Reaction::Stop if container.origin == Origin::Launched => {
            let how = launch::Stop::default();
            (
                "stop",
                launch::stop(&shared, container, how).await.map(|()| true),
            )
        }
        Reaction::Stop if due.selects => ("kill", launch::end_found(&shared, container).await),
        _ => ("pause", launch::hold(&shared, container).await),
    };
    let (outcome, detail) = match result {
        // Somebody has done so already.
        Ok(false) => return container.id.clone(),
        Ok(true) => ("done", None),
        Err(error) => ("failed", Some(chain(&error))),
    };
    let reason = detail.as_deref().unwrap_or(outcome);
    let Due { policy, rule, .. } = &due;
    tracing::warn!("{}: {action} by {policy}/{rule}: {reason}", container.name);
    let kind = Kind::Reaction {
        action: action.to_owned(),
        policy: due.policy,
        rule: due.rule,
        outcome: outcome.to_owned(),
        detail,
    };
    shared
        .bus
        .publish(clock::now_ns(), container.subject(), kind);
    container.id.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_that_are_disarmed_are_in_audit() {
        let text = "name = \"p\"\nmode = \"enforce\"\ndeny = [\"sysrq\", \"kexec\"]";
        let policy = paddock_policy::parse(text.as_bytes()).unwrap();
        let policy = audited(policy, &BTreeSet::from(["kexec".to_owned()]));
        let modes: Vec<Mode> = policy.rules.iter().map(|rule| rule.mode).collect();
        assert_eq!(modes, [Mode::Enforce, Mode::Audit]);
    }

    #[test]
    fn a_crowd_is_named_up_to_a_bound() {
        let names: Vec<String> = (0..NAMED + 2).map(|number| format!("c{number}")).collect();
        assert_eq!(crowd(&names[..2]), "hit c0, c1");
        assert!(
            crowd(&names).ends_with("c15 and 2 more"),
            "{}",
            crowd(&names)
        );
    }
}
