//! What a service manager is told, by sd_notify(3), and that the agent still lives.
//!
//! Without a manager (no NOTIFY_SOCKET) nothing is told. What cannot be told is a line in the
//! log: a manager that waits in vain ends the agent by its own rules.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::shared::Shared;

pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Until [`ready`] is told again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("the clock cannot be read: {error}"),
    }
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}

/// Tells that the agent lives as long as its threads get on: one that waits for ever in a lock
/// or in the kernel is ended and started again, and enforcement holds meanwhile.
pub(super) async fn watchdog(shared: Arc<Shared>) {
    let Some(deadline) = sd_notify::watchdog_enabled() else {
        return;
    };
    let period = (deadline / 3).max(Duration::from_millis(1));
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let looked = Arc::clone(&shared);
        let look = tokio::task::spawn_blocking(move || {
            looked.kernel.unharmed();
            looked.registry.is_idle()
        });
        if matches!(timeout(deadline, look).await, Ok(Ok(_))) {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("the agent's parts do not answer one another");
        }
    }
}
