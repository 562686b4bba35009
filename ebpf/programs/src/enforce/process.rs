//! Reaching for other processes, and starting programs.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use paddock_abi::{activity::Activity, namespace::Target};

use super::{Asked, anybody, bound, call};
use crate::{
    activity::{about_to_start, other, runtimes},
    task,
};

/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/ptrace.h>
const PTRACE_MODE_ATTACH: u32 = 2;

/// ptrace, process_vm_*, pidfd_getfd. What procfs shows of a process asks only whether it may be
/// read, and what it opens of a process' memory `file` knows.
#[lsm(hook = "ptrace_access_check")]
fn lsm_ptrace_access_check(ctx: LsmContext) -> i32 {
    if !anybody() || ctx.arg::<u32>(1) & PTRACE_MODE_ATTACH == 0 {
        return 0;
    }
    let activity = match call::current() {
        call::PROCESS_VM_READV
        | call::PROCESS_VM_WRITEV
        | call::I386_PROCESS_VM_READV
        | call::I386_PROCESS_VM_WRITEV => Activity::ProcessVm,
        call::PIDFD_GETFD => Activity::PidfdGetfd,
        _ => Activity::Ptrace,
    };
    reached(&ctx, activity)
}

#[lsm(hook = "task_kill")]
fn lsm_task_kill(ctx: LsmContext) -> i32 {
    // 0 stands for a process that kills, 1 for the kernel itself.
    // Signal 0 only asks whether somebody is there.
    if ctx.arg::<u64>(1) == 1 || ctx.arg::<i32>(2) == 0 {
        return 0;
    }
    reached(&ctx, Activity::Signal)
}

/// A program before it is started: the process goes on as the one it was.
#[lsm(hook = "bprm_check_security")]
fn lsm_bprm_check_security(ctx: LsmContext) -> i32 {
    let Some(bound) = bound() else { return 0 };
    match about_to_start(&bound.who, task::current(), ctx.arg(0)) {
        Some((activity, target)) => bound.refuse_act(activity, target),
        None => 0,
    }
}

#[lsm(hook = "unix_stream_connect")]
fn lsm_unix_stream_connect(ctx: LsmContext) -> i32 {
    let Some(bound) = bound() else { return 0 };
    match runtimes(ctx.arg(1), bound.who.slot) {
        Some(_) => bound.refuse_act(Activity::RuntimeSocket, Target::Host),
        None => 0,
    }
}

#[inline(always)]
fn reached(ctx: &LsmContext, activity: Activity) -> i32 {
    let Some(bound) = bound() else { return 0 };
    let other = other(&bound.who, ctx.arg(0));
    if matches!(other.target, Target::Own) {
        return 0;
    }
    let asked = Asked {
        activity,
        target: other.target,
        other_tgid: other.tgid,
    };
    bound.refuse(bound.cell(activity, other.target), asked)
}
