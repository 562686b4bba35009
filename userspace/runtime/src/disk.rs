//! Records on disk: written beside, synced by rename, so that a reader sees all or nothing.
#![forbid(unsafe_code)]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::Serialize;

/// A file of procfs, as a whole. It says that it is empty: std, which asks for the size first,
/// would take it in pieces from 32 bytes on.
pub(crate) fn kernel_text(path: impl AsRef<Path>) -> io::Result<String> {
    const USUAL: usize = 4096;
    const MOST: u64 = 16 << 20;
    let mut text = String::with_capacity(USUAL);
    File::open(path)?.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces `directory/name` by `value` as JSON, mode 0600. No fsync: the state directory is
/// volatile by design and a record that did not survive a power cut means nothing after it.
pub fn write_record(directory: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.tmp"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = serde_json::to_vec(value)
        .map_err(io::Error::other)
        .and_then(|json| file.write_all(&json))
        .and_then(|()| fs::rename(&temporary, directory.join(name)));
    if written.is_err() {
        // A half-written file helps nobody; what failed is told by the first error.
        let _ = fs::remove_file(&temporary);
    }
    written
}
