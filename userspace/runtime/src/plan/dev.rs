//! A container's /dev, complete before the clone: nodes, links, pts, and the terminal.
//!
//! The nodes are the container's own inodes on a tmpfs that the monitor mounts with the
//! host's privilege, not binds of the host's: a container's root owns them and may chmod them,
//! and with the identity map of its user namespace it could chmod the host's just as well.
//! devpts is a new instance; the terminal's two ends are opened before anybody else can reach it.
#![forbid(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Component,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    libc::dev_t,
    sys::stat::{Mode, SFlag, fstatat, makedev, mkdirat, mknodat},
    unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat},
};

use super::Failure;
use crate::{
    spec::Device,
    sys::{
        mount::{NOEXEC, NOSUID, Param, new_filesystem},
        task::open_peer,
    },
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

pub(super) const DIRECTORIES: [&CStr; 3] = [c"mqueue", c"pts", c"shm"];

/// Whose all of it is: the host's ids of the container's root, and of its group 5, which
/// terminals belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub uid: u32,
    pub gid: u32,
    pub terminals: u32,
}

/// A pseudo-terminal of a container's own devpts.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub master: OwnedFd,
    pub peer: OwnedFd,
}

/// The container's own inodes on a detached tmpfs.
pub(super) fn make(
    size: u64,
    devices: &[Device],
    console: bool,
    owner: Owner,
) -> Result<OwnedFd, Failure> {
    let size = CString::new(size.to_string()).map_err(|_| failure("/dev", Errno::EINVAL))?;
    let params = [
        Param::String(c"mode", c"0755"),
        Param::String(c"size", size.as_c_str()),
    ];
    let dev = new_filesystem(c"tmpfs", &params, NOSUID | NOEXEC)
        .and_then(|dev| own(&dev, c".", owner.uid, owner.gid).map(|()| dev))
        .map_err(|errno| failure("/dev", errno))?;
    for (name, major, minor) in NODES {
        node(&dev, name, SFlag::S_IFCHR, 0o666, makedev(major, minor))
            .and_then(|()| own(&dev, name, owner.uid, owner.gid))
            .map_err(|errno| failure(&name.to_string_lossy(), errno))?;
    }
    for name in DIRECTORIES {
        directory(&dev, name, owner).map_err(|errno| failure(&name.to_string_lossy(), errno))?;
    }
    for (target, name) in LINKS {
        symlinkat(target, &dev, name)
            .and_then(|()| own(&dev, name, owner.uid, owner.gid))
            .map_err(|errno| failure(&name.to_string_lossy(), errno))?;
    }
    for device in devices {
        extra(&dev, device, owner)?;
    }
    if console {
        // The terminal is bound over it.
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        openat(&dev, c"console", flags, Mode::from_bits_truncate(0o620))
            .map_err(|errno| failure("/dev/console", errno))?;
    }
    Ok(dev)
}

/// One of the spec's, with the directories above it. Its owner is the host's number already.
fn extra(dev: &OwnedFd, device: &Device, owner: Owner) -> Result<(), Failure> {
    let fail = |errno| Failure::new("device", &device.path, errno);
    let below = device
        .path
        .strip_prefix("/dev")
        .map_err(|_| fail(Errno::EINVAL))?;
    if !below
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(fail(Errno::EINVAL));
    }
    let name = CString::new(below.as_os_str().as_bytes()).map_err(|_| fail(Errno::EINVAL))?;
    let above: Vec<_> = below.ancestors().skip(1).collect();
    for parent in above
        .into_iter()
        .rev()
        .filter(|path| !path.as_os_str().is_empty())
    {
        let parent =
            CString::new(parent.as_os_str().as_bytes()).map_err(|_| fail(Errno::EINVAL))?;
        match directory(dev, &parent, owner) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(fail(errno)),
        }
    }
    let kind = kind_of(device).map_err(fail)?;
    let number = makedev(device.major.into(), device.minor.into());
    match node(dev, &name, kind, device.mode, number) {
        // Docker's six may be asked for once more.
        Err(Errno::EEXIST) => unlinkat(dev, name.as_c_str(), UnlinkatFlags::NoRemoveDir)
            .and_then(|()| node(dev, &name, kind, device.mode, number)),
        other => other,
    }
    .and_then(|()| own(dev, &name, device.uid, device.gid))
    .map_err(fail)
}

pub(super) fn is_below_dev(device: &Device) -> bool {
    device.path.starts_with("/dev")
}

