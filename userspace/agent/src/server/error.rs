//! Failures as clients get them: a status, and one line that says what, where and what to do.

use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::{api::ErrorBody, chain::chain, launch, registry};

/// Docker's exit code for what failed before a workload was executed.
const OWN_FAILURE: i32 = 125;

#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    body: ErrorBody,
}

impl Failure {
    fn new(status: StatusCode, error: &str, exit_code: Option<i32>) -> Self {
        Self {
            status,
            body: ErrorBody {
                error: single_line(error),
                exit_code,
            },
        }
    }

    pub(super) fn not_found(error: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, None)
    }

    pub(super) fn bad_input(error: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, None)
    }

    pub(super) fn conflict(error: &str) -> Self {
        Self::new(StatusCode::CONFLICT, error, None)
    }

    pub(super) fn internal(error: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error, None)
    }

    /// As the answer to what `run` and `exec` ask first.
    pub(super) fn before_run(self) -> Self {
        let exit_code = self.body.exit_code.or(Some(OWN_FAILURE));
        Self {
            body: ErrorBody {
                exit_code,
                ..self.body
            },
            ..self
        }
    }
}

impl From<launch::Error> for Failure {
    fn from(error: launch::Error) -> Self {
        use launch::Error as E;
        use paddock_cgroups::Error as Cgroup;

        let status = match &error {
            E::Registry(error) => return registry_failure(error),
            E::State { .. } => StatusCode::CONFLICT,
            E::AppArmor(_)
            | E::Invalid { .. }
            | E::TooLittleMemory { .. }
            | E::NotUpdated { .. }
            | E::Cgroup(
                Cgroup::Limit { .. }
                | Cgroup::BelowUse { .. }
                | Cgroup::NotOffered { .. }
                | Cgroup::NotKept { .. }
                | Cgroup::Write { .. }
                | Cgroup::NoController { .. },
            ) => StatusCode::BAD_REQUEST,
            E::Failed { failed, .. } if failed.exit_code != OWN_FAILURE => StatusCode::BAD_REQUEST,
            E::Ending => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let exit_code = match &error {
            E::Failed { failed, .. } => Some(failed.exit_code),
            _ => None,
        };
        Self::new(status, &chain(&error), exit_code)
    }
}

impl From<registry::Error> for Failure {
    fn from(error: registry::Error) -> Self {
        registry_failure(&error)
    }
}

impl From<JsonRejection> for Failure {
    fn from(error: JsonRejection) -> Self {
        Self::bad_input(&format!("request: {}", error.body_text()))
    }
}

impl From<QueryRejection> for Failure {
    fn from(error: QueryRejection) -> Self {
        Self::bad_input(&format!("request: {}", error.body_text()))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

fn registry_failure(error: &registry::Error) -> Failure {
    let status = match error {
        registry::Error::NotFound { .. } => StatusCode::NOT_FOUND,
        registry::Error::Ambiguous { .. } => StatusCode::BAD_REQUEST,
        registry::Error::NameInUse { .. } => StatusCode::CONFLICT,
    };
    Failure::new(status, &error.to_string(), None)
}

/// Names and paths come from anywhere: no control character reaches a terminal through an error.
fn single_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            escaped
                .into_iter()
                .flatten()
                .chain((!c.is_control()).then_some(c))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use paddock_runtime::record::Failed;

    use super::*;

    fn answer(error: launch::Error) -> (u16, Option<i32>, String) {
        let failure = Failure::from(error);
        (
            failure.status.as_u16(),
            failure.body.exit_code,
            failure.body.error,
        )
    }

    #[test]
    fn each_failure_has_its_status_and_one_line() {
        let failed = |exit_code| launch::Error::Failed {
            name: "x".into(),
            program: "nope".into(),
            failed: Failed {
                step: "exec".into(),
                errno: 2,
                path: None,
                exit_code,
            },
        };
        let (status, code, text) = answer(failed(127));
        assert_eq!((status, code), (400, Some(127)));
        assert!(text.contains("nope: command not found"), "{text}");
        assert_eq!(answer(failed(125)).0, 500);
        let (status, code, text) = answer(launch::Error::Invalid {
            message: "a\nb\u{1b}[31m".into(),
        });
        assert_eq!(
            (status, code, text.as_str()),
            (400, None, "a\\nb\\u{1b}[31m")
        );
        let io = launch::Error::Io {
            op: "write",
            path: "/x".into(),
            source: std::io::Error::from_raw_os_error(28),
        };
        assert_eq!(answer(io).2, "write /x: No space left on device");
        let taken = registry::Error::NameInUse { name: "web".into() };
        assert_eq!(answer(taken.into()).0, 409);
    }
}
