//! How full the kernel half's maps are, looked at now and then: the kernel keeps no count of them,
//! and a scrape is not to wait for one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use paddock_probe::{FILLED, Fill};
use paddock_runtime::give_back;

use crate::shared::Shared;

/// A walk over thousands of entries takes some milliseconds.
const EVERY: Duration = Duration::from_secs(30);

/// As they were found last.
#[derive(Debug, Default)]
pub(crate) struct Fills(Mutex<Vec<Fill>>);

impl Fills {
    pub(crate) fn last(&self) -> Vec<Fill> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

pub(crate) async fn keep(shared: Arc<Shared>) {
    if shared.kernel.unavailable().is_some() {
        return;
    }
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let shared = Arc::clone(&shared);
        let look = tokio::task::spawn_blocking(move || {
            // One by one: others want the probe, too.
            let found = FILLED.iter().filter_map(|map| shared.kernel.fill(map));
            let found = found.collect();
            *shared
                .fills
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = found;
            // A scrape's text, a page of events: the heap keeps what the largest of them took.
            give_back();
        });
        if look.await.is_err() {
            return;
        }
    }
}
