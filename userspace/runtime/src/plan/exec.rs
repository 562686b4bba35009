//! The plan of one more process in a running container.
//!
//! The container's first process is named by pid and start time and checked through a pidfd,
//! so a number used again is refused (ESRCH). What is opened in the container's root is opened
//! by openat2 and checked to be what it says: the container may have replaced it.
//!
//! A program of the host's (no `mnt` among the types) must be out of the container's reach: who
//! may trace it is in the host's mount namespace. The kernel refuses that (EPERM) to who has no
//! capabilities in the tracee's user namespace, so that stays the host's, and the container must
//! have another. A program of the container's must be in its user and pid namespaces: its ids and
//! capabilities would be the host's, and it could signal the host's processes.
#![forbid(unsafe_code)]

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
    sys::stat::{SFlag, fstat, makedev},
    unistd::getpid,
};

use super::{
    Failure, Masks, Op, Plan, account,
    build::{
        Prepared, io_failure, last_filter, program, push_credentials, push_labels, push_session,
        step, umask,
    },
    container::{hand_over, terminal},
    dev::Terminal,
    rootfs,
};
use crate::{
    monitor::{identity::start_time, io::pipes},
    spec::{ExecSpec, IdMap, IdMaps, Process},
    sys::clone::{NEWTIME, pidfd_open},
};

/// Namespaces joined by the child, with their names in /proc/PID/ns. The pid namespace is
/// joined by the monitor: it counts for children only.
const JOINED: [(&str, CloneFlags); 7] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("time", NEWTIME),
    ("user", CloneFlags::CLONE_NEWUSER),
    ("uts", CloneFlags::CLONE_NEWUTS),
];

const JOIN: &str = "join namespaces";

pub(super) fn prepare(
    process: &Process,
    target: &ExecSpec,
    window: Option<(u16, u16)>,
) -> Result<Prepared, Failure> {
    let stdio = |user| {
        let (io, stdio) = if process.terminal {
            terminal(open_terminal(whose_files(target))?, window)?
        } else if process.stdin {
            pipes(None)?
        } else {
            pipes(Some(open_null(whose_files(target))?))?
        };
        hand_over(&stdio, user)?;
        Ok((io, stdio))
    };
    let (plan, io) = plan(process, target, stdio)?;
    Ok(Prepared { plan, io })
}

/// The plan around whatever stdio there is; `stdio` gets the host's number of the program's user.
pub(super) fn plan<T>(
    process: &Process,
    target: &ExecSpec,
    stdio: impl FnOnce(u32) -> Result<(T, [OwnedFd; 3]), Failure>,
) -> Result<(Plan, T), Failure> {
    let pidfd = identify(target)?;
    let flags = joined(target, differing(target.pid)?)?;
    let files = whose_files(target);
    let process = &account::resolve(process, &open_root(files)?)?;
    let exec = program(process)?;
    let user = host_uid(files, process.user.uid)?;
    let (other_end, stdio) = stdio(user)?;
    // The process was alive after all this was opened, so it was this process' that was opened.
    alive(&pidfd)?;
    if target.joins("pid") {
        setns(&pidfd, CloneFlags::CLONE_NEWPID)
            .map_err(|errno| Failure::without_path("join pid namespace", errno))?;
    }
    let mut steps = Vec::new();
    push_labels(&mut steps, process)?;
    let own_user_namespace = flags.contains(CloneFlags::CLONE_NEWUSER);
    if !flags.is_empty() {
        steps.push(step(JOIN, Op::Join { pidfd, flags }));
    }
    if own_user_namespace {
        steps.push(step("become root", Op::BecomeRoot));
    }
    push_session(&mut steps, process)?;
    push_credentials(&mut steps, process, own_user_namespace)?;
    let plan = Plan {
        clone_flags: CloneFlags::empty(),
        root: None,
        stdio,
        steps,
        umask: umask(&process.user),
        terminal: process.terminal,
        init: false,
        seccomp: last_filter(process),
        exec,
        joins: Vec::new(),
        enter: None,
        maps: None,
        oom_score_adj: process.oom_score_adj,
        preserved: 0,
        start: None,
        hook_state: None,
        masks: Masks::default(),
    };
    Ok((plan, other_end))
}

fn gone(errno: Errno) -> Failure {
    Failure::without_path("find the container's process", errno)
}

fn identify(target: &ExecSpec) -> Result<OwnedFd, Failure> {
    let pidfd = pidfd_open(target.pid).map_err(gone)?;
    let started = start_time(target.pid).map_err(|_| gone(Errno::ESRCH))?;
    if started != target.start_time {
        return Err(gone(Errno::ESRCH));
    }
    alive(&pidfd)?;
    Ok(pidfd)
}

/// A pidfd is readable once its process has ended.
fn alive(pidfd: &OwnedFd) -> Result<(), Failure> {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(0) => Ok(()),
        Ok(_) => Err(gone(Errno::ESRCH)),
        Err(errno) => Err(gone(errno)),
    }
}

