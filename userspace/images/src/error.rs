//! Why an image is not there. Each is one line for a person: what, where, what to do.

use std::{io, path::PathBuf};

use crate::digest::Digest;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("image '{text}': {reason}")]
    Reference { text: String, reason: String },
    #[error("no image '{name}' here: see `paddock images ls`, get it by `paddock pull {name}`")]
    NotFound { name: String },
    #[error("image id '{prefix}' fits several images: give more of its digits")]
    Ambiguous { prefix: String },
    /// The image is not what it says it is, or not what this reads.
    #[error("{what}: {reason}")]
    Broken { what: String, reason: String },
    /// An entry of a layer that no honest image has.
    #[error("layer {layer}: entry '{entry}': {reason}")]
    Entry {
        layer: Digest,
        entry: String,
        reason: String,
    },
    /// Reading or writing failed in the midst of a layer.
    #[error("layer {layer}: {reason}")]
    Layer { layer: Digest, reason: String },
    #[error("image {image} is used by container {container}: remove that first")]
    InUse { image: String, container: String },
    #[error("{reference}: {reason}")]
    Registry {
        reference: String,
        reason: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    #[error("data directory {path} {reason}")]
    Unsafe { path: PathBuf, reason: String },
    #[error("interrupted: nothing was changed")]
    Interrupted,
}

impl Error {
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { op, path, source }
    }

    pub(crate) fn broken(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Broken {
            what: what.into(),
            reason: reason.into(),
        }
    }
}

/// The kernel's words, without the number.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or(&text).to_owned()
}

/// Text of an image's choosing, short and without control characters.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 100;
    let text = String::from_utf8_lossy(bytes);
    let mut short: String = text
        .chars()
        .take(MOST)
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}
