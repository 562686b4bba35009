//! Descriptors from elsewhere: inherited by number, received over a socket.
#![expect(unsafe_code, reason = "taking ownership of a descriptor by number")]

use std::{
    io,
    os::{
        fd::{FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use nix::errno::Errno;

use super::check;

/// Where a zygote finds its socket.
pub(crate) const ZYGOTE_SOCKET: RawFd = 3;

/// The zygote's end of its socket, close-on-exec from here on. Once a process, and first of
/// all: everything above it is closed. Whoever started the agent may have left descriptors
/// open in it, and a monitor would hold them, a pipe's end perhaps, for a container's life.
pub(crate) fn inherited_socket() -> nix::Result<OwnedFd> {
    let above = ZYGOTE_SOCKET + 1;
    // SAFETY: integers only; the zygote's main has opened nothing yet, so none has an owner.
    check(unsafe { libc::syscall(libc::SYS_close_range, above, u32::MAX, 0) })?;
    // SAFETY: F_SETFD takes an integer; a number that is no descriptor is EBADF.
    Errno::result(unsafe { libc::fcntl(ZYGOTE_SOCKET, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the parent placed it there for us, `serve` is the only caller and the zygote has
    // opened nothing before it.
    Ok(unsafe { OwnedFd::from_raw_fd(ZYGOTE_SOCKET) })
}

/// Takes what recvmsg or accept has delivered.
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass numbers the kernel has just made in this process, each once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Lets the command inherit `fd` as [`ZYGOTE_SOCKET`], and nothing else but its stdio.
pub(crate) fn inherit_socket(command: &mut Command, fd: RawFd) {
    let place = move || -> io::Result<()> {
        if fd == ZYGOTE_SOCKET {
            // SAFETY: clears close-on-exec of an open descriptor.
            Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
        } else {
            // SAFETY: in the forked child, which execs next; number 3 has no owner that runs.
            Errno::result(unsafe { libc::dup2(fd, ZYGOTE_SOCKET) })?;
        }
        Ok(())
    };
    // SAFETY: the closure only calls fcntl and dup2, which are async-signal-safe, and does not
    // allocate: errors are made from errno.
    unsafe { command.pre_exec(place) };
}
