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

/// Adds attributes to an attached mount and takes it, with what is below, out of any peer group.
pub(crate) fn restrict(mount: BorrowedFd<'_>, attributes: u64, recursive: bool) -> nix::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let recursive_flag = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty static path, and a struct that outlives the call with its own size.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive_flag,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    });
    match result {
        Err(Errno::ENOSYS) => remount(mount, attributes),
        other => other.map(drop),
    }
}

/// 5.10's way. The remount reaches only the topmost mount of a tree: what is mounted below a
/// read-only bind stays as it was, as with every launcher on such kernels.
fn remount(on: BorrowedFd<'_>, attributes: u64) -> nix::Result<()> {
    let mut path = [0; 32];
    // The array holds the longest descriptor number, so this can only write, and no heap.
    write!(&mut path[..], "/proc/self/fd/{}\0", on.as_raw_fd()).map_err(|_| Errno::ENAMETOOLONG)?;
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| Errno::EINVAL)?;
    let none = None::<&CStr>;
    mount(
        none,
        path,
        none,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        none,
    )?;
    let mut flags = MsFlags::empty();
    flags.set(MsFlags::MS_RDONLY, attributes & RDONLY != 0);
    flags.set(MsFlags::MS_NOSUID, attributes & NOSUID != 0);
    flags.set(MsFlags::MS_NODEV, attributes & NODEV != 0);
    flags.set(MsFlags::MS_NOEXEC, attributes & NOEXEC != 0);
    if flags.is_empty() {
        return Ok(());
    }
    mount(
        none,
        path,
        none,
        flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT,
        none,
    )
}
