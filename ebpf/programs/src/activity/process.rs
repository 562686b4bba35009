//! Reaching for other processes.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use paddock_abi::{
    activity::Activity,
    namespace::{NsType, Target},
};

use super::{Act, Text, judge, syscalls::Call, watched};
use crate::{
    maps::STATE,
    offsets::*,
    once::{Runs, once},
    owner::whose,
    read::field,
    selftest,
    target::{file_of, pid_of_file},
    task::{self, Identity, find, identity, settled, task_of_pid},
};

/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/ptrace.h>
const PTRACE_ATTACH: u64 = 16;
const PTRACE_SEIZE: u64 = 0x4206;
/// `si_code` of kill, sigqueue and tkill.
const SI_USER: i32 = 0;
const SI_QUEUE: i32 = -1;
const SI_TKILL: i32 = -6;

/// A process that was reached for.
pub(crate) struct Other {
    pub(crate) target: Target,
    pub(crate) tgid: u32,
    pub(crate) slot: u32,
}

#[inline(always)]
pub(super) fn ptrace(call: &Call) {
    let request = call.arg0();
    if request != PTRACE_ATTACH && request != PTRACE_SEIZE {
        return;
    }
    let Some((task, who)) = watched() else { return };
    let other = other(&who, find(task, call.arg1() as u32));
    reached(Activity::Ptrace, &who, &other, call.ret, request);
}

#[inline(always)]
pub(super) fn process_vm(call: &Call) {
    let task = task::current();
    if selftest::on() {
        let found: u32 = field(find(task, call.arg0() as u32), &OFF_TASK_TGID);
        selftest::observe(selftest::PROCESS, task, i64::from(found));
        return;
    }
    let Some((task, who)) = watched() else { return };
    let other = other(&who, find(task, call.arg0() as u32));
    reached(Activity::ProcessVm, &who, &other, call.ret, 0);
}

#[inline(always)]
pub(super) fn pidfd_getfd(call: &Call) {
    let Some((_, who)) = watched() else { return };
    let pid = pid_of_file(file_of(call.arg0() as i32));
    let other = other(&who, task_of_pid(pid));
    reached(Activity::PidfdGetfd, &who, &other, call.ret, call.arg1());
}

#[inline(always)]
pub(super) fn reached(activity: Activity, who: &Identity, other: &Other, ret: i64, arg: u64) {
    judge(
        who,
        &Act {
            args: [arg, 0, 0, 0],
            other_tgid: other.tgid,
            other_slot: other.slot,
            object: Text::None,
            ..Act::new(activity, other.target, ret)
        },
    );
}

/// Whose a task is, for a process of `who`.
#[inline(always)]
pub(crate) fn other(who: &Identity, task: u64) -> Other {
    if task == 0 {
        return Other {
            target: Target::Unknown,
            tgid: 0,
            slot: 0,
        };
    }
    let slot = settled(identity(task).slot);
    let target = if slot == who.slot {
        Target::Own
    } else if slot == 0 {
        Target::Host
    } else if shares_pids(who, task) {
        // Containers of one pod see and signal each other by configuration.
        Target::Own
    } else {
        Target::Peer
    };
    Other {
        target,
        tgid: field(task, &OFF_TASK_TGID),
        slot,
    }
}

/// Whether the task lives in a pid namespace that is `who`'s own or was given to it.
#[inline(always)]
fn shares_pids(who: &Identity, task: u64) -> bool {
    let inum: u32 = field(task::pid_namespace(task), &OFF_PID_NS_INUM);
    STATE.get(0).is_some_and(|state| {
        let index = NsType::Pid.index();
        inum != state.host[index] && matches!(whose(state, who.slot, index, inum), Target::Own)
    })
}

/// A signal on its way: told where a process sent it to another container's or the host's.
#[btf_tracepoint(function = "signal_generate")]
fn btf_signal_generate(ctx: BtfTracePointContext) -> i32 {
    // 0 stands for a process that kills, 1 for the kernel itself.
    let info = ctx.arg::<u64>(1);
    if info == 1 {
        return 0;
    }
    // Zero, SI_USER, where there is none.
    let code: i32 = field(info, &OFF_SIGINFO_CODE);
    if code != SI_USER && code != SI_QUEUE && code != SI_TKILL {
        return 0;
    }
    if !once(Runs::NewestLast) {
        return 0;
    }
    let Some((_, who)) = watched() else { return 0 };
    let other = other(&who, ctx.arg(2));
    if matches!(other.target, Target::Own) {
        return 0;
    }
    reached(Activity::Signal, &who, &other, 0, ctx.arg(0));
    0
}
