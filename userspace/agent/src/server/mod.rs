//! The API: HTTP/1.1 and JSON on `STATE/paddock.sock`, for root.

mod connection;
mod containers;
mod error;
mod event_filter;
mod events;
mod policies;

use std::{os::unix::net::UnixListener as StdListener, sync::Arc};

use axum::{
    Json, Router,
    extract::State as Extract,
    http::StatusCode,
    routing::{get, post},
};
use tokio::net::UnixListener;

use self::{connection::Bounded, error::Failure};
use crate::{
    api::{CheckReport, NamespaceEntry},
    check,
    namespaces::listing,
    shared::Shared,
};

/// Clients at a time on the API; more wait to be accepted.
const API_CLIENTS: usize = 256;

/// Serves the API until the agent ends.
pub(crate) async fn serve_api(shared: Arc<Shared>, listener: StdListener) -> std::io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let listener = Bounded::new(listener, API_CLIENTS, Arc::clone(&shared));
    let end = ended(&shared);
    axum::serve(listener, routes(shared))
        .with_graceful_shutdown(end)
        .await
}

fn ended(shared: &Shared) -> impl Future<Output = ()> + Send + 'static {
    let mut shutdown = shared.shutdown.subscribe();
    async move {
        // An error means that the sender is gone: the end, too.
        let _ = shutdown.wait_for(|down| *down).await;
    }
}

fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(
            "/v1/containers",
            get(containers::list).post(containers::create),
        )
        .route(
            "/v1/containers/{reference}",
            get(containers::inspect).delete(containers::remove),
        )
        .route("/v1/containers/{reference}/start", post(containers::start))
        .route(
            "/v1/containers/{reference}/prepare",
            post(containers::prepare),
        )
        .route(
            "/v1/containers/{reference}/restart",
            post(containers::restart),
        )
        .route("/v1/containers/{reference}/exec", post(containers::exec))
        .route("/v1/containers/{reference}/kill", post(containers::kill))
        .route("/v1/containers/{reference}/stop", post(containers::stop))
        .route("/v1/containers/{reference}/pause", post(containers::pause))
        .route(
            "/v1/containers/{reference}/unpause",
            post(containers::unpause),
        )
        .route(
            "/v1/containers/{reference}/update",
            post(containers::update),
        )
        .route("/v1/containers/{reference}/wait", post(containers::wait))
        .route("/v1/containers/{reference}/logs", get(containers::logs))
        .route("/v1/containers/{reference}/stats", get(containers::stats))
        .route("/v1/stats", get(containers::all_stats))
        .route("/v1/events", get(events::stream))
        .route("/v1/events/{id}/explain", get(policies::explain))
        .route("/v1/namespaces", get(namespaces))
        .route("/v1/policies", get(policies::list).put(policies::apply))
        .route("/v1/policies/check", post(policies::check))
        .route(
            "/v1/policies/{name}",
            get(policies::show).delete(policies::remove),
        )
        .route("/v1/policies/{name}/mode", post(policies::set_mode))
        .route("/v1/check", get(report))
        .route("/v1/shutdown", post(shutdown))
        .fallback(nothing_there)
        .method_not_allowed_fallback(nothing_there)
        .with_state(shared)
}

async fn report(Extract(shared): Extract<Arc<Shared>>) -> Json<CheckReport> {
    Json(check::of_agent(&shared))
}

async fn namespaces(
    Extract(shared): Extract<Arc<Shared>>,
) -> Result<Json<Vec<NamespaceEntry>>, Failure> {
    let walk = tokio::task::spawn_blocking(move || {
        let containers = shared.registry.all();
        listing::list(shared.kernel.host(), |path| {
            let path = path.trim_start_matches('/');
            containers
                .iter()
                .find(|one| is_in(path, &one.cgroup))
                .map(|one| one.name.clone())
        })
    });
    match walk.await {
        Ok(Ok(list)) => Ok(Json(list)),
        Ok(Err(error)) => Err(Failure::internal(&error.to_string())),
        Err(_) => Err(Failure::from(crate::launch::Error::Ending)),
    }
}

/// Whether a cgroup's path is another's or below it.
fn is_in(path: &str, cgroup: &str) -> bool {
    path.strip_prefix(cgroup)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

async fn shutdown(Extract(shared): Extract<Arc<Shared>>) -> StatusCode {
    tracing::info!("asked to end");
    shared.begin_shutdown();
    StatusCode::NO_CONTENT
}

async fn nothing_there(method: axum::http::Method, uri: axum::http::Uri) -> Failure {
    Failure::not_found(&format!("no {method} {} in this API", uri.path()))
}
