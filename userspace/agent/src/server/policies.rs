//! `/v1/policies`: what is in force.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State as Extract},
    http::StatusCode,
};
use paddock_policy::{
    Overrides,
    model::{Mode, WhenUnenforceable},
};
use serde::Deserialize;

use super::error::Failure;
use crate::{
    api::{Explanation, PolicyCheck, PolicyDetail, PolicySummary},
    policies::{Error, Policies},
    shared::Shared,
};

type Agent = Extract<Arc<Shared>>;

/// What is said in place of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    mode: Option<String>,
    when_unenforceable: Option<String>,
}

impl Said {
    fn overrides(&self) -> Result<Overrides, Failure> {
        let unknown = |word: &str, known: &str| {
            Failure::bad_input(&format!("'{word}' is not known; use {known}"))
        };
        let mode = self.mode.as_deref().map(|word| {
            let mode = Mode::find(word);
            mode.ok_or_else(|| unknown(word, "audit or enforce"))
        });
        let when = self.when_unenforceable.as_deref().map(|word| {
            let when = WhenUnenforceable::find(word);
            when.ok_or_else(|| unknown(word, "fail or audit"))
        });
        Ok(Overrides {
            mode: mode.transpose()?,
            when_unenforceable: when.transpose()?,
        })
    }
}

pub(super) async fn list(Extract(shared): Agent) -> Json<Vec<PolicySummary>> {
    Json(shared.policies.all(&shared))
}

/// The body is the file.
pub(super) async fn apply(
    Extract(shared): Agent,
    Query(said): Query<Said>,
    body: Bytes,
) -> Result<Json<PolicySummary>, Failure> {
    let overrides = said.overrides()?;
    blocking(move || shared.policies.apply(&shared, &body, overrides)).await
}

pub(super) async fn set_mode(
    Extract(shared): Agent,
    Path(name): Path<String>,
    Query(said): Query<Said>,
) -> Result<Json<PolicySummary>, Failure> {
    let overrides = said.overrides()?;
    blocking(move || shared.policies.set_mode(&shared, &name, overrides)).await
}

/// What would become of a file's rules here; nothing is put in force.
pub(super) async fn check(
    Extract(shared): Agent,
    body: Bytes,
) -> Result<Json<PolicyCheck>, Failure> {
    blocking(move || Policies::check(&shared, &body)).await
}

pub(super) async fn show(
    Extract(shared): Agent,
    Path(name): Path<String>,
) -> Result<Json<PolicyDetail>, Failure> {
    blocking(move || shared.policies.detail(&shared, &name)).await
}

pub(super) async fn explain(
    Extract(shared): Agent,
    Path(id): Path<u64>,
) -> Result<Json<Explanation>, Failure> {
    blocking(move || shared.policies.explain(&shared, id)).await
}

pub(super) async fn remove(
    Extract(shared): Agent,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    let Json(()) = blocking(move || shared.policies.remove(&shared, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Files are synced, and maps written.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<Json<T>, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(Json(result?)),
        Err(_) => Err(Failure::internal("the agent is about to end")),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = crate::chain::chain(&error);
        match error {
            Error::Unknown { .. } | Error::NoEvent { .. } => Self::not_found(&text),
            Error::Rules(_)
            | Error::Ports(_)
            | Error::Devices(_)
            | Error::Paths(_)
            | Error::Full
            | Error::Off { .. }
            | Error::NotJudged { .. }
            | Error::Faults(_)
            | Error::Unenforceable { .. }
            | Error::Unseen { .. } => Self::bad_input(&text),
            Error::Kernel { .. } | Error::Keep { .. } => Self::internal(&text),
        }
    }
}
