//! A container's /dev, complete before the clone: nodes, links, pts, shm, and the terminal.
//!
//! The nodes are the container's own inodes on a tmpfs that the monitor mounts with the
//! host's privilege, not binds of the host's: a container's root owns them and may chmod them,
//! and with the identity map of its user namespace it could chmod the host's just as well.
//! devpts is a new instance; the terminal's two ends are opened before anybody else can reach it.
#![forbid(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat},
    unistd::symlinkat,
};

use super::Failure;
use crate::sys::{
    mount::{NODEV, NOEXEC, NOSUID, Param, new_filesystem},
    task::open_peer,
};

/// Character devices, all 0666.
const NODES: [(&CStr, u64, u64); 6] = [
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
    (c"tty", 5, 0),
];

const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"pts/ptmx", c"ptmx"),
];

const DIRECTORIES: [&CStr; 3] = [c"mqueue", c"pts", c"shm"];

/// Detached mounts for /dev and /dev/pts.
#[derive(Debug)]
pub(super) struct Dev {
    pub dev: OwnedFd,
    pub pts: OwnedFd,
}

/// A pseudo-terminal of a container's own devpts.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub master: OwnedFd,
    pub peer: OwnedFd,
}

pub(super) fn make(console: bool) -> Result<Dev, Failure> {
    let at = |path: &'static str| move |errno| Failure::new("make /dev", path, errno);
    let params = [
        Param::String(c"mode", c"0755"),
        Param::String(c"size", c"64m"),
    ];
    let dev = new_filesystem(c"tmpfs", &params, NOSUID | NOEXEC).map_err(at("/dev"))?;
    for (name, major, minor) in NODES {
        let mode = Mode::from_bits_truncate(0o666);
        mknodat(&dev, name, SFlag::S_IFCHR, mode, makedev(major, minor))
            .map_err(|errno| Failure::new("make /dev", name.to_string_lossy().as_ref(), errno))?;
    }
    for name in DIRECTORIES {
        mkdirat(&dev, name, Mode::from_bits_truncate(0o755)).map_err(at("/dev"))?;
    }
    for (target, name) in LINKS {
        symlinkat(target, &dev, name).map_err(at("/dev"))?;
    }
    if console {
        // The terminal is bound over it.
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        openat(&dev, c"console", flags, Mode::from_bits_truncate(0o620))
            .map_err(at("/dev/console"))?;
    }
    let params = [
        Param::Flag(c"newinstance"),
        Param::String(c"ptmxmode", c"0666"),
        Param::String(c"mode", c"0620"),
        Param::String(c"gid", c"5"),
    ];
    let pts = new_filesystem(c"devpts", &params, NOSUID | NOEXEC).map_err(at("/dev/pts"))?;
    Ok(Dev { dev, pts })
}

impl Dev {
    /// Read and write, for a stdin that nobody keeps open.
    pub(super) fn null(&self) -> Result<OwnedFd, Failure> {
        openat(
            &self.dev,
            c"null",
            OFlag::O_RDWR | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| Failure::new("stdin", "/dev/null", errno))
    }

    /// Number 0 of this instance.
    pub(super) fn terminal(&self) -> Result<Terminal, Failure> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        openat(&self.pts, c"ptmx", flags, Mode::empty())
            .and_then(Terminal::new)
            .map_err(|errno| Failure::new("terminal", "/dev/ptmx", errno))
    }
}

impl Terminal {
    pub(super) fn new(master: OwnedFd) -> nix::Result<Self> {
        let peer = open_peer(master.as_fd())?;
        Ok(Self { master, peer })
    }
}

/// POSIX shared memory of docker's size, charged to who writes it.
pub(super) fn shm(size: u64) -> Result<OwnedFd, Failure> {
    let fail = |errno| Failure::new("make /dev", "/dev/shm", errno);
    let size = CString::new(size.to_string()).map_err(|_| fail(Errno::EINVAL))?;
    let params = [
        Param::String(c"mode", c"1777"),
        Param::String(c"size", size.as_c_str()),
    ];
    new_filesystem(c"tmpfs", &params, NOSUID | NODEV | NOEXEC).map_err(fail)
}
