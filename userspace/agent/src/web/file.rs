//! Files that say who is let in, known again by their stamps.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use paddock_policy::printable;

use crate::trusted::{self, Content};

/// What a file was when somebody looked, so that another content is noticed without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    path: PathBuf,
    /// `None`: it could not be looked at.
    seen: Option<[i64; 5]>,
}

impl Stamp {
    pub(super) fn of(path: PathBuf) -> Self {
        let seen = fs::metadata(&path).ok().map(|found| {
            let size = i64::try_from(found.size()).unwrap_or(i64::MAX);
            [
                found.ino().cast_signed(),
                size,
                found.mtime(),
                found.mtime_nsec(),
                // Set by the kernel at each change, whatever the other says.
                found
                    .ctime()
                    .wrapping_mul(1_000_000_000)
                    .wrapping_add(found.ctime_nsec()),
            ]
        });
        Self { path, seen }
    }

    pub(super) fn is_old(&self) -> bool {
        Self::of(self.path.clone()) != *self
    }
}

/// Whoever else could write it would decide who is let in.
pub(super) fn read(path: &Path) -> Result<Content, String> {
    let name = printable(&path.display().to_string());
    trusted::read(path).map_err(|error| format!("{name}: {error}"))
}
