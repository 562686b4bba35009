//! What can go wrong here: each variant names the file and what was done to it.

use std::{io, path::PathBuf};

use crate::discovery::Version;

/// The cause is the source and is not printed again by Display.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {value:?} to {path}")]
    Write {
        path: PathBuf,
        value: String,
        #[source]
        source: io::Error,
    },
    #[error("{path}: wrote {wrote:?}, the kernel keeps {read:?}")]
    NotKept {
        path: PathBuf,
        wrote: String,
        read: String,
    },
    #[error("{path}: cannot read {text:?} as {expected}")]
    Parse {
        path: PathBuf,
        text: String,
        expected: &'static str,
    },
    #[error("no cgroup hierarchy is mounted; as root: mount -t cgroup2 none /sys/fs/cgroup")]
    NotMounted,
    #[error("this kernel has no cgroups (/proc/filesystems lists neither cgroup nor cgroup2)")]
    NotInKernel,
    #[error("no mounted cgroup hierarchy has the {controller} controller{hint}")]
    NoController {
        controller: &'static str,
        hint: &'static str,
    },
    #[error("cannot enable the {controller} controller in {path}{hint}")]
    Enable {
        controller: String,
        path: PathBuf,
        hint: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(
        "cgroup path {path:?}: {reason}; expected a relative path such as paddock/default/ab12"
    )]
    BadPath { path: String, reason: &'static str },
    #[error("no cgroup {path} in any hierarchy")]
    NotFound { path: String },
    #[error(
        "{path}: a limit of {limit} bytes is below the present use of {usage} bytes{} and the kernel cannot reclaim enough",
        peak.map_or_else(String::new, |peak| format!(" (peak {peak})"))
    )]
    BelowUse {
        path: PathBuf,
        limit: u64,
        usage: u64,
        /// Where the kernel keeps it.
        peak: Option<u64>,
    },
    #[error("{limit}: the {controller} controller (cgroup {version}) {reason}")]
    NotOffered {
        limit: &'static str,
        controller: &'static str,
        version: Version,
        reason: String,
    },
    #[error("{path}: cannot be put back to what it was before a failure")]
    NotUndone {
        path: PathBuf,
        #[source]
        source: Box<Error>,
    },
    #[error("{name} {value}: {reason}")]
    Limit {
        name: &'static str,
        value: String,
        reason: String,
    },
    #[error("cgroup {path}: processes {pids:?} are still there {seconds} s after SIGKILL")]
    Unkillable {
        path: String,
        pids: Vec<i32>,
        seconds: u64,
    },
    #[error("cgroup {path} is not {wanted} after {seconds} s")]
    FreezeTimeout {
        path: String,
        wanted: &'static str,
        seconds: u64,
    },
}

impl Error {
    /// The errno at the bottom, where a call to the kernel failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::Write { source, .. } | Self::Enable { source, .. } => {
                source.raw_os_error()
            }
            _ => None,
        }
    }

    /// The cgroup went away under us: another instance removed an empty parent.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.raw_os_error(), Some(code) if code == nix::libc::ENOENT || code == nix::libc::ENODEV)
    }
}
