//! What crosses the zygote's socket: a request is one byte with two descriptors, the spec's
//! memfd and the pipe its answer goes to; each request has its own, so several may be under way.
#![forbid(unsafe_code)]

use std::error::Error;

use serde::{Deserialize, Serialize};

/// The byte that carries the descriptors.
pub(super) const REQUEST: u8 = b'L';

/// JSON on the answer's pipe. An end of file without one: zygote or monitor was killed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The monitor listens.
    Ready { pid: i32 },
    /// `message` is the whole chain; `errno` the innermost.
    Failed { message: String, errno: i32 },
}

impl Answer {
    pub(crate) fn failed(error: &(dyn Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut errno = 0;
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                errno = io.raw_os_error().unwrap_or(errno);
            }
            cause = error.source();
            if let Some(source) = cause {
                message = format!("{message}: {source}");
            }
        }
        Self::Failed { message, errno }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_its_chain() {
        let source = std::io::Error::from_raw_os_error(13);
        let error = crate::monitor::Error::Io {
            op: "open",
            path: "/x".into(),
            source,
        };
        let Answer::Failed { message, errno } = Answer::failed(&error) else {
            unreachable!()
        };
        assert_eq!(errno, 13);
        assert!(
            message.starts_with("open /x: Permission denied"),
            "{message}"
        );
    }
}
