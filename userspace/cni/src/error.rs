//! What goes wrong with a network; one line each, and who has to mend what.

use std::{io, path::PathBuf};

/// Nothing, or less, was set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no network '{name}' in {dir}, which has {found}", dir = dir.display())]
    NotFound {
        name: String,
        dir: PathBuf,
        /// The names that are there, and files that could not be read.
        found: String,
    },
    #[error("{path}: {reason}", path = path.display())]
    Conflist { path: PathBuf, reason: String },
    #[error("{what} '{value}' is not one that CNI allows")]
    Parameter { what: &'static str, value: String },
    #[error("no plugin of network '{network}' has the capability '{capability}'")]
    NoCapability { network: String, capability: String },
    #[error("no CNI plugin '{name}' in {dirs}")]
    NoPlugin { name: String, dirs: String },
    #[error("{op} {path}", path = path.display())]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The plugin's own words.
    #[error("CNI plugin '{plugin}': {command}: {message} (code {code})")]
    Plugin {
        plugin: String,
        command: &'static str,
        code: u64,
        message: String,
    },
    #[error("CNI plugin '{plugin}': {command}: {reason}")]
    Broken {
        plugin: String,
        command: &'static str,
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { op, path, source }
    }
}

/// A stranger's text as a part of one line.
pub(crate) fn line(text: &str) -> String {
    const LIMIT: usize = 400;
    text.trim()
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(LIMIT)
        .collect()
}
