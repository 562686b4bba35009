//! clone and clone3 with new-namespace flags: only success is visible at task_newtask.
//!
//! The BTF tracepoint has the child at hand; the plain one only its pid, so it counts and
//! tells but cannot enter the owners of the new namespaces. kernel/fork.c runs it after the
//! child joined its cgroup (CLONE_INTO_CGROUP) and before it runs.

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use paddock_abi::{
    activity::Activity,
    counters::{NsSyscall, Outcome},
    key::InFlight,
    namespace::{NS_TYPES, Target, mask_of_flags},
};

use crate::{
    activity::{self, verdict},
    count::debug_call,
    enforce::done_to_namespaces,
    ns::{count, report, user_namespace},
    offsets::*,
    once::{Runs, once},
    owner::{REPLACE, own},
    read::field,
    selftest,
    task::{self, identity, namespaces, own_identity},
};

#[btf_tracepoint(function = "task_newtask")]
fn btf_task_newtask(ctx: BtfTracePointContext) -> i32 {
    let flags = ctx.arg::<u64>(1);
    if selftest::on() {
        selftest::observe(selftest::CLONE, task::current(), 0);
    }
    if mask_of_flags(flags) == 0 {
        return 0;
    }
    let child = ctx.arg::<u64>(0);
    let inums = namespaces(child);
    let pid: i32 = field(child, &OFF_TASK_PID);
    let parent_slot = own_identity().slot;
    let child_slot = identity(child).slot;
    // What a launcher makes for a container is the container's.
    let owner = if child_slot == 0 {
        parent_slot
    } else {
        child_slot
    };
    own(&inums, mask_of_flags(flags), owner, REPLACE);
    debug_call(&ctx, "clone", i64::from(pid));
    made(flags, pid, &inums);
    0
}

#[tracepoint]
fn tp_task_newtask(ctx: TracePointContext) -> u32 {
    if selftest::on() {
        selftest::observe(selftest::CLONE, task::current(), 0);
    }
    // The offsets are from the tracepoint's own format file.
    let flags: u64 = field(ctx.as_ptr() as u64, &OFF_TP_NEWTASK_FLAGS);
    let pid: i32 = field(ctx.as_ptr() as u64, &OFF_TP_NEWTASK_PID);
    if mask_of_flags(flags) != 0 {
        made(flags, pid, &[0; NS_TYPES]);
    }
    0
}

/// Counts and tells, as the calling process' doing.
#[inline(always)]
fn made(flags: u64, child: i32, inums: &[u32; NS_TYPES]) {
    if !once(Runs::NewestLast) {
        return;
    }
    let actor = own_identity();
    if actor.slot == 0 || task::in_setup() {
        return;
    }
    let mask = mask_of_flags(flags);
    let mut call = InFlight {
        flags,
        fd: -1,
        slot: actor.slot,
        resolved: mask,
        changed: mask,
        ..InFlight::default()
    };
    for index in 0..NS_TYPES {
        // Without branches: on the stack every combination of types would be a path of its own.
        let chosen = (mask >> index) & 1;
        call.class[index] = chosen as u8 * Target::New as u8;
        call.inums[index] = chosen * inums[index];
    }
    done_to_namespaces(&actor, Activity::Clone, mask, |_| Target::New);
    count(NsSyscall::Clone, actor.slot, mask, Outcome::Allowed);
    user_namespace(&actor, mask, i64::from(child));
    let judged = verdict(Activity::Clone, Target::New, false);
    activity::count(actor.slot, Activity::Clone, judged);
    report(
        NsSyscall::Clone,
        &call,
        i64::from(child),
        &actor,
        judged as u32,
    );
}
