//! seccomp(2): the filter that the program and all its children live under.
//!
//! Without `no_new_privs` the kernel wants CAP_SYS_ADMIN in the caller's user namespace
//! (EACCES). The flags are 4.17's and older but WAIT_KILLABLE_RECV, 5.19 (EINVAL before).
#![expect(unsafe_code, reason = "seccomp has no safe wrapper")]

use nix::errno::Errno;
use paddock_seccomp::Filter;

use super::check;

/// A filter as the kernel takes it, made before the clone.
#[derive(Debug)]
pub(crate) struct Program {
    instructions: Vec<libc::sock_filter>,
    flags: libc::c_ulong,
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
        }
    }
}

/// From here on every call is filtered, this program's own too.
pub(crate) fn install(program: &Program) -> nix::Result<()> {
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
            program.flags,
            &raw const all,
        )
    })
    .map(drop)
}
