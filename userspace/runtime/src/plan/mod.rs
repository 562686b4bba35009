//! The plan of a child: everything between clone and exec, computed before the clone.
//!
//! The monitor builds it with full privilege (strings, descriptors, detached mounts) and may
//! fail at any time with nothing made; the child carries it out by [`run`] without allocating
//! and without a lock, and reports the number of the step that failed with its errno.
#![forbid(unsafe_code)]

pub(crate) mod account;
pub(crate) mod build;
pub(crate) mod calls;
mod cgroupfs;
mod chown;
mod container;
mod dev;
pub(crate) mod direct;
mod exec;
mod hook;
pub(crate) mod idmap;
mod init;
pub(crate) mod layers;
mod mountinfo;
pub(crate) mod mounts;
mod op;
mod rootfs;
pub(crate) mod run;

use std::{
    cell::OnceCell,
    ffi::CString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, libc, sched::CloneFlags, sys::stat::Mode};

use self::hook::Hook;
use crate::{
    record::Failed,
    spec::IdMaps,
    sys::{
        exec::Strings,
        mount::{Attributes, Param},
        seccomp,
        task::CapabilitySets,
    },
};

/// What the child does, in order, and what it needs for it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub clone_flags: CloneFlags,
    /// The container's root, attached by the first mount step; targets are opened below it.
    pub root: Option<OwnedFd>,
    pub stdio: [OwnedFd; 3],
    pub steps: Vec<Step>,
    pub umask: Mode,
    /// The program has a terminal, which its stdio is.
    pub terminal: bool,
    /// The first process stays and reaps; its child executes.
    pub init: bool,
    pub exec: Exec,
    /// Installed when all else is done, so that the program's rules judge no call of ours but
    /// exec itself. Where `no_new_privs` is off it is a step instead ([`Op::Seccomp`]).
    pub seccomp: Option<seccomp::Program>,
    /// The monitor joins these itself, just before it clones: the child inherits them, and may
    /// not join what belongs to another user namespace once it is in a new one.
    pub joins: Vec<Join>,
    /// Another's user namespace comes first of all, and what is new is made inside of it.
    pub enter: Option<Enter>,
    /// The monitor is to write these before it opens the gate.
    pub maps: Option<IdMaps>,
    pub oom_score_adj: Option<i32>,
    /// How many descriptors from 3 on the program keeps.
    pub preserved: u8,
    /// With it the program waits to be started, after its launcher has gone.
    pub start: Option<Start>,
    /// The stdin of the steps' hooks, filled by the launcher before it opens the gate.
    pub hook_state: Option<OwnedFd>,
    pub masks: Masks,
}

/// What the first masked file and directory are hidden behind, for the others.
#[derive(Debug, Default)]
pub(crate) struct Masks {
    null: OnceCell<OwnedFd>,
    empty: OnceCell<OwnedFd>,
}

/// What a waiting child needs: who connects starts it, and reads why it failed.
#[derive(Debug)]
pub(crate) struct Start {
    pub listener: OwnedFd,
    pub hooks: Vec<Hook>,
    /// The stdin of these hooks.
    pub state: OwnedFd,
}

/// How a child gets into a user namespace that is not its monitor's: by setns, from which on
/// it can make namespaces that belong to it.
#[derive(Debug)]
pub(crate) struct Enter {
    pub user: OwnedFd,
    pub new: CloneFlags,
    /// Some namespaces are only for children: then a second child, a sibling, goes on.
    pub again: bool,
}

