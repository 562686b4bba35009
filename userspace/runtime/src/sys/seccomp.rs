//! seccomp(2): the filter that the program and all its children live under.
//!
//! Without `no_new_privs` the kernel wants CAP_SYS_ADMIN in the caller's user namespace
//! (EACCES). The flags are 4.17's and older but NEW_LISTENER, 5.0, and WAIT_KILLABLE_RECV, 5.19
//! (EINVAL before).
#![expect(unsafe_code, reason = "seccomp has no safe wrapper")]

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use paddock_seccomp::Filter;

use super::check;

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`, 5.5.
const GO_ON: u32 = 1;

/// A filter as the kernel takes it, made before the clone.
#[derive(Debug)]
pub(crate) struct Program {
    instructions: Vec<libc::sock_filter>,
    flags: libc::c_ulong,
    /// Some calls wait for a listener's answer.
    pub notifies: bool,
}

impl From<&Filter> for Program {
    fn from(filter: &Filter) -> Self {
        let instructions = filter.instructions.iter();
        Self {
            instructions: instructions
                .map(|one| libc::sock_filter {
                    code: one.code,
                    jt: one.jt,
                    jf: one.jf,
                    k: one.k,
                })
                .collect(),
            flags: filter.flags.into(),
            notifies: filter.notifies,
        }
    }
}

impl Program {
    /// Who waits for an answer is not woken by signals, where the kernel has that (5.19): a call
    /// is asked about once.
    pub(crate) fn asking_once(mut self) -> Self {
        if waits_killable() {
            self.flags |= libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        }
        self
    }
}

/// From here on every call is filtered, this program's own too.
pub(crate) fn install(program: &Program) -> nix::Result<()> {
    set(program, program.flags).map(drop)
}

/// The same, and the descriptor by which a listener is asked. EBUSY: a filter around this
/// process has one already.
pub(crate) fn install_with_listener(program: &Program) -> nix::Result<OwnedFd> {
    // Of one thread it means nothing, and the two exclude each other.
    let flags = program.flags & !libc::SECCOMP_FILTER_FLAG_TSYNC;
    let fd = set(program, flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn waits_killable() -> bool {
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: no filter is at address 0, which the kernel looks at after the flags.
    let answer = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::null::<libc::sock_fprog>(),
        )
    });
    answer == Err(Errno::EFAULT)
}

/// A call that waits for the listener's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    id: u64,
    /// Of the thread, in the listener's pid namespace.
    pub tid: u32,
    pub arguments: [u64; 6],
}

/// The next call. ENOENT: it waits no more.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> nix::Result<Waiting> {
    // SAFETY: integers, all of which have to be zero.
    let mut told: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request is for this structure, which outlives the call.
    let received = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut told,
        )
    };
    check(received.into())?;
    Ok(Waiting {
        id: told.id,
        tid: told.pid,
        arguments: told.data.args,
    })
}

/// Whether it waits still: if so, its thread's number has been its own all the time.
pub(crate) fn waits(listener: BorrowedFd<'_>, call: &Waiting) -> bool {
    // SAFETY: the request is for this number, which outlives the call.
    let answer = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw const call.id,
        )
    };
    answer == 0
}

/// Lets it go on, or fail with the errno. ENOENT: it waits no more.
pub(crate) fn answer(
    listener: BorrowedFd<'_>,
    call: &Waiting,
    refused: Option<Errno>,
) -> nix::Result<()> {
    let mut response = libc::seccomp_notif_resp {
        id: call.id,
        val: 0,
        error: refused.map_or(0, |errno| -(errno as i32)),
        flags: match refused {
            Some(_) => 0,
            None => GO_ON,
        },
    };
    // SAFETY: the request is for this structure, which outlives the call.
    let sent = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw mut response,
        )
    };
    check(sent.into()).map(drop)
}

fn set(program: &Program, flags: libc::c_ulong) -> nix::Result<libc::c_long> {
    let all = libc::sock_fprog {
        len: u16::try_from(program.instructions.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.instructions.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` and `len` are of one vector, which outlives the call; the kernel copies
    // the instructions and writes to none.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const all,
        )
    })
}
