//! Which system call the current task is in: some questions of the kernel's are asked in many.

use crate::{
    offsets::{OFF_REGS_CALL, OFF_REGS_ON_STACK},
    read::{Reader, Typed, field},
    task,
};

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
pub(super) const UNSHARE: u64 = 272;
pub(super) const SETNS: u64 = 308;
/// A 32-bit program's, of which x86_64 has no call.
pub(super) const I386_OPEN_BY_HANDLE_AT: u64 = 342;
pub(super) const I386_PROCESS_VM_READV: u64 = 347;
pub(super) const I386_PROCESS_VM_WRITEV: u64 = 348;

pub(super) const I386_UNSHARE: u64 = 310;
pub(super) const I386_SETNS: u64 = 346;
/// In the numbers of x32, whose calls come to the same bodies.
const X32: u64 = 0x4000_0000;

/// As the kernel takes it: it looks at the lower half of the register only.
#[inline(always)]
pub(super) fn current() -> u64 {
    let register: u64 = if OFF_REGS_ON_STACK.load() == 0 {
        Typed::field(task::registers(), &OFF_REGS_CALL)
    } else {
        field(task::registers(), &OFF_REGS_CALL)
    };
    register & 0xffff_ffff & !X32
}

/// Whether the number is that of setns or unshare, in whichever way.
#[inline(always)]
pub(super) fn is_of_namespaces(call: u64) -> bool {
    call == SETNS || call == UNSHARE || call == I386_SETNS || call == I386_UNSHARE
}