/// A namespace of another's.
#[derive(Debug)]
pub(crate) struct Join {
    /// As in /proc/PID/ns.
    pub name: &'static str,
    pub namespace: OwnedFd,
    pub flag: CloneFlags,
    pub path: PathBuf,
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
    /// At the root or at another directory of the host's, until the pivot.
    AttachRoot {
        at: CString,
        propagation: u64,
    },
    /// The working directory, before the pivot.
    HostDirectory {
        path: CString,
    },
    MakeDirectory {
        parent: CString,
        name: CString,
        /// The container's numbers of whom a new one belongs to; else root.
        owner: Option<(u32, u32)>,
    },
    MakeFile {
        parent: CString,
        name: CString,
    },
    Attach {
        mount: OwnedFd,
        at: CString,
        attributes: Attributes,
        follow: bool,
    },
    /// Onto a file that is there, wherever inside links lead; else nothing.
    AttachToFile {
        mount: OwnedFd,
        at: CString,
        attributes: Attributes,
    },
    NewFilesystem {
        kind: CString,
        params: Vec<Param<CString>>,
        attributes: Attributes,
        at: CString,
        follow: bool,
        /// Attached instead where the kernel refuses a new one (EPERM).
        fallback: Option<OwnedFd>,
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
    /// Below /proc, which must be a procfs.
    Sysctl {
        at: CString,
        value: CString,
    },
    PivotRoot,
    Hostname {
        name: String,
    },
    Domainname {
        name: String,
    },
    Loopback,
    Session,
    ControllingTerminal,
    Stdio,
    Keyring,
    /// Id 0 of a new user namespace: from its clone on the child is nobody in it.
    BecomeRoot,
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
    /// The program's ids, keeping the permitted capabilities.
    User {
        uid: u32,
        gid: u32,
        groups: Vec<libc::gid_t>,
    },
    Capabilities {
        sets: CapabilitySets,
        ambient: u64,
    },
    /// Of the program, by itself: it is a thread's own.
    MemoryPolicy {
        mode: i32,
        nodes: Vec<usize>,
    },
    NoNewPrivileges,
    /// Early, while CAP_SYS_ADMIN is still there; one that asks a listener where it comes.
    Seccomp {
        program: seccomp::Program,
    },
    /// Death with the monitor, and an end at once if it has died already.
    ParentDeath,
    /// A program of the operator's, in the container's namespaces.
    Hook(Hook),
    /// Propagation of the root and what is mounted in it, once nothing more is mounted.
    Propagation {
        flags: u64,
        recursive: bool,
    },
    /// A label of the security module's for the program, by a file below /proc/self/attr.
    ExecLabel {
        at: CString,
        label: CString,
    },
    /// Fails where the program could not be executed, so that it is known before it starts.
    FindProgram,
}

/// The steps' names, paths and what their failure exits with; the program's name.
#[derive(Debug)]
pub(crate) struct Names {
    steps: Vec<(&'static str, Option<String>, i32)>,
    program: String,
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

/// The step's name wherever it comes.
const SECCOMP: &str = "seccomp filter";

/// Of the one that asks about setns.
const ASKING: &str = "filter that asks";

/// Docker's exit codes of a launch that failed.
const SETUP_FAILED: i32 = 125;
const CANNOT_INVOKE: i32 = 126;
const NOT_FOUND: i32 = 127;
/// Of a step that stands for the exec: its errno decides.
const PROGRAM: i32 = -1;

// === impl Plan ===

impl Plan {
    /// What is worth keeping after the clone: the descriptors, mounts among them, are the
    /// child's from then on, and a copy would keep pipes from ending and mounts from going.
    pub(crate) fn into_names(self) -> Names {
        let name = |step: Step| {
            let exit_code = match step.op {
                Op::WorkingDirectory { .. } => CANNOT_INVOKE,
                Op::FindProgram => PROGRAM,
                _ => SETUP_FAILED,
            };
            (step.name, step.path, exit_code)
        };
        Names {
            steps: self.steps.into_iter().map(name).collect(),
            program: self.exec.name,
        }
    }
}

// === impl Names ===

impl Names {
    /// What the child's report means: an index past the steps is the last filter or the exec.
    pub(crate) fn failure(&self, index: u32, errno: Errno) -> Failure {
        if index == run::ENTER {
            return Failure::without_path("join user namespace", errno);
        }
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if index == self.steps.len() + 1 {
            return Failure::without_path(SECCOMP, errno);
        }
        match self.steps.get(index) {
            Some((step, path, exit_code)) if *exit_code != PROGRAM => Failure {
                step,
                path: path.clone(),
                errno,
                exit_code: *exit_code,
            },
            _ => Failure {
                step: "exec",
                path: Some(self.program.clone()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_step_or_the_exec() {
        let step = |name, op| Step {
            name,
            path: None,
            op,
        };
        let path = c"/nowhere".to_owned();
        let names = Plan {
            clone_flags: CloneFlags::empty(),
            root: None,
            stdio: std::array::from_fn(|_| {
                std::fs::File::open("/dev/null").map(OwnedFd::from).unwrap()
            }),
            steps: vec![
                step("a", Op::Session),
                step("b", Op::WorkingDirectory { path }),
            ],
            exec: Exec {
                name: "nope".into(),
                candidates: vec![],
                argv: Strings::new(vec![]),
                envp: Strings::new(vec![]),
            },
            umask: Mode::empty(),
            terminal: false,
            init: false,
            seccomp: None,
            joins: vec![],
            enter: None,
            maps: None,
            oom_score_adj: None,
            preserved: 0,
            start: None,
            hook_state: None,
            masks: Masks::default(),
        }
        .into_names();
        let code = |index, errno| names.failure(index, errno).exit_code;
        assert_eq!(names.failure(0, Errno::EPERM).step, "a");
        assert_eq!([code(0, Errno::EPERM), code(1, Errno::ENOENT)], [125, 126]);
        assert_eq!(
            [code(2, Errno::ENOENT), code(2, Errno::ENOEXEC)],
            [127, 126]
        );
        assert_eq!(names.failure(3, Errno::EINVAL).step, SECCOMP);
        assert_eq!(
            names.failure(2, Errno::EACCES).path.as_deref(),
            Some("nope")
        );
    }
}
