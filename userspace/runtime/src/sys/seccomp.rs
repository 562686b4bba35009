//! seccomp(2): the filter that the program and all its children live under.
//!
//! Without `no_new_privs` the kernel wants CAP_SYS_ADMIN in the caller's user namespace
//! (EACCES). The flags are 4.17's and older but NEW_LISTENER, 5.0, and WAIT_KILLABLE_RECV, 5.19
//! (EINVAL before).
#![expect(unsafe_code, reason = "seccomp has no safe wrapper")]

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use paddock_seccomp::Filter;

use super::check;

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
