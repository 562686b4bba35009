//! fork, exec, exit: who is in set-up, whose namespaces are whose, and the tracked ones' lives.
//!
//! fork hands the set-up mark on, exec and exit drop it. What a marked process has when it
//! execs inside a slot becomes that slot's own.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel_str},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use paddock_abi::{
    counters::Ring,
    record::{Exec, Exit, PATH_LEN, kind},
};

use crate::{
    count::{debug_call, header, tell},
    maps::{EXEMPT, OOM_MARKED},
    offsets::*,
    once::{UNIQUE_NS, once},
    owner::{KEEP, own},
    read::{field, pointer},
    selftest,
    task::{self, exempt, identity, namespaces},
};

/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/sched/signal.h>
const SIGNAL_GROUP_EXIT: u32 = 4;

#[btf_tracepoint(function = "sched_process_fork")]
fn btf_sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    let child: u32 = field(ctx.arg(1), &OFF_TASK_TGID);
    if child == parent {
        return 0;
    }
    if selftest::on() {
        selftest::adopt_child(child);
    }
    if exempt(parent) {
        let _ = EXEMPT.insert(child, 1, 0);
    }
    0
}

#[btf_tracepoint(function = "sched_process_exec")]
fn btf_sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let task = task::current();
    if selftest::on() {
        selftest::observe(selftest::EXEC, task, 0);
    }
    if !once(
        selftest::EXEC,
        bpf_get_current_pid_tgid(),
        pointer(task, &OFF_TASK_SELF_EXEC_ID),
        UNIQUE_NS,
    ) {
        return 0;
    }
    let who = identity(task);
    if exempt(tgid) {
        let _ = EXEMPT.remove(tgid);
        if who.slot != 0 {
            own(&namespaces(task), !0, who.slot, KEEP);
        }
    }
    if who.slot == 0 {
        return 0;
    }
    debug_call(&ctx, "exec", i64::from(tgid));
    let filename = pointer(ctx.arg(2), &OFF_BINPRM_FILENAME);
    let head = header(kind::EXEC, who.slot, &who);
    tell(Ring::Events, who.slot, |record: *mut Exec| {
        // SAFETY: reserved memory of this record's size; the text is written up to its NUL.
        unsafe {
            (&raw mut (*record).header).write(head);
            let text = (&raw mut (*record).filename).cast::<u8>();
            text.write(0);
            bpf_probe_read_kernel_str(text.cast(), PATH_LEN as u32, filename as *const _);
        }
    });
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
fn btf_sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    let task = task::current();
    let signal = pointer(task, &OFF_TASK_SIGNAL);
    // The last thread leaves: the kernel says so since 6.16, before it shows in the count.
    let last = if HAS_GROUP_DEAD_ARG.load() == 0 {
        field::<i32>(signal, &OFF_SIGNAL_LIVE) == 0
    } else {
        ctx.arg::<u64>(1) & 1 != 0
    };
    if !last {
        return 0;
    }
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let again = !once(selftest::EXIT, u64::from(tgid), signal, UNIQUE_NS);
    let _ = EXEMPT.remove(tgid);
    let _ = OOM_MARKED.remove(tgid);
    let group: u32 = field(signal, &OFF_SIGNAL_FLAGS);
    let status: i32 = if group & SIGNAL_GROUP_EXIT == 0 {
        field(task, &OFF_TASK_EXIT_CODE)
    } else {
        field(signal, &OFF_SIGNAL_GROUP_EXIT_CODE)
    };
    if selftest::on() {
        selftest::observe(selftest::EXIT, task, i64::from(status));
    }
    let who = identity(task);
    if who.slot == 0 || again {
        return 0;
    }
    debug_call(&ctx, "exit", i64::from(status));
    let head = header(kind::EXIT, who.slot, &who);
    tell(Ring::Events, who.slot, |record: *mut Exit| {
        // SAFETY: reserved memory of this record's size and alignment.
        unsafe {
            record.write(Exit {
                header: head,
                status,
                pad: 0,
            });
        };
    });
    0
}
