//! Files that say who is let in: read whole, from where only root writes, and known again by
//! their stamps.

use std::{
    fs::{self, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use paddock_policy::printable;

const MAX_BYTES: u64 = 1 << 20;

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

#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// Others than its owner can read it.
    pub(super) is_open: bool,
}

/// Whoever else could write it would decide who is let in.
pub(super) fn read(path: &Path) -> Result<Content, String> {
    let name = printable(&path.display().to_string());
    let failed = |error: io::Error| {
        let why = error.raw_os_error().map_or_else(
            || error.to_string(),
            |code| nix::errno::Errno::from_raw(code).desc().to_owned(),
        );
        format!("{name}: {why}")
    };
    let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    refused(&found).map_err(|what| format!("{name} {what}"))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(Content {
        bytes,
        is_open: found.mode() & 0o044 != 0,
    })
}

fn refused(found: &Metadata) -> Result<(), &'static str> {
    if !found.is_file() {
        return Err("is no regular file");
    }
    let own = nix::unistd::geteuid().as_raw();
    if (found.uid() != 0 && found.uid() != own) || found.mode() & 0o022 != 0 {
        return Err("can be written by others than root: chown root, chmod go-w");
    }
    if found.len() > MAX_BYTES {
        return Err("is larger than 1 MiB");
    }
    Ok(())
}