/// Joining the user namespace one is in already is an error (EINVAL), so only what differs.
fn differing(pid: i32) -> Result<CloneFlags, Failure> {
    let mut flags = CloneFlags::empty();
    for (name, flag) in JOINED {
        // `None`: this kernel is built without that type.
        let inode = |pid: &str| {
            let path = format!("/proc/{pid}/ns/{name}");
            match fs::metadata(&path) {
                Ok(metadata) => Ok(Some(metadata.ino())),
                Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(io_failure("read namespaces", path, &source)),
            }
        };
        flags.set(flag, inode(&pid.to_string())? != inode("self")?);
    }
    Ok(flags)
}

/// Those of the differing that are wanted. What is not safe is refused (EPERM), whoever asks.
fn joined(target: &ExecSpec, differing: CloneFlags) -> Result<CloneFlags, Failure> {
    let user = differing.contains(CloneFlags::CLONE_NEWUSER);
    let safe = if target.joins("mnt") {
        target.joins("pid") && (target.joins("user") || !user)
    } else {
        user && !target.joins("user")
    };
    if !safe {
        let types = target.types.join(",");
        return Err(Failure::new(JOIN, types, Errno::EPERM));
    }
    Ok(JOINED
        .into_iter()
        .filter(|(name, _)| target.joins(name))
        .fold(CloneFlags::empty(), |flags, (_, flag)| flags | flag)
        & differing)
}

/// Whose root file system the program comes from: the container's, or the monitor's own.
fn whose_files(target: &ExecSpec) -> i32 {
    if target.joins("mnt") {
        target.pid
    } else {
        getpid().as_raw()
    }
}

fn open_root(pid: i32) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/{pid}/root");
    rootfs::open_path(Path::new(&path), libc::O_DIRECTORY)
        .map(OwnedFd::from)
        .map_err(|source| io_failure("open the container's root", path, &source))
}

/// The host's number of an id inside, by the map of the container's user namespace.
fn host_uid(pid: i32, inside: u32) -> Result<u32, Failure> {
    let path = format!("/proc/{pid}/uid_map");
    let text =
        fs::read_to_string(&path).map_err(|source| io_failure("read id map", &path, &source))?;
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        Some(IdMap {
            inside: numbers.next()??,
            outside: numbers.next()??,
            size: numbers.next()??,
        })
    };
    let maps = IdMaps {
        uids: text.lines().filter_map(range).collect(),
        gids: Vec::new(),
    };
    maps.host_uid(inside)
        .ok_or_else(|| Failure::new("uid", inside.to_string(), Errno::EINVAL))
}

/// A device below that process' root, or the errno of its absence. ENODEV: not what it should be.
fn open_device(pid: i32, path: &str, device: libc::dev_t, flags: OFlag) -> nix::Result<OwnedFd> {
    let root = open_root(pid).map_err(|failure| failure.errno)?;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(resolve);
    let node = openat2(&root, path, how)?;
    let stat = fstat(&node)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFCHR.bits() || stat.st_rdev != device {
        return Err(Errno::ENODEV);
    }
    let path = format!("/proc/self/fd/{}", node.as_raw_fd());
    nix::fcntl::open(
        path.as_str(),
        flags | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
}

pub(super) fn open_terminal(pid: i32) -> Result<Terminal, Failure> {
    const PATH: &str = "/dev/pts/ptmx";
    open_device(pid, PATH, makedev(5, 2), OFlag::O_RDWR | OFlag::O_NOCTTY)
        .and_then(Terminal::new)
        .map_err(|errno| Failure::new("terminal", PATH, errno))
}

fn open_null(pid: i32) -> Result<OwnedFd, Failure> {
    const PATH: &str = "/dev/null";
    open_device(pid, PATH, makedev(1, 3), OFlag::O_RDWR)
        .map_err(|errno| Failure::new("stdin", PATH, errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: CloneFlags = CloneFlags::CLONE_NEWNS
        .union(CloneFlags::CLONE_NEWNET)
        .union(CloneFlags::CLONE_NEWUSER);

    fn flags(types: &[&str], differing: CloneFlags) -> Result<CloneFlags, Errno> {
        let target = ExecSpec {
            pid: 1,
            start_time: 0,
            cgroup: String::new(),
            types: types.iter().map(ToString::to_string).collect(),
        };
        joined(&target, differing).map_err(|failure| failure.errno)
    }

    #[test]
    fn the_chosen_are_joined_where_they_differ() {
        assert_eq!(flags(&[], ALL), Ok(ALL));
        assert_eq!(flags(&["net"], ALL), Ok(CloneFlags::CLONE_NEWNET));
        let without_net = ALL - CloneFlags::CLONE_NEWNET;
        assert_eq!(flags(&["mnt", "pid", "user"], ALL), Ok(without_net));
        assert_eq!(flags(&["net"], without_net), Ok(CloneFlags::empty()));
    }

    #[test]
    fn what_the_container_could_reach_out_by_is_refused() {
        let refused = Err(Errno::EPERM);
        assert_eq!(flags(&["mnt", "pid"], ALL), refused);
        assert_eq!(flags(&["mnt", "user"], ALL), refused);
        assert_eq!(flags(&["net", "user"], ALL), refused);
        let same_user = ALL - CloneFlags::CLONE_NEWUSER;
        assert_eq!(flags(&["net"], same_user), refused);
        let mount = CloneFlags::CLONE_NEWNS;
        assert_eq!(flags(&["mnt", "pid"], same_user), Ok(mount));
    }
}
