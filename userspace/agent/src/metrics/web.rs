//! The pages on `--web.listen-address`: metrics, health, readiness, and one for people.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Router,
    extract::State as Extract,
    http::{
        StatusCode,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{Html, IntoResponse, Response},
    routing::get,
};
use prometheus::process_collector::ProcessCollector;
use tokio::sync::Semaphore;

use super::text;
use crate::shared::Shared;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The page has its style in itself and nothing else, whatever a container put into its names.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

#[derive(Clone, Debug)]
struct Web {
    shared: Arc<Shared>,
    process: Arc<ProcessCollector>,
    /// One scrape reads files at a time; others wait, so scrapers cannot multiply the cost.
    turn: Arc<Semaphore>,
}

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let web = Web {
        shared,
        process: Arc::new(ProcessCollector::for_self()),
        turn: Arc::new(Semaphore::new(1)),
    };
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(web)
}

/// Reads cgroup files, so it waits for its turn as a scrape does.
async fn page(Extract(web): Extract<Web>) -> Response {
    let Ok(_turn) = web.turn.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let shared = Arc::clone(&web.shared);
    match tokio::task::spawn_blocking(move || crate::page::page(&shared)).await {
        Ok(page) => ([(CONTENT_SECURITY_POLICY, POLICY)], Html(page)).into_response(),
        Err(error) => {
            tracing::error!("page: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn metrics(Extract(web): Extract<Web>) -> Response {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!("scrape: {error}");
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
    };
    let Ok(_turn) = web.turn.acquire().await else {
        return failed(&"ending");
    };
    let (shared, process) = (Arc::clone(&web.shared), Arc::clone(&web.process));
    match tokio::task::spawn_blocking(move || text(&shared, &process)).await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, TEXT)], text).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

/// 200 when the kernel half is loaded and the operator's policies are in force, with what each
/// capability is served by; else 503.
async fn ready(Extract(web): Extract<Web>) -> Response {
    let kernel = &web.shared.kernel;
    if let Some(reason) = kernel.unavailable() {
        let text = format!("no kernel half, containers are not watched: {reason}\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let refused = web.shared.policies.refused();
    if !refused.is_empty() {
        let text = format!("not in force: {}\n", refused.join("\nnot in force: "));
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let mut text = String::from("ready\n");
    for status in kernel.capabilities() {
        let rung = status.rung.as_deref().unwrap_or("off");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}: {rung}", status.capability);
    }
    text.into_response()
}
