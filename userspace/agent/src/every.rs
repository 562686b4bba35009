//! What the agent does again and again beside its work, one after the other on a thread that may
//! block.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::shared::Shared;

/// At once, then each `period`; one that takes longer is not made up for.
pub(crate) async fn every(period: Duration, shared: Arc<Shared>, work: fn(&Shared)) {
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let shared = Arc::clone(&shared);
        if spawn_blocking(move || work(&shared)).await.is_err() {
            return;
        }
    }
}
