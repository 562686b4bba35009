//! Guards the kernel half: who else may touch it, and whether it is still what the agent left.

use std::{sync::Arc, time::Duration};

use paddock_probe::{Changed, GuardMode, Tampered};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    bus::Subject, chain::chain, clock, event::Kind, found, options::Guarding, policies::Policies,
    shared::Shared,
};

const LOOK: Duration = Duration::from_secs(5);

/// What holds from now on, by what is in force.
pub(crate) fn follow(shared: &Shared, policies: &Policies) {
    let mode = match shared.live().guard {
        // The next agent is another container then, which nothing tells from others.
        Guarding::Auto if policies.enforce() && !found::agent_is_within(shared) => {
            GuardMode::Enforce
        }
        Guarding::Auto | Guarding::Off => GuardMode::Off,
        Guarding::Audit => GuardMode::Audit,
        Guarding::Enforce => GuardMode::Enforce,
        Guarding::Strict => GuardMode::Strict,
    };
    if let Err(error) = shared.kernel.guard(mode) {
        tracing::error!("paddock is not guarded: {}", chain(&error));
    }
}

/// Says once what an operator asked for in vain.
pub(crate) fn warn(shared: &Shared) {
    let asked = matches!(shared.live().guard, Guarding::Enforce | Guarding::Strict);
    if asked && let Some(reason) = shared.kernel.why_not("guard") {
        tracing::warn!("others' touching what is paddock's is noticed only: {reason}");
    }
}

/// Looks until the agent ends: the truth also where nothing asks before somebody touches.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if shared.live().guard == Guarding::Off {
            continue;
        }
        let looker = Arc::clone(&shared);
        let found = tokio::task::spawn_blocking(move || looker.kernel.changed()).await;
        for one in found.unwrap_or_default() {
            tell(&shared, one);
        }
    }
}

fn tell(shared: &Shared, changed: Changed) {
    let Changed {
        kind,
        what,
        restored,
    } = changed;
    let then = match (kind, restored) {
        (_, true) => "it is as it was again",
        (Tampered::Map, false) => "it cannot be put right",
        _ => "what is in force stays so while this agent lives: unload and start it anew",
    };
    tracing::error!("somebody else has changed {what}: {then}");
    let kind = Kind::Tampering {
        what: kind.name().to_owned(),
        outcome: "seen".to_owned(),
        actor: None,
        object: Some(what),
    };
    shared
        .bus
        .publish(clock::now_ns(), Subject::default(), kind);
}
