//! The plan of one more process in a running container.
//!
//! The container's first process is named by pid and start time and checked through a pidfd,
//! so a number used again is refused (ESRCH). What is opened in the container's root is opened
//! by openat2 and checked to be what it says: the container may have replaced it.
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
};

use super::{
    Failure, Op, Plan, account,
    build::{
        Prepared, io_failure, last_filter, program, push_credentials, push_session, step, umask,
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

pub(super) fn prepare(
    process: &Process,
    target: &ExecSpec,
    window: Option<(u16, u16)>,
) -> Result<Prepared, Failure> {
    let stdio = |user| {
        let (io, stdio) = if process.terminal {
            terminal(open_terminal(target.pid)?, window)?
        } else if process.stdin {
            pipes(None)?
        } else {
            pipes(Some(open_null(target.pid)?))?
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
    let flags = differing(target.pid)?;
    let process = &account::resolve(process, &open_root(target.pid)?)?;
    let exec = program(process)?;
    let user = host_uid(target.pid, process.user.uid)?;
    let (other_end, stdio) = stdio(user)?;
    // The process was alive after all this was opened, so it was this process' that was opened.
    alive(&pidfd)?;
    setns(&pidfd, CloneFlags::CLONE_NEWPID)
        .map_err(|errno| Failure::without_path("join pid namespace", errno))?;
    let mut steps = Vec::new();
    let own_user_namespace = flags.contains(CloneFlags::CLONE_NEWUSER);
    if !flags.is_empty() {
        steps.push(step("join namespaces", Op::Join { pidfd, flags }));
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

/// A device of the container's, or the errno of its absence. ENODEV: not what it should be.
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
