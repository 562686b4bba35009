//! Which system call the current task is in: some questions of the kernel's are asked in many.

use crate::{offsets::OFF_REGS_CALL, read::field, task};

/// x86_64's numbers: <https://github.com/torvalds/linux/blob/v6.18/arch/x86/entry/syscalls/syscall_64.tbl>
pub(super) const PERF_EVENT_OPEN: u64 = 298;
pub(super) const DELETE_MODULE: u64 = 176;
pub(super) const IOPL: u64 = 172;
pub(super) const IOPERM: u64 = 173;
pub(super) const OPEN_BY_HANDLE_AT: u64 = 304;
pub(super) const PROCESS_VM_READV: u64 = 310;
pub(super) const PROCESS_VM_WRITEV: u64 = 311;
/// One number each for all architectures.
pub(super) const PIDFD_GETFD: u64 = 438;
pub(super) const OPEN_TREE: u64 = 428;
pub(super) const FSOPEN: u64 = 430;
/// Since 6.15.
pub(super) const OPEN_TREE_ATTR: u64 = 467;
/// A 32-bit program's, of which x86_64 has no call.
pub(super) const I386_OPEN_BY_HANDLE_AT: u64 = 342;
pub(super) const I386_PROCESS_VM_READV: u64 = 347;
pub(super) const I386_PROCESS_VM_WRITEV: u64 = 348;

#[inline(always)]
pub(super) fn current() -> u64 {
    field(task::registers(), &OFF_REGS_CALL)
}
