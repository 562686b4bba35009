//! The last steps of a child: close everything but three descriptors and exec; or end.
//!
//! close_range is 5.9; its CLOEXEC flag only 5.11, so the few that are needed until the exec
//! are moved to the first numbers (they close at exec) and everything above really closed.
#![expect(
    unsafe_code,
    reason = "execve, close_range and _exit have no safe wrapper"
)]

use std::{
    ffi::{CStr, CString},
    os::fd::{BorrowedFd, RawFd},
    ptr,
};

use nix::errno::Errno;

use super::check;

/// Where the status descriptor is when [`keep`] is done, of a program that gets no more than
/// its standard three.
pub(crate) const STATUS: RawFd = 3;

/// Strings for execve, with the array of pointers made beforehand.
#[derive(Debug)]
pub(crate) struct Strings {
    /// Owns what the pointers mean; moving it does not move the strings.
    _owned: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    pub(crate) fn new(owned: Vec<CString>) -> Self {
        let pointers = owned
            .iter()
            .map(|s| s.as_ptr())
            .chain([ptr::null()])
            .collect();
        Self {
            _owned: owned,
            pointers,
        }
    }
}

/// Moves what is to be kept to the numbers from `first` on, close-on-exec, and closes all above.
pub(crate) fn keep<const N: usize>(first: RawFd, mut kept: [RawFd; N]) -> nix::Result<[RawFd; N]> {
    let above = first + RawFd::try_from(N).map_err(|_| Errno::EINVAL)?;
    for fd in &mut kept {
        // Out of the way of the others' new numbers.
        if (first..above).contains(fd) {
            // SAFETY: integers only.
            *fd = Errno::result(unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, above) })?;
        }
    }
    for (fd, target) in kept.iter_mut().zip(first..) {
        // SAFETY: whatever had that number belongs to a plan that is over; this child has no
        // other use of it.
        *fd = Errno::result(unsafe { libc::dup3(*fd, target, libc::O_CLOEXEC) })?;
    }
    close_from(above).map(|()| kept)
}

/// Standard input, which a plan has placed.
pub(crate) fn stdin() -> BorrowedFd<'static> {
    // SAFETY: number 0 stays open from the plan's stdio step to exec.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// The reporting end, in a process that will not exec.
pub(crate) fn close_status() {
    close_number(STATUS);
}

fn close_number(fd: RawFd) {
    // SAFETY: an integer; its owner in the plan never runs again in this process.
    unsafe { libc::close(fd) };
}

fn close_from(first: RawFd) -> nix::Result<()> {
    // SAFETY: integers only. Owners of these descriptors never run again: this process execs
    // or ends without unwinding.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Tells the monitor something, by number: the owner is gone after [`keep`].
pub(crate) fn write_status(status: RawFd, message: [u8; 8]) {
    // SAFETY: reads eight bytes of a local array. A monitor that is gone can't be told.
    unsafe { libc::write(status, message.as_ptr().cast(), message.len()) };
}

/// Tries each candidate as execvp does; returns only on failure, with the errno that counts.
pub(crate) fn exec(candidates: &[CString], argv: &Strings, envp: &Strings) -> Errno {
    let mut found = None;
    for path in candidates {
        match execve(path, argv, envp) {
            // Not this one; but a file that may not be executed is worth telling about.
            Errno::EACCES => found = Some(Errno::EACCES),
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            errno => return errno,
        }
    }
    found.unwrap_or(Errno::ENOENT)
}

fn execve(path: &CStr, argv: &Strings, envp: &Strings) -> Errno {
    // SAFETY: three pointers to NUL-terminated strings and null-terminated arrays of such,
    // all alive and owned by the arguments.
    unsafe {
        libc::execve(
            path.as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
        )
    };
    Errno::last()
}

/// Replaces the process by the program behind a descriptor, keeping the environment.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process without unwinding, atexit handlers or flushing: a child that
    // shares its parent's buffers must run none of them.
    unsafe { libc::_exit(code) }
}
