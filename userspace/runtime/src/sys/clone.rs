//! clone3 and fork, both only from single-threaded processes: zygote and monitor.
//!
//! [clone(2)](https://man7.org/linux/man-pages/man2/clone.2.html): `CLONE_PIDFD` 5.2, `clone3` 5.3,
//! `CLONE_INTO_CGROUP` 5.7. A seccomp filter around the agent may answer clone3 with ENOSYS and
//! an emulated kernel `CLONE_INTO_CGROUP` with E2BIG or EINVAL; the caller decides what then.
#![expect(unsafe_code, reason = "fork and clone3 have no safe wrapper")]

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::{errno::Errno, sched::CloneFlags, unistd::Pid};

use super::check;

/// Linux 5.7; libc's constant is cut to 32 bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Linux 5.6; nix does not name it.
pub(crate) const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// Which side of a fork this is.
#[derive(Debug)]
pub(crate) enum Side<P> {
    Child,
    Parent(P),
}

/// The new process, seen by its parent.
#[derive(Debug)]
pub(crate) struct Cloned {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// A copy of this process in new namespaces `flags`, born in the cgroup when one is given.
/// Dies with SIGCHLD to this process.
pub(crate) fn clone3(
    flags: CloneFlags,
    cgroup: Option<BorrowedFd<'_>>,
) -> nix::Result<Side<Cloned>> {
    let mut pidfd: RawFd = -1;
    let into = if cgroup.is_some() {
        CLONE_INTO_CGROUP
    } else {
        0
    };
    let args = libc::clone_args {
        flags: u64::from(flags.bits().cast_unsigned())
            | u64::from(libc::CLONE_PIDFD.cast_unsigned())
            | into,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    // SAFETY: without CLONE_VM the child owns a copy of the address space, so it may return
    // through this frame; the process is single-threaded (zygote and monitor never start a
    // thread), so no lock can be held by a thread the copy lacks. `args` and `pidfd` outlive
    // the call and the size is the struct's own.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: with CLONE_PIDFD a successful clone3 has stored a new descriptor there, owned by
    // nobody else.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent(Cloned {
        pid: i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?,
        pidfd,
    }))
}

/// A copy of this process in new namespaces `flags`, as another child of this one's parent:
/// its pid here, by which the parent can find it. Dies with SIGCHLD, as this one does.
pub(crate) fn clone_sibling(flags: CloneFlags) -> nix::Result<Side<i32>> {
    let flags = flags.bits().cast_unsigned() | libc::CLONE_PARENT.cast_unsigned();
    let args = libc::clone_args {
        flags: u64::from(flags),
        // SAFETY: integers, all of which may be zero.
        ..unsafe { std::mem::zeroed() }
    };
    // SAFETY: as in `clone3`: no CLONE_VM, a single thread.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    })?;
    match i32::try_from(pid) {
        Ok(0) => Ok(Side::Child),
        Ok(pid) => Ok(Side::Parent(pid)),
        Err(_) => Err(Errno::EOVERFLOW),
    }
}

/// fork(2), for the zygote and a container's init.
pub(crate) fn fork() -> nix::Result<Side<Pid>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the room where it is allowed"
    )]
    // SAFETY: both are single-threaded, so the child may do whatever its parent may.
    let side = unsafe { nix::unistd::fork() }?;
    Ok(match side {
        nix::unistd::ForkResult::Child => Side::Child,
        nix::unistd::ForkResult::Parent { child } => Side::Parent(child),
    })
}

/// A pidfd for a process of somebody else's, 5.3.
pub(crate) fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: two integers, no memory.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A copy of a descriptor of that process', by its number there, 5.6. Needs the right to trace
/// it (EPERM).
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: integers, no memory.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A signal to exactly the process the pidfd means, 5.1.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    // SAFETY: a null siginfo asks for the same as kill(2); no memory is read.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}
