//! How full the kernel half's maps are, looked at now and then: the kernel keeps no count of them,
//! and a scrape is not to wait for one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use paddock_probe::{FILLED, Fill};
use paddock_runtime::give_back;

use crate::{every::every, shared::Shared};

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
    if shared.kernel.unavailable().is_none() {
        every(EVERY, shared, look).await;
    }
}

fn look(shared: &Shared) {
    // One by one: others want the probe, too.
    let found = FILLED.iter().filter_map(|map| shared.kernel.fill(map));
    let found = found.collect();
    let mut last = shared
        .fills
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    *last = found;
    drop(last);
    // A scrape's text, a page of events: the heap keeps what the largest of them took.
    give_back();
}
