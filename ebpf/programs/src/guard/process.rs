//! The agent: whoever has its memory or its descriptors has the maps.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use paddock_abi::guard::{Tampered, mode};

use super::{current_mode, is_agent, touched};
use crate::{maps::SHOWN, task};

/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/ptrace.h>
const PTRACE_MODE_ATTACH: u32 = 2;

#[lsm(hook = "ptrace_access_check")]
fn guard_ptrace(ctx: LsmContext) -> i32 {
    if current_mode() == mode::OFF || ctx.arg::<u32>(1) & PTRACE_MODE_ATTACH == 0 {
        return 0;
    }
    of_agent(ctx.arg(0))
}

/// Of the kernel's own signals, of those of the first process, which stops services, and of
/// signal 0, which only asks, none is refused.
#[lsm(hook = "task_kill")]
fn guard_task_kill(ctx: LsmContext) -> i32 {
    if current_mode() != mode::STRICT || ctx.arg::<u64>(1) == 1 || ctx.arg::<i32>(2) == 0 {
        return 0;
    }
    if aya_ebpf::helpers::bpf_get_current_pid_tgid() >> 32 == 1 {
        return 0;
    }
    of_agent(ctx.arg(0))
}

#[inline(always)]
fn of_agent(task: u64) -> i32 {
    let Some(shown) = SHOWN.get(0) else { return 0 };
    if task != task::current() && is_agent(task, shown) {
        touched(Tampered::Process, 0)
    } else {
        0
    }
}
