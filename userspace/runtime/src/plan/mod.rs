//! The plan of a child: everything between clone and exec, computed before the clone.
//!
//! The monitor builds it with full privilege (strings, descriptors, detached mounts) and may
//! fail at any time with nothing made; the child carries it out by [`run`] without allocating
//! and without a lock, and reports the number of the step that failed with its errno.
#![forbid(unsafe_code)]

pub(crate) mod build;
mod cgroupfs;
mod container;
mod dev;
mod exec;
mod mounts;
mod op;
mod rootfs;
pub(crate) mod run;

use std::{ffi::CString, os::fd::OwnedFd, path::Path};

use nix::{errno::Errno, sched::CloneFlags};

use crate::{
    record::Failed,
    sys::{exec::Strings, mount::Param},
};

/// What the child does, in order, and what it needs for it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub clone_flags: CloneFlags,
    /// The container's root, attached by the first mount step; targets are opened below it.
    pub root: Option<OwnedFd>,
    pub stdio: [OwnedFd; 3],
    pub steps: Vec<Step>,
    pub exec: Exec,
    /// The monitor is to write the identity map before it opens the gate.
    pub maps: bool,
}

/// The program, with every path it may be at.
#[derive(Debug)]
pub(crate) struct Exec {
    pub name: String,
    pub candidates: Vec<CString>,
    pub argv: Strings,
    pub envp: Strings,
}

/// One step, its static name and, for people, what it was done to.
#[derive(Debug)]
pub(crate) struct Step {
    pub name: &'static str,
    pub path: Option<String>,
    pub op: Op,
}

/// Paths are absolute and resolved inside the container's root.
#[derive(Debug)]
pub(crate) enum Op {
    UnshareCgroup,
    Join {
        pidfd: OwnedFd,
        flags: CloneFlags,
    },
    PrivateMounts,
    AttachRoot,
    MakeDirectory {
        parent: CString,
        name: CString,
    },
    MakeFile {
        parent: CString,
        name: CString,
    },
    Attach {
        mount: OwnedFd,
        at: CString,
        attributes: u64,
        follow: bool,
    },
    NewFilesystem {
        kind: CString,
        params: Vec<Param<CString>>,
        attributes: u64,
        at: CString,
    },
    /// A second mount of something in the root.
    Bind {
        from: CString,
        at: CString,
    },
    /// Hides a path, when it is there: a file behind /dev/null, a directory behind an empty one.
    Mask {
        at: CString,
    },
    /// Makes a path read-only, when it is there.
    ReadOnly {
        at: CString,
    },
    ReadOnlyRoot,
    PivotRoot,
    Hostname {
        name: String,
    },
    Loopback,
    Session,
    ControllingTerminal,
    Stdio,
    Keyring,
    Groups,
    Rlimit {
        resource: u32,
        soft: u64,
        hard: u64,
    },
    WorkingDirectory {
        path: CString,
    },
    /// Takes what is not in `keep` out of the bounding set, up to the kernel's last one.
    Bounding {
        keep: u64,
        last: u8,
    },
    Capabilities {
        set: u64,
    },
    NoNewPrivileges,
    /// Death with the monitor, and an end at once if it has died already.
    ParentDeath,
}

/// A launch that came to nothing, before or after the clone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step} {path:?}: {errno}")]
pub(crate) struct Failure {
    pub step: &'static str,
    pub path: Option<String>,
    pub errno: Errno,
    pub exit_code: i32,
}

/// Docker's exit codes of a launch that failed.
const SETUP_FAILED: i32 = 125;
const CANNOT_INVOKE: i32 = 126;
const NOT_FOUND: i32 = 127;

// === impl Plan ===

impl Plan {
    /// What the child's report means: an index past the steps is the exec.
    pub(crate) fn failure(&self, index: usize, errno: Errno) -> Failure {
        match self.steps.get(index) {
            Some(step) => Failure {
                step: step.name,
                path: step.path.clone(),
                errno,
                exit_code: match step.op {
                    Op::WorkingDirectory { .. } => CANNOT_INVOKE,
                    _ => SETUP_FAILED,
                },
            },
            None => Failure {
                step: "exec",
                path: Some(self.exec.name.clone()),
                errno,
                exit_code: if errno == Errno::ENOENT {
                    NOT_FOUND
                } else {
                    CANNOT_INVOKE
                },
            },
        }
    }
}

// === impl Failure ===

impl Failure {
    pub(crate) fn new(step: &'static str, path: impl AsRef<Path>, errno: Errno) -> Self {
        let path = path.as_ref().to_string_lossy().into_owned();
        Self {
            step,
            path: Some(path),
            errno,
            exit_code: SETUP_FAILED,
        }
    }

    pub(crate) fn without_path(step: &'static str, errno: Errno) -> Self {
        Self {
            step,
            path: None,
            errno,
            exit_code: SETUP_FAILED,
        }
    }

    pub(crate) fn record(&self) -> Failed {
        Failed {
            step: self.step.to_owned(),
            errno: self.errno as i32,
            path: self.path.clone(),
            exit_code: self.exit_code,
        }
    }
}
