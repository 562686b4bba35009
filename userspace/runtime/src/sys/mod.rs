//! The room for `unsafe`: syscalls that nix has no safe wrapper for, and fork.
//!
//! Kernels from 5.10. Every function is one syscall (or one idiom of two), allocates nothing,
//! takes no lock and reports the bare errno, so that a child may call it between clone and
//! exec; who calls adds what it was for.

pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod descriptor;
pub(crate) mod exec;
pub(crate) mod heap;
pub(crate) mod mount;
pub(crate) mod seccomp;
pub(crate) mod task;

use nix::errno::Errno;

/// A raw syscall's answer: negative is an errno in `errno`.
fn check(result: libc::c_long) -> nix::Result<libc::c_long> {
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(result)
    }
}
