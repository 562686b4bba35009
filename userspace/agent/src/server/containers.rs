//! `/v1/containers`: the requests, each handed to `launch`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, Query, State as Extract,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use paddock_cgroups::Limits;
use serde::Deserialize;

use super::error::Failure;
use crate::{
    api::{
        ContainerDetail, ContainerStats, ContainerSummary, CreateRequest, Created, ExecRequest,
        StartedReply, State, WaitReply,
    },
    container::Container,
    launch, readers,
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
pub(super) struct CreateOptions {
    prepare: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct KillOptions {
    signal: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WaitOptions {
    /// Nanoseconds since 1970, as its monitor told: for the end of that run, also when it is past.
    ended_at_ns: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct StopOptions {
    /// Seconds; negative: as long as it takes.
    timeout: Option<i64>,
    signal: Option<String>,
}

impl StopOptions {
    fn how(&self) -> Result<launch::Stop, Failure> {
        Ok(launch::Stop {
            signal: self.signal.as_deref().map(signal).transpose()?,
            timeout: self.timeout,
        })
    }
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
    options: Options<CreateOptions>,
    body: Body<CreateRequest>,
) -> Result<(StatusCode, Json<Created>), Failure> {
    let Query(options) = options.map_err(|error| Failure::from(error).before_run())?;
    let Json(request) = body.map_err(|error| Failure::from(error).before_run())?;
    match launch::create(shared, request, options.prepare.unwrap_or(true)).await {
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
    let detail = tokio::task::spawn_blocking(move || ContainerDetail {
        networks: launch::networks(&shared, &container),
        ..container.detail(&shared.kernel, &shared.hierarchies)
    });
    let detail = detail.await.map_err(|_| launch::Error::Ending)?;
    Ok(Json(detail))
}

/// Of all that run.
pub(super) async fn all_stats(
    Extract(shared): Agent,
) -> Result<Json<Vec<ContainerStats>>, Failure> {
    // Reads cgroup files.
    let all = tokio::task::spawn_blocking(move || {
        let stats = readers::of_each(&shared.registry.all(), |container| {
            container.use_now(&shared.kernel, &shared.hierarchies)
        });
        stats.into_iter().flatten().collect()
    });
    Ok(Json(all.await.map_err(|_| launch::Error::Ending)?))
}

/// Of one; null where it does not run.
pub(super) async fn stats(
    Extract(shared): Agent,
    Path(reference): Path<String>,
) -> Result<Json<Option<ContainerStats>>, Failure> {
    let container = find(&shared, &reference).await?;
    let one =
        tokio::task::spawn_blocking(move || container.use_now(&shared.kernel, &shared.hierarchies));
    Ok(Json(one.await.map_err(|_| launch::Error::Ending)?))
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

pub(super) async fn prepare(
    Extract(shared): Agent,
    Path(reference): Path<String>,
) -> Result<Json<Created>, Failure> {
    let container = find(&shared, &reference).await?;
    match launch::prepare(&shared, &container).await {
        Ok(created) => Ok(Json(created)),
        Err(error) => Err(Failure::from(error).before_run()),
    }
}

pub(super) async fn restart(
    Extract(shared): Agent,
    Path(reference): Path<String>,
    options: Options<StopOptions>,
) -> Result<Json<StartedReply>, Failure> {
    let Query(options) = options?;
    let how = options.how()?;
    let container = find(&shared, &reference).await?;
    match launch::restart(&shared, &container, how).await {
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
    let how = options.how()?;
    let container = find(&shared, &reference).await?;
    launch::stop(&shared, &container, how).await?;
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

/// Of the one that is there; else of a removed one by its whole id.
pub(super) async fn wait(
    Extract(shared): Agent,
    Path(reference): Path<String>,
    options: Options<WaitOptions>,
) -> Result<Json<WaitReply>, Failure> {
    let Query(options) = options?;
    let container = match find(&shared, &reference).await {
        Err(failure) => shared.registry.gone(&reference).ok_or(failure)?,
        found => found?,
    };
    Ok(Json(
        launch::wait(&shared, &container, options.ended_at_ns).await?,
    ))
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

fn signal(text: &str) -> Result<i32, Failure> {
    crate::signal::parse(text).map_err(|error| Failure::bad_input(&error))
}
