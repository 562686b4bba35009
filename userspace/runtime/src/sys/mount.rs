//! The mount API by descriptor: fsopen, fsconfig, fsmount, open_tree, move_mount (5.2), mount_setattr (5.12).
//!
//! A mount made here is detached: it lives as long as its descriptor and leaves nothing behind
//! when that closes. Where mount_setattr is missing (5.10, 5.11) attributes are set by a
//! remount through /proc/self/fd, which needs the mount attached and the host's /proc in place.
#![expect(unsafe_code, reason = "the mount API has no safe wrapper")]

use std::{
    ffi::CStr,
    io::Write as _,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::statvfs::{FsFlags, statvfs},
};

use super::check;

/// One parameter of a file system, as in mount(8)'s `-o`.
#[derive(Debug)]
pub(crate) enum Param<S> {
    Flag(S),
    String(S, S),
}

/// `MOUNT_ATTR_*`, of the ones that mount(2) flags can say too.
pub(crate) const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub(crate) const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub(crate) const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
pub(crate) const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;

/// What [`change`] makes of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub set: u64,
    pub clear: u64,
    /// Both, for what is mounted below, too.
    pub recursive: bool,
    /// `MS_PRIVATE` and its kind.
    pub propagation: u64,
}

impl Attributes {
    /// In no peer group of anybody's.
    pub(crate) const fn private(set: u64) -> Self {
        Self {
            set,
            clear: 0,
            recursive: false,
            propagation: libc::MS_PRIVATE,
        }
    }
}

fn owned(fd: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: only called on what a descriptor-making syscall has just returned.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// fsopen, fsconfig for each parameter, fsmount: a detached mount of a new file system.
pub(crate) fn new_filesystem<S: AsRef<CStr>>(
    kind: &CStr,
    params: &[Param<S>],
    attributes: u64,
) -> nix::Result<OwnedFd> {
    // SAFETY: `kind` is a NUL-terminated string that outlives the call.
    let context = owned(check(unsafe {
        libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC)
    })?)?;
    // What /proc/PID/mountinfo shows in place of a device.
    fsconfig(
        &context,
        libc::FSCONFIG_SET_STRING,
        Some(c"source"),
        Some(kind),
    )?;
    for param in params {
        match param {
            Param::Flag(key) => {
                fsconfig(&context, libc::FSCONFIG_SET_FLAG, Some(key.as_ref()), None)?;
            }
            Param::String(key, value) => fsconfig(
                &context,
                libc::FSCONFIG_SET_STRING,
                Some(key.as_ref()),
                Some(value.as_ref()),
            )?,
        }
    }
    fsconfig(&context, libc::FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: three integers, no memory.
    owned(check(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            libc::FSMOUNT_CLOEXEC,
            attributes,
        )
    })?)
}

fn fsconfig(
    context: &OwnedFd,
    command: libc::c_uint,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> nix::Result<()> {
    // SAFETY: both pointers are null or NUL-terminated strings that outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            key.map_or(ptr::null(), CStr::as_ptr),
            value.map_or(ptr::null(), CStr::as_ptr),
            0,
        )
    })
    .map(drop)
}

/// A detached copy of the mount at `path`; an empty path means `at` itself.
pub(crate) fn clone_tree(at: BorrowedFd<'_>, path: &CStr, recursive: bool) -> nix::Result<OwnedFd> {
    let recursive = if recursive {
        libc::AT_RECURSIVE.cast_unsigned()
    } else {
        0
    };
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::AT_EMPTY_PATH.cast_unsigned()
        | recursive;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    owned(check(unsafe {
        libc::syscall(libc::SYS_open_tree, at.as_raw_fd(), path.as_ptr(), flags)
    })?)
}

/// Attaches a detached mount onto what `target` is opened on.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> nix::Result<()> {
    /// Same bit as AT_EMPTY_PATH has for others, on the target's side.
    const T_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: both paths are static empty strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Gives an attached mount its attributes; what is below it only joins when `recursive`, but
/// for the propagation, which is the whole tree's.
pub(crate) fn change(mount: BorrowedFd<'_>, attributes: Attributes) -> nix::Result<()> {
    let Attributes {
        set,
        clear,
        recursive,
        propagation,
    } = attributes;
    if !recursive && (set | clear) != 0 {
        setattr(mount, attributes)?;
    }
    let whole = Attributes {
        set: if recursive { set } else { 0 },
        clear: if recursive { clear } else { 0 },
        recursive: true,
        propagation,
    };
    setattr(mount, whole)
}

/// Shows a detached mount's files, and with `recursive` those of what is mounted below it, with
/// their owners taken through the maps of a user namespace.
pub(crate) fn map_owners(
    mount: BorrowedFd<'_>,
    user_namespace: BorrowedFd<'_>,
    recursive: bool,
) -> nix::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(user_namespace.as_raw_fd().cast_unsigned()),
    };
    mount_setattr(mount, &attr, recursive)
}

/// Its propagation alone, `MS_SHARED` and its kind.
pub(crate) fn propagate(
    mount: BorrowedFd<'_>,
    propagation: u64,
    recursive: bool,
) -> nix::Result<()> {
    let attributes = Attributes {
        set: 0,
        clear: 0,
        recursive,
        propagation,
    };
    setattr(mount, attributes)
}

fn setattr(mount: BorrowedFd<'_>, attributes: Attributes) -> nix::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    match mount_setattr(mount, &attr, attributes.recursive) {
        Err(Errno::ENOSYS) => remount(mount, attributes),
        other => other,
    }
}

fn mount_setattr(
    mount: BorrowedFd<'_>,
    attr: &libc::mount_attr,
    recursive: bool,
) -> nix::Result<()> {
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty static path, and a struct that outlives the call with its own size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// 5.10's way. The remount reaches only the topmost mount of a tree: what is mounted below a
/// read-only bind stays as it was, as with every launcher on such kernels.
fn remount(on: BorrowedFd<'_>, attributes: Attributes) -> nix::Result<()> {
    let mut path = [0; 32];
    // The array holds the longest descriptor number, so this can only write, and no heap.
    write!(&mut path[..], "/proc/self/fd/{}\0", on.as_raw_fd()).map_err(|_| Errno::ENAMETOOLONG)?;
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| Errno::EINVAL)?;
    let none = None::<&CStr>;
    let propagation = MsFlags::from_bits_retain(attributes.propagation);
    if !propagation.is_empty() {
        mount(none, path, none, MsFlags::MS_REC | propagation, none)?;
    }
    if attributes.set | attributes.clear == 0 {
        return Ok(());
    }
    let present = statvfs(path)?.flags();
    let mut flags = MsFlags::empty();
    for (attribute, flag, now) in [
        (RDONLY, MsFlags::MS_RDONLY, FsFlags::ST_RDONLY),
        (NOSUID, MsFlags::MS_NOSUID, FsFlags::ST_NOSUID),
        (NODEV, MsFlags::MS_NODEV, FsFlags::ST_NODEV),
        (NOEXEC, MsFlags::MS_NOEXEC, FsFlags::ST_NOEXEC),
        (NOATIME, MsFlags::MS_NOATIME, FsFlags::ST_NOATIME),
    ] {
        let keep = present.contains(now) && attributes.clear & attribute == 0;
        flags.set(flag, keep || attributes.set & attribute != 0);
    }
    mount(
        none,
        path,
        none,
        flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT,
        none,
    )
}
