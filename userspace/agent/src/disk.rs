//! Records on disk: JSON, written beside and renamed, so a reader sees all or nothing.

use std::{fs, io, path::Path};

pub(crate) use paddock_runtime::disk::write_record as write_json;
use serde::de::DeserializeOwned;

/// `None` where there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
