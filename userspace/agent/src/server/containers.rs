//! `/v1/containers`: the requests, each handed to `launch`.

use std::{str::FromStr as _, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{
        Path, Query, State as Extract,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use nix::sys::signal::Signal;
use paddock_cgroups::Limits;
use serde::Deserialize;

use super::error::Failure;
use crate::{
    api::{
        ContainerDetail, ContainerSummary, CreateRequest, Created, ExecRequest, StartedReply,
        State, WaitReply,
    },
    container::Container,
    launch,
    shared::Shared,
};

type Agent = Extract<Arc<Shared>>;
type Body<T> = Result<Json<T>, JsonRejection>;
type Options<T> = Result<Query<T>, QueryRejection>;

#[derive(Debug, Deserialize)]
pub(super) struct ListOptions {
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct KillOptions {
    signal: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct StopOptions {
    /// Seconds.
    timeout: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RemoveOptions {
    #[serde(default)]
    force: bool,
}

pub(super) async fn list(
    Extract(shared): Agent,
    options: Options<ListOptions>,
) -> Result<Json<Vec<ContainerSummary>>, Failure> {
    let Query(options) = options?;
    let mut found = Vec::new();
    for container in shared.registry.all() {
        launch::settled(&shared, &container).await;
        if !container.life().removed && (options.all || container.state() != State::Exited) {
            found.push(container);
        }
    }
    // Reads cgroup files.
    let summaries = tokio::task::spawn_blocking(move || {
        let summaries = found
            .iter()
            .map(|container| container.summary(&shared.kernel, &shared.hierarchies));
        summaries.collect()
    });
    Ok(Json(summaries.await.map_err(|_| launch::Error::Ending)?))
}

pub(super) async fn create(
    Extract(shared): Agent,
    body: Body<CreateRequest>,
) -> Result<(StatusCode, Json<Created>), Failure> {
    let Json(request) = body.map_err(|error| Failure::from(error).before_run())?;
    match launch::create(shared, request).await {
        Ok(created) => Ok((StatusCode::CREATED, Json(created))),
        Err(error) => Err(Failure::from(error).before_run()),
    }
}

pub(super) async fn inspect(
    Extract(shared): Agent,
    Path(reference): Path<String>,
) -> Result<Json<ContainerDetail>, Failure> {
    let container = find(&shared, &reference).await?;
    // Reads cgroup files.
    let detail =
        tokio::task::spawn_blocking(move || container.detail(&shared.kernel, &shared.hierarchies));
    let detail = detail.await.map_err(|_| launch::Error::Ending)?;
    Ok(Json(detail))
}

pub(super) async fn start(
    Extract(shared): Agent,
    Path(reference): Path<String>,
) -> Result<Json<StartedReply>, Failure> {
    let container = find(&shared, &reference).await?;
    match launch::start(&shared, &container).await {
        Ok(pid) => Ok(Json(StartedReply { pid })),
        Err(error) => Err(Failure::from(error).before_run()),
    }
}

pub(super) async fn exec(
    Extract(shared): Agent,
    Path(reference): Path<String>,
    body: Body<ExecRequest>,
) -> Result<(StatusCode, Json<Created>), Failure> {
    let Json(request) = body.map_err(|error| Failure::from(error).before_run())?;
    let container = find(&shared, &reference)
        .await
        .map_err(Failure::before_run)?;
    match launch::exec(shared, container, request).await {
        Ok(created) => Ok((StatusCode::CREATED, Json(created))),
        Err(error) => Err(Failure::from(error).before_run()),
    }
}

pub(super) async fn kill(
    Extract(shared): Agent,
    Path(reference): Path<String>,
    options: Options<KillOptions>,
) -> Result<StatusCode, Failure> {
    let Query(options) = options?;
    let signal = signal(options.signal.as_deref().unwrap_or("15"))?;
    let container = find(&shared, &reference).await?;
    launch::kill(&shared, &container, signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn stop(
    Extract(shared): Agent,
    Path(reference): Path<String>,
    options: Options<StopOptions>,
) -> Result<StatusCode, Failure> {
    let Query(options) = options?;
    let patience = Duration::from_secs(options.timeout.unwrap_or(10));
    let container = find(&shared, &reference).await?;
    launch::stop(&shared, &container, patience).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn pause(
    Extract(shared): Agent,
    Path(reference): Path<String>,
) -> Result<StatusCode, Failure> {
    let container = find(&shared, &reference).await?;
    launch::pause(&shared, &container).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unpause(
    Extract(shared): Agent,
    Path(reference): Path<String>,
) -> Result<StatusCode, Failure> {
    let container = find(&shared, &reference).await?;
    launch::unpause(&shared, &container).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn update(
    Extract(shared): Agent,
    Path(reference): Path<String>,
    body: Body<Limits>,
) -> Result<Json<Limits>, Failure> {
    let Json(limits) = body?;
    let container = find(&shared, &reference).await?;
    Ok(Json(launch::update(shared, container, limits).await?))
}

pub(super) async fn wait(
    Extract(shared): Agent,
    Path(reference): Path<String>,
) -> Result<Json<WaitReply>, Failure> {
    let container = find(&shared, &reference).await?;
    Ok(Json(launch::wait(&shared, &container).await?))
}

pub(super) async fn remove(
    Extract(shared): Agent,
    Path(reference): Path<String>,
    options: Options<RemoveOptions>,
) -> Result<StatusCode, Failure> {
    let Query(options) = options?;
    let container = find(&shared, &reference).await?;
    launch::remove(&shared, &container, options.force).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn logs(
    Extract(shared): Agent,
    Path(reference): Path<String>,
) -> Result<Response, Failure> {
    let container = find(&shared, &reference).await?;
    let body = launch::logs(&shared, &container);
    Ok(([(CONTENT_TYPE, "application/jsonl")], body).into_response())
}

async fn find(shared: &Arc<Shared>, reference: &str) -> Result<Arc<Container>, Failure> {
    let container = shared.registry.find(reference)?;
    launch::settled(shared, &container).await;
    // It may have been one to be removed at its end.
    Ok(shared.registry.find(&container.id).unwrap_or(container))
}

/// `9`, `KILL` or `SIGKILL`.
fn signal(text: &str) -> Result<Signal, Failure> {
    let by_number = text
        .parse::<i32>()
        .ok()
        .and_then(|number| Signal::try_from(number).ok());
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    by_number
        .or_else(|| Signal::from_str(&name).ok())
        .ok_or_else(|| {
            Failure::bad_input(&format!(
                "signal '{text}': expected a name or a number from 1 to 31"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for text in ["9", "KILL", "SIGKILL", "kill", "sigkill"] {
            assert_eq!(signal(text).unwrap(), Signal::SIGKILL, "{text}");
        }
        for text in ["", "0", "-1", "99", "NOPE", "SIG"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
