//! `/v1/events`: the history as JSON lines, and with `follow` what comes, until either side ends.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State as Extract, rejection::QueryRejection},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use http_body_util::channel::{Channel, Sender};
use serde::Deserialize;
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::timeout,
};

use super::error::Failure;
use crate::{
    bus::{self, Subscription},
    event::Event,
    shared::Shared,
};

/// Chunks on their way to the client; what it does not take waits in the bus, then is lost.
const CHUNKS: usize = 4;
/// How soon a follower that left is noticed where nothing happens.
const SILENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
pub(super) struct Options {
    #[serde(default)]
    follow: bool,
    /// Name, id, or an id's beginning.
    container: Option<String>,
}

/// Which events a reader wants.
#[derive(Debug)]
enum Filter {
    All,
    Id(String),
    /// Nobody known now: as the events themselves name it.
    Reference(String),
}

pub(super) async fn stream(
    Extract(shared): Extract<Arc<Shared>>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(options) = options?;
    let filter = match options.container {
        None => Filter::All,
        Some(reference) => match shared.registry.find(&reference) {
            Ok(container) => Filter::Id(container.id.clone()),
            Err(_) => Filter::Reference(reference),
        },
    };
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
    loop {
        let received = tokio::select! {
            received = timeout(SILENCE, receiver.recv()) => received,
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

impl Filter {
    fn wants(&self, event: &Event) -> bool {
        match self {
            Self::All => true,
            Self::Id(id) => event.container_id.as_ref() == Some(id),
            Self::Reference(reference) => {
                event.container.as_ref() == Some(reference)
                    || event
                        .container_id
                        .as_ref()
                        .is_some_and(|id| id.starts_with(reference))
            }
        }
    }
}

/// Our own types always serialise.
fn line(event: &Event) -> Vec<u8> {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}
