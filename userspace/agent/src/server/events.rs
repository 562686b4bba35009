//! `/v1/events`: what was as JSON lines, and with `follow` what comes, until either side ends.
//!
//! A reader gets what the bus remembers, or, asking for more, what is stored. One that follows and
//! falls behind reads what it missed from the store; where there is none it is told how many.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State as Extract, rejection::QueryRejection},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use http_body_util::channel::{Channel, Sender};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};

use super::{
    error::Failure,
    event_filter::{Filter, Options},
};
use crate::{
    bus::{self, Snapshot, Subscription},
    chain::chain,
    event::Event,
    shared::Shared,
    store::{Error, Past, Start, Wanted},
};

/// Chunks on their way to the client; what it does not take waits in the bus, then in the store.
const CHUNKS: usize = 4;
/// How soon a follower that left is noticed where nothing happens.
const SILENCE: Duration = Duration::from_secs(15);

pub(super) async fn stream(
    Extract(shared): Extract<Arc<Shared>>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(options) = options?;
    let filter = Filter::new(&shared.registry, &options)?;
    let subscription = shared.bus.subscribe();
    if let Some(Start::After(id)) = filter.start
        && id > subscription.past.last
    {
        return Err(Failure::conflict(&format!(
            "there is no event {id}: the last one is {}, events were begun anew since",
            subscription.past.last
        )));
    }
    let (sender, body) = Channel::<Bytes, Infallible>::new(CHUNKS);
    let reading = Reading {
        shutdown: shared.shutdown.subscribe(),
        shared,
        sender,
        filter,
    };
    tokio::spawn(reading.run(subscription, options.follow));
    Ok(([(CONTENT_TYPE, "application/jsonl")], Body::new(body)).into_response())
}

/// One client's.
struct Reading {
    shared: Arc<Shared>,
    sender: Sender<Bytes, Infallible>,
    filter: Filter,
    shutdown: watch::Receiver<bool>,
}

/// Nothing more can be sent: the client has left, or the agent ends.
struct Over;

impl Reading {
    async fn run(mut self, mut subscription: Subscription, follow: bool) {
        let start = self.filter.start;
        let mut last = match self.catch_up(&subscription.past, start).await {
            Ok(last) if follow => last,
            _ => return,
        };
        let until = self.filter.ends_in().map(|left| Instant::now() + left);
        loop {
            let received = tokio::select! {
                received = timeout(SILENCE, subscription.receiver.recv()) => received,
                () = over(until) => return,
                _ = self.shutdown.wait_for(|down| *down) => return,
            };
            let line = match received {
                // Read from the store already.
                Ok(Ok(event)) if event.id <= last => continue,
                Ok(Ok(event)) => {
                    last = event.id;
                    if !self.filter.wanted.wants(&event) {
                        continue;
                    }
                    line(&event)
                }
                Ok(Err(RecvError::Lagged(_))) if self.shared.store.is_some() => {
                    subscription = self.shared.bus.subscribe();
                    match self
                        .catch_up(&subscription.past, Some(Start::After(last)))
                        .await
                    {
                        Ok(told) => last = told,
                        Err(Over) => return,
                    }
                    continue;
                }
                Ok(Err(RecvError::Lagged(count))) => line(&bus::lost(count, 0)),
                Ok(Err(RecvError::Closed)) => return,
                // An empty chunk is not sent, and fails when there is nobody to send it to.
                Err(_) => Vec::new(),
            };
            if self.send(line).await.is_err() {
                return;
            }
        }
    }

    /// Sends what was; the id up to which all is told.
    async fn catch_up(&mut self, snapshot: &Snapshot, start: Option<Start>) -> Result<u64, Over> {
        let last = snapshot.last;
        let Some(mut past) = begin(&self.shared, snapshot, &self.filter.wanted, start).await else {
            return Ok(last);
        };
        loop {
            let read = spawn_blocking(move || {
                let next = past.next();
                (past, next)
            });
            // A panic has told of itself.
            let Ok((came_back, next)) = read.await else {
                return Err(Over);
            };
            past = came_back;
            match next {
                Ok(Some(lines)) if lines.is_empty() => {}
                Ok(Some(lines)) => self.send(lines).await?,
                Ok(None) => return Ok(last),
                Err(error) => {
                    tracing::warn!("stored events cannot be read: {}", chain(&error));
                    past.leave_store();
                }
            }
        }
    }

    async fn send(&mut self, lines: Vec<u8>) -> Result<(), Over> {
        let sent = tokio::select! {
            sent = self.sender.send_data(lines.into()) => sent,
            _ = self.shutdown.wait_for(|down| *down) => return Err(Over),
        };
        sent.map_err(|_| Over)
    }
}

/// Where the store cannot be read, what is in memory is all there is.
async fn begin(
    shared: &Arc<Shared>,
    past: &Snapshot,
    wanted: &Wanted,
    start: Option<Start>,
) -> Option<Past> {
    let (from_store, start) = (start.is_some(), start.unwrap_or(Start::All));
    let (shared, wanted, past) = (Arc::clone(shared), wanted.clone(), past.clone());
    let begun = spawn_blocking(move || {
        let store = shared.store.as_ref().filter(|_| from_store);
        let opened = store.map(|store| store.reader()).transpose();
        let begun =
            opened.and_then(|reader| Past::new(reader, past.clone(), wanted.clone(), start));
        begun.or_else(|error: Error| {
            tracing::warn!("stored events cannot be read: {}", chain(&error));
            Past::new(None, past, wanted, start)
        })
    });
    begun.await.ok()?.ok()
}

/// A reader without an end waits for ever.
async fn over(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Our own types always serialise.
fn line(event: &Event) -> Vec<u8> {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}
