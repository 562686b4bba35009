//! Doors into the kernel itself.

use aya_ebpf::helpers::bpf_probe_read_user;
use paddock_abi::{activity::Activity, namespace::Target};

use super::{
    Act, judge,
    process::{Other, other},
    syscalls::Call,
    watched,
};
use crate::{
    offsets::OFF_REGS_ARG1,
    read::field,
    selftest,
    task::{self, Identity, find},
};

/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h>
mod command {
    pub(super) const MAP_CREATE: u64 = 0;
    pub(super) const PROG_LOAD: u64 = 5;
    pub(super) const PROG_GET_FD_BY_ID: u64 = 13;
    pub(super) const MAP_GET_FD_BY_ID: u64 = 14;
    pub(super) const LINK_GET_FD_BY_ID: u64 = 30;
}

/// Program types that see or change what the whole machine does, as a set: kprobe, tracepoint,
/// perf_event, raw_tracepoint and its writable kind, tracing, struct_ops, ext, lsm.
const MACHINE_WIDE: u64 =
    1 << 2 | 1 << 5 | 1 << 7 | 1 << 17 | 1 << 24 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29;

#[inline(always)]
pub(super) fn bpf(call: &Call) {
    let command = call.arg0() & 0xffff_ffff;
    if selftest::on() {
        selftest::observe(selftest::SURFACE, task::current(), command.cast_signed());
        return;
    }
    if !concerns_others(command) {
        return;
    }
    let Some((_, who)) = watched() else { return };
    // The first word: a map's or program's type, or an id of any on the machine.
    // SAFETY: the helper never faults.
    let first = unsafe { bpf_probe_read_user(call.arg1() as *const u32) }.unwrap_or(0);
    let target = bpf_target(command, first);
    judge(
        &who,
        &Act {
            args: [command, u64::from(first), 0, 0],
            ..Act::new(Activity::Bpf, target, call.ret)
        },
    );
}

/// Whether a command of bpf makes something or reaches for what others made.
#[inline(always)]
pub(crate) fn concerns_others(command: u64) -> bool {
    command == command::MAP_CREATE
        || command == command::PROG_LOAD
        || command == command::PROG_GET_FD_BY_ID
        || command == command::MAP_GET_FD_BY_ID
        || command == command::LINK_GET_FD_BY_ID
}

/// Whose it is, by the first word of its attributes.
#[inline(always)]
pub(crate) fn bpf_target(command: u64, first: u32) -> Target {
    let others = match command {
        command::MAP_CREATE => 0,
        command::PROG_LOAD => (MACHINE_WIDE >> (first & 63)) & 1,
        _ => 1,
    };
    if others == 0 {
        Target::Own
    } else {
        Target::Host
    }
}

#[inline(always)]
pub(super) fn module(call: &Call) {
    machine(Activity::Module, call);
}

#[inline(always)]
pub(super) fn kexec(call: &Call) {
    machine(Activity::Kexec, call);
}

/// ioperm and iopl.
#[inline(always)]
pub(super) fn io_port(call: &Call) {
    machine(Activity::RawMemory, call);
}

#[inline(always)]
fn machine(activity: Activity, call: &Call) {
    let Some((_, who)) = watched() else { return };
    judge(&who, &Act::new(activity, Target::Host, call.ret));
}

#[inline(always)]
pub(super) fn perf_event(call: &Call) {
    let Some((_, who)) = watched() else { return };
    let other = perf_target_of(&who, call.arg1());
    judge(
        &who,
        &Act {
            args: [call.arg2(), 0, 0, 0],
            other_tgid: other.tgid,
            other_slot: other.slot,
            ..Act::new(Activity::PerfEvent, other.target, call.ret)
        },
    );
}

/// Whom the perf_event_open that the current task is in would watch.
#[inline(always)]
pub(crate) fn perf_target(who: &Identity) -> Other {
    perf_target_of(who, field(task::registers(), &OFF_REGS_ARG1))
}

#[inline(always)]
fn perf_target_of(who: &Identity, pid: u64) -> Other {
    let target = match pid as i32 {
        0 => Target::Own,
        ..0 => Target::Host,
        pid => return other(who, find(task::current(), pid as u32)),
    };
    Other {
        target,
        tgid: 0,
        slot: 0,
    }
}

#[inline(always)]
pub(super) fn io_uring(call: &Call) {
    own(Activity::IoUring, call);
}

#[inline(always)]
pub(super) fn userfaultfd(call: &Call) {
    own(Activity::Userfaultfd, call);
}

/// keyctl, add_key, request_key.
#[inline(always)]
pub(super) fn keyctl(call: &Call) {
    own(Activity::Keyctl, call);
}

#[inline(always)]
fn own(activity: Activity, call: &Call) {
    let Some((_, who)) = watched() else { return };
    judge(
        &who,
        &Act {
            args: [call.arg0(), 0, 0, 0],
            ..Act::new(activity, Target::Own, call.ret)
        },
    );
}
