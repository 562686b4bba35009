//! What can go wrong with the events' store.

use std::{io, path::PathBuf};

use rusqlite::ErrorCode;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{op} {}", path.display())]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} {reason}", path.display())]
    Unsafe { path: PathBuf, reason: &'static str },
    #[error("{} {reason}", path.display())]
    Foreign { path: PathBuf, reason: String },
    #[error("{op} the events' store")]
    Sql {
        op: &'static str,
        #[source]
        source: rusqlite::Error,
    },
}

impl Error {
    pub(super) fn sql(op: &'static str) -> impl Fn(rusqlite::Error) -> Self {
        move |source| Self::Sql { op, source }
    }

    /// The file itself is bad: another try will not help.
    pub(super) fn is_of_the_file(&self) -> bool {
        match self {
            Self::Foreign { .. } => true,
            Self::Sql { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ),
            Self::Io { .. } | Self::Unsafe { .. } => false,
        }
    }
}
