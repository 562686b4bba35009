//! Which policies hold for which container.

use std::{collections::BTreeMap, sync::Arc};

use paddock_policy::{Policy, model};

use super::{Applied, means::Whom};
use crate::{
    api::{CreateRequest, Origin, State},
    container::Container,
    shared::Shared,
};

/// Of what is launched, by its name in policies.
const RUNTIME: Option<&str> = Some("paddock");

/// What policies select by.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    name: String,
    image: String,
    labels: Vec<(String, String)>,
    runtime: Option<&'static str>,
    origin: Origin,
    /// The container around it.
    parent: Option<String>,
}

impl Who {
    pub(crate) fn of(container: &Container) -> Self {
        let request = container.request.as_ref();
        Self {
            name: container.name.clone(),
            image: container.image(),
            labels: request.map_or_else(
                || container.pod().labels(),
                |request| request.labels.clone(),
            ),
            runtime: container.runtime(),
            origin: container.origin,
            parent: container.parent.clone(),
        }
    }

    /// Of one that is gone, by what its events say.
    pub(super) fn gone(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: String::new(),
            labels: Vec::new(),
            runtime: None,
            origin: Origin::Launched,
            parent: None,
        }
    }

    /// Of one that is not launched yet.
    pub(crate) fn to_launch(name: &str, request: &CreateRequest) -> Self {
        Self {
            name: name.to_owned(),
            image: request.image.clone(),
            labels: request.labels.clone(),
            runtime: RUNTIME,
            origin: Origin::Launched,
            parent: None,
        }
    }
}

/// The policies that hold for a container: what selects one around it does, too, or whoever
/// starts a container within would be rid of them.
pub(super) fn chosen(
    applied: &BTreeMap<String, Applied>,
    shared: &Shared,
    who: &Who,
) -> Vec<Arc<Policy>> {
    let all = applied.values().map(|one| &one.policy);
    all.filter(|policy| holds(policy, shared, who))
        .map(Arc::clone)
        .collect()
}

pub(super) fn holds(policy: &Policy, shared: &Shared, who: &Who) -> bool {
    const NESTED: usize = 8;
    if selects(policy, who) {
        return true;
    }
    let mut parent = who.parent.clone();
    for _ in 0..NESTED {
        let Some(outer) = parent.and_then(|name| shared.registry.find(&name).ok()) else {
            return false;
        };
        let outer = Who::of(&outer);
        if selects(policy, &outer) {
            return true;
        }
        parent = outer.parent;
    }
    false
}

/// Who may come under it.
pub(super) fn whom(shared: &Shared, policy: &Policy) -> Whom {
    let origin = policy.select.origin;
    let never_asked = |container: &Container| {
        container.origin == Origin::Launched
            && matches!(container.state(), State::Running)
            && !container.facts().setns_before
            && holds(policy, shared, &Who::of(container))
    };
    let mut all = shared.registry.all().into_iter();
    Whom {
        launched: origin != Some(model::Origin::Found),
        found: origin != Some(model::Origin::Launched),
        unasked: all.any(|one| never_asked(&one)),
    }
}

fn selects(policy: &Policy, who: &Who) -> bool {
    policy.select.holds(&paddock_policy::Container {
        name: &who.name,
        image: &who.image,
        labels: &who.labels,
        runtime: who.runtime,
        origin: match who.origin {
            Origin::Launched => model::Origin::Launched,
            Origin::Found => model::Origin::Found,
        },
    })
}
