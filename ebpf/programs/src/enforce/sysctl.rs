//! Parameters of the kernel: asked before one below /proc/sys is written, whoever opened it and when.
//!
//! Opening one for writing is judged when it is opened, and counted there. This is for what was
//! open before a policy came, or came in by a socket, and for io_uring, which opens and writes in
//! one call. A program of the root cgroup on every kernel without LSM, in the context of the
//! caller's task, of which it may ask as little as `device`.

use aya_ebpf::{
    bindings::bpf_sysctl, helpers::generated::bpf_sysctl_get_name, macros::cgroup_sysctl,
    programs::SysctlContext,
};
use paddock_abi::{
    activity::Activity,
    namespace::Target,
    policy::{ACTION_AUDIT, ACTION_DENY, action},
};

use super::{Asked, Bound, anybody, device::thread};
use crate::{
    activity::sysctl_by_name,
    count::Author,
    offsets::*,
    once::{Runs, once_of},
    read::field,
    selftest,
    task::{current, exempt, identity},
    word::word,
};

const PASS: i32 = 1;
const REFUSE: i32 = 0;
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h>
const BASE_NAME: u64 = 1;

#[cgroup_sysctl]
fn cgroup_sysctl(ctx: SysctlContext) -> i32 {
    // SAFETY: a field of the context, of a word.
    let written = unsafe { (&raw const (*ctx.sysctl).write).read_volatile() } != 0;
    let task = current();
    if selftest::on_for(field(task, &OFF_TASK_PID)) {
        selftest::observe(selftest::SYSCTL, task, i64::from(written));
        return PASS;
    }
    if !written || !anybody() {
        return PASS;
    }
    let who = identity(task);
    if who.slot == 0 || exempt(field(task, &OFF_TASK_TGID)) {
        return PASS;
    }
    let Some(bound) = Bound::of(&who) else {
        return PASS;
    };
    let (activity, target) = parameter(ctx.sysctl, task);
    let cell = bound.cell(activity, target);
    // What audit lets through was counted when it was opened.
    if action(cell) <= ACTION_AUDIT {
        return PASS;
    }
    if once_of(Runs::NewestLast, || thread(task)) {
        let asked = Asked {
            activity,
            target,
            other_tgid: 0,
        };
        // Refused is refused: nothing may be killed from here.
        bound.tell_by(cell, ACTION_DENY, asked, Author::Waiting(task));
    }
    REFUSE
}

#[inline(always)]
fn parameter(ctx: *mut bpf_sysctl, task: u64) -> (Activity, Target) {
    let (path, name) = (name(ctx, 0), name(ctx, BASE_NAME));
    let activity = if name == word(b"core_pattern") {
        Activity::CorePattern
    } else if name == word(b"modprobe") {
        Activity::ModprobePath
    } else if name == word(b"hotplug") {
        Activity::UeventHelper
    } else {
        return (Activity::Tunable, sysctl_by_name(task, path, name));
    };
    (activity, Target::Host)
}

/// The first 15 bytes.
#[inline(always)]
fn name(ctx: *mut bpf_sysctl, flags: u64) -> u128 {
    let mut word = 0_u128;
    // SAFETY: the context that the kernel handed over; the helper writes at most the length given.
    unsafe { bpf_sysctl_get_name(ctx, (&raw mut word).cast(), 16, flags) };
    word
}
