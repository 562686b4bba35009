//! `/v1/events`: the history as JSON lines, and with `follow` what comes, until either side ends.

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
    time::{Instant, sleep_until, timeout},
};

use super::{
    error::Failure,
    event_filter::{Filter, Options},
};
use crate::{
    bus::{self, Subscription},
    event::Event,
    shared::Shared,
};

/// Chunks on their way to the client; what it does not take waits in the bus, then is lost.
const CHUNKS: usize = 4;
/// How soon a follower that left is noticed where nothing happens.
const SILENCE: Duration = Duration::from_secs(15);

pub(super) async fn stream(
    Extract(shared): Extract<Arc<Shared>>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(options) = options?;
    let filter = Filter::new(&shared.registry, &options)?;
    let (sender, body) = Channel::<Bytes, Infallible>::new(CHUNKS);
    let subscription = shared.bus.subscribe();
    let shutdown = shared.shutdown.subscribe();
    tokio::spawn(send(sender, subscription, filter, options.follow, shutdown));
    Ok(([(CONTENT_TYPE, "application/jsonl")], Body::new(body)).into_response())
}

async fn send(
    mut sender: Sender<Bytes, Infallible>,
    subscription: Subscription,
    filter: Filter,
    follow: bool,
    mut shutdown: watch::Receiver<bool>,
) {
    let Subscription {
        history,
        mut receiver,
    } = subscription;
    for chunk in history.chunks(256) {
        let lines: Vec<u8> = chunk
            .iter()
            .filter(|event| filter.wants(event))
            .flat_map(|event| line(event))
            .collect();
        if !lines.is_empty() && sender.send_data(lines.into()).await.is_err() {
            return;
        }
    }
    if !follow {
        return;
    }
    let until = filter.ends_in().map(|left| Instant::now() + left);
    loop {
        let received = tokio::select! {
            received = timeout(SILENCE, receiver.recv()) => received,
            () = over(until) => return,
            _ = shutdown.wait_for(|down| *down) => return,
        };
        let line = match received {
            Ok(Ok(event)) if filter.wants(&event) => line(&event),
            Ok(Ok(_)) => continue,
            Ok(Err(RecvError::Lagged(count))) => line(&bus::lost(count)),
            Ok(Err(RecvError::Closed)) => return,
            // An empty chunk is not sent, and fails when there is nobody to send it to.
            Err(_) => Vec::new(),
        };
        let sent = tokio::select! {
            sent = sender.send_data(line.into()) => sent,
            _ = shutdown.wait_for(|down| *down) => return,
        };
        if sent.is_err() {
            return;
        }
    }
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