/// A node in the root itself: on whatever file system that is, and behind no symlink.
pub(super) fn in_root(root: &OwnedFd, device: &Device) -> Result<(), Failure> {
    let fail = |errno| Failure::new("device", &device.path, errno);
    let names = device
        .path
        .components()
        .filter_map(|part| match part {
            Component::RootDir => None,
            Component::Normal(name) => {
                Some(CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL))
            }
            _ => Some(Err(Errno::EINVAL)),
        })
        .collect::<nix::Result<Vec<_>>>()
        .map_err(fail)?;
    let (name, above) = names.split_last().ok_or_else(|| fail(Errno::EINVAL))?;
    let mut parent = below(root, c".").map_err(fail)?;
    for directory in above {
        match mkdirat(
            &parent,
            directory.as_c_str(),
            Mode::from_bits_truncate(0o755),
        ) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(fail(errno)),
        }
        parent = below(&parent, directory).map_err(fail)?;
    }
    let kind = kind_of(device).map_err(fail)?;
    let number = makedev(device.major.into(), device.minor.into());
    match node(&parent, name, kind, device.mode, number) {
        // The root has had it before.
        Err(Errno::EEXIST) => match fstatat(&parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
        {
            Ok(found)
                if found.st_mode & SFlag::S_IFMT.bits() == kind.bits()
                    && found.st_rdev == number =>
            {
                Ok(())
            }
            _ => Err(Errno::EEXIST),
        },
        other => other.and_then(|()| own(&parent, name, device.uid, device.gid)),
    }
    .map_err(fail)
}

/// The nodes and links that every container has, for a root without a /dev mounted in it.
pub(super) fn defaults_in_root(root: &OwnedFd, owner: Owner) -> Result<(), Failure> {
    for (name, major, minor) in NODES {
        let number = |number: u64| u32::try_from(number).unwrap_or_default();
        let name = name.to_string_lossy();
        let device = Device {
            path: format!("/dev/{name}").into(),
            kind: 'c',
            major: number(major),
            minor: number(minor),
            mode: 0o666,
            uid: owner.uid,
            gid: owner.gid,
        };
        in_root(root, &device)?;
    }
    let dev = below(root, c"dev").map_err(|errno| failure("/dev", errno))?;
    for (target, name) in LINKS {
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failure(&name.to_string_lossy(), errno)),
        }
    }
    Ok(())
}

/// One directory further down, which no symlink may stand for.
fn below(parent: &OwnedFd, name: &CStr) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(parent, name, how)
}

fn kind_of(device: &Device) -> nix::Result<SFlag> {
    match device.kind {
        'c' | 'u' => Ok(SFlag::S_IFCHR),
        'b' => Ok(SFlag::S_IFBLK),
        'p' => Ok(SFlag::S_IFIFO),
        _ => Err(Errno::EINVAL),
    }
}

fn directory(dev: &OwnedFd, name: &CStr, owner: Owner) -> nix::Result<()> {
    mkdirat(dev, name, Mode::from_bits_truncate(0o755))?;
    own(dev, name, owner.uid, owner.gid)
}

fn node(dev: &OwnedFd, name: &CStr, kind: SFlag, mode: u32, number: dev_t) -> nix::Result<()> {
    mknodat(dev, name, kind, Mode::from_bits_truncate(mode), number)
}

fn own(dev: &OwnedFd, name: &CStr, uid: u32, gid: u32) -> nix::Result<()> {
    if (uid, gid) == (0, 0) {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fchownat(dev, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn failure(path: &str, errno: Errno) -> Failure {
    Failure::new("make /dev", path, errno)
}

/// A new instance of devpts, detached; its terminals belong to the group 5, `tty`.
pub(super) fn pts(owner: Owner) -> Result<OwnedFd, Failure> {
    let gid = CString::new(owner.terminals.to_string())
        .map_err(|_| failure("/dev/pts", Errno::EINVAL))?;
    let params = [
        Param::Flag(c"newinstance"),
        Param::String(c"ptmxmode", c"0666"),
        Param::String(c"mode", c"0620"),
        Param::String(c"gid", gid.as_c_str()),
    ];
    let pts = new_filesystem(c"devpts", &params, NOSUID | NOEXEC)
        .map_err(|errno| failure("/dev/pts", errno))?;
    own(&pts, c".", owner.uid, owner.gid).map_err(|errno| failure("/dev/pts", errno))?;
    Ok(pts)
}

/// The container's null, for a stdin that nobody keeps open.
pub(super) fn null(dev: &OwnedFd) -> Result<OwnedFd, Failure> {
    openat(
        dev,
        c"null",
        OFlag::O_RDWR | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| Failure::new("stdin", "/dev/null", errno))
}

/// Number 0 of this instance.
pub(super) fn terminal(pts: &OwnedFd) -> Result<Terminal, Failure> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    openat(pts, c"ptmx", flags, Mode::empty())
        .and_then(Terminal::new)
        .map_err(|errno| Failure::new("terminal", "/dev/ptmx", errno))
}

impl Terminal {
    pub(super) fn new(master: OwnedFd) -> nix::Result<Self> {
        let peer = open_peer(master.as_fd())?;
        Ok(Self { master, peer })
    }
}
