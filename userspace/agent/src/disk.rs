//! Records on disk: JSON, written beside and renamed, so a reader sees all or nothing.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

/// Replaces `dir/name`, mode 0600. No fsync: the state directory does not outlive the kernel
/// that runs what it describes.
pub(crate) fn write_json(dir: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = serde_json::to_vec(value)
        .map_err(io::Error::other)
        .and_then(|json| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&json)
        })
        .and_then(|()| fs::rename(&temporary, dir.join(name)));
    if written.is_err() {
        // What failed is told by the first error.
        let _ = fs::remove_file(&temporary);
    }
    written
}

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
