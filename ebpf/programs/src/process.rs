//! fork, exec, exit: who is in set-up, whose namespaces are whose, and the tracked ones' lives.
//!
//! fork hands the set-up mark on, exec (but see `setup`) and exit drop it. What a marked process has when it
//! execs inside a slot becomes that slot's own.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel_str},
    macros::{btf_tracepoint, kprobe},
    programs::{BtfTracePointContext, ProbeContext},
};
use paddock_abi::{
    admission::done,
    counters::Ring,
    record::{Exec, Exit, PATH_LEN, kind},
};

use crate::{
    activity::executed,
    count::{debug_call, tell, write_header},
    maps::{EXEMPT, OOM_MARKED},
    member,
    offsets::*,
    once::first,
    owner::{KEEP, own, share},
    read::{field, pointer},
    selftest, setup,
    task::{self, exempt, namespaces, own_identity},
};

/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/sched/signal.h>
const SIGNAL_GROUP_EXIT: u32 = 4;

#[btf_tracepoint(function = "sched_process_fork")]
fn btf_sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    forked(ctx.arg(1));
    0
}

#[btf_tracepoint(function = "sched_process_exec")]
fn btf_sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    started(&ctx, ctx.arg(2));
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
fn btf_sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    let signal = pointer(task::current(), &OFF_TASK_SIGNAL);
    // The last thread leaves: the kernel says so since 6.16, before it shows in the count.
    let last = if HAS_GROUP_DEAD_ARG.load() == 0 {
        field::<i32>(signal, &OFF_SIGNAL_LIVE) == 0
    } else {
        ctx.arg::<u64>(1) & 1 != 0
    };
    if last {
        ended(&ctx);
    }
    0
}

// Beside the above where a kernel has them (see `ns`): probes of functions that run right before
// or after those tracepoints. What the one kind left out the other does, and each event is done
// once: a kernel that preempts itself passes over the tracepoints' programs, and one that changes
// a map for the agent over probes, but seldom over both.

#[kprobe]
fn kprobe_wake_up_new_task(ctx: ProbeContext) -> u32 {
    forked(ctx.arg(0).unwrap_or(0));
    0
}

#[kprobe]
fn kprobe_bprm_committed_creds(ctx: ProbeContext) -> u32 {
    started(&ctx, ctx.arg(0).unwrap_or(0));
    0
}

#[kprobe]
fn kprobe_taskstats_exit(ctx: ProbeContext) -> u32 {
    if ctx.arg::<u64>(1).is_some_and(|last| last as u32 != 0) {
        ended(&ctx);
    }
    0
}

#[inline(always)]
fn forked(child: u64) {
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    let tgid: u32 = field(child, &OFF_TASK_TGID);
    if tgid == parent || tgid == 0 {
        return;
    }
    if selftest::on() {
        selftest::adopt_child(tgid);
    }
    // SAFETY: copied at once; only the process itself changes its entry.
    if let Some(mark) = unsafe { EXEMPT.get(parent) }.copied() {
        let _ = EXEMPT.insert(tgid, mark, 0);
    } else {
        setup::forked(child, tgid);
    }
    member::forked(child, tgid);
}

#[inline(always)]
fn started(ctx: &impl EbpfContext, binprm: u64) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let task = task::current();
    if selftest::on() {
        selftest::observe(selftest::EXEC, task, 0);
    }
    let who = own_identity();
    if who.slot != 0
        && !first(
            done::EXEC,
            tgid,
            task,
            u64::from(field::<u32>(task, &OFF_TASK_SELF_EXEC_ID)),
        )
    {
        return;
    }
    if who.slot != 0 && setup::goes_on(tgid, task, binprm) {
        return;
    }
    let from_setup = exempt(tgid);
    if from_setup {
        let _ = EXEMPT.remove(tgid);
        if who.slot != 0 {
            let inums = namespaces(task);
            own(&inums, !0, who.slot, KEEP);
            if setup::is_fresh(who.slot) {
                share(&inums, who.slot);
            }
        }
    }
    if who.slot != 0 {
        setup::over(who.slot);
    }
    if who.slot == 0 {
        return;
    }
    member::stays(tgid, &who);
    debug_call(ctx, "exec", i64::from(tgid));
    executed(task, &who, binprm, from_setup);
    let filename = pointer(binprm, &OFF_BINPRM_FILENAME);
    tell(
        Ring::Events,
        who.slot,
        #[inline(always)]
        |record: *mut Exec| {
            // SAFETY: reserved memory of this record's size; the text is written up to its NUL.
            unsafe {
                write_header(&raw mut (*record).header, kind::EXEC, who.slot, &who);
                let text = (&raw mut (*record).filename).cast::<u8>();
                text.write(0);
                bpf_probe_read_kernel_str(text.cast(), PATH_LEN as u32, filename as *const _);
            }
        },
    );
}

/// The process' last thread leaves.
#[inline(always)]
fn ended(ctx: &impl EbpfContext) {
    let task = task::current();
    let signal = pointer(task, &OFF_TASK_SIGNAL);
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let _ = EXEMPT.remove(tgid);
    let _ = OOM_MARKED.remove(tgid);
    let who = own_identity();
    member::gone(tgid);
    let group: u32 = field(signal, &OFF_SIGNAL_FLAGS);
    let status: i32 = if group & SIGNAL_GROUP_EXIT == 0 {
        field(task, &OFF_TASK_EXIT_CODE)
    } else {
        field(signal, &OFF_SIGNAL_GROUP_EXIT_CODE)
    };
    if selftest::on() {
        selftest::observe(selftest::EXIT, task, i64::from(status));
    }
    if who.slot == 0 || !first(done::EXIT, tgid, task, 0) {
        return;
    }
    debug_call(ctx, "exit", i64::from(status));
    tell(
        Ring::Events,
        who.slot,
        #[inline(always)]
        |record: *mut Exit| {
            // SAFETY: reserved memory of this record's size and alignment.
            unsafe {
                write_header(&raw mut (*record).header, kind::EXIT, who.slot, &who);
                (&raw mut (*record).status).write(status);
                (&raw mut (*record).pad).write(0);
            };
        },
    );
}
