//! Devices: asked before one is opened or its node is made.
//!
//! A program of the root cgroup, in the context of the caller's task, on every kernel without LSM.
//! Kernels before 5.15 let it ask for nothing of the task but its address, so that all that is to be
//! known is read from there. It may not send a signal: a process that is to be killed is refused
//! here, and the agent kills it. Counted here in audit, too: nobody sees it afterwards.

use aya_ebpf::{macros::cgroup_device, programs::DeviceContext};
use paddock_abi::{
    counters::Ring,
    policy::{
        ACTION_ALLOW, ACTION_AUDIT, ACTION_KILL, DEVICES, action, device_access, device_number,
    },
    record::{DeviceDenial, kind},
};

use super::{Bound, anybody, count};
use crate::{
    admit::asking_is_told,
    count::{tell, write_header_of},
    offsets::*,
    once::{Runs, once_of},
    read::field,
    selftest,
    task::{current, exempt, identity},
};

const PASS: i32 = 1;
const REFUSE: i32 = 0;
/// Of `BPF_DEVCG_ACC_*`:
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h>
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

/// What somebody wants to do to a device.
#[derive(Clone, Copy)]
struct Wanted {
    kind: u16,
    /// A bit for each of `device_access`.
    access: u16,
    major: u32,
    minor: u32,
}

#[cgroup_device]
fn cgroup_device(ctx: DeviceContext) -> i32 {
    let task = current();
    if selftest::on_for(field(task, &OFF_TASK_PID)) {
        let wanted = wanted(&ctx);
        let number = device_number(wanted.major, wanted.minor);
        selftest::observe(selftest::DEVICE, task, i64::from(number));
        return PASS;
    }
    if !anybody() {
        return PASS;
    }
    let who = identity(task);
    if who.slot == 0 || exempt(field(task, &OFF_TASK_TGID)) {
        return PASS;
    }
    match Bound::of(&who) {
        Some(bound) => bound.answer_device(task, &wanted(&ctx)),
        None => PASS,
    }
}

#[inline(always)]
fn wanted(ctx: &DeviceContext) -> Wanted {
    let at = ctx.device;
    // SAFETY: fields of the context, read word by word.
    let (what, major, minor) = unsafe {
        (
            (&raw const (*at).access_type).read_volatile(),
            (&raw const (*at).major).read_volatile(),
            (&raw const (*at).minor).read_volatile(),
        )
    };
    let asked = what >> 16;
    let bit = |asked_for: u32, place: usize| u16::from(asked & asked_for != 0) << place;
    Wanted {
        kind: what as u16,
        access: bit(READ, device_access::READ)
            | bit(WRITE, device_access::WRITE)
            | bit(MKNOD, device_access::MAKE),
        major,
        minor,
    }
}

impl Bound {
    #[inline(always)]
    fn answer_device(&self, task: u64, wanted: &Wanted) -> i32 {
        let cell = self.device_cell(wanted);
        let action = action(cell);
        if action == ACTION_ALLOW {
            return PASS;
        }
        // While two generations of programs are here both refuse, and one counts.
        if once_of(Runs::NewestLast, || thread(task)) {
            self.tell_device(task, cell, action, wanted);
        }
        if action == ACTION_AUDIT { PASS } else { REFUSE }
    }

    /// The strictest of what is asked at once.
    #[inline(always)]
    fn device_cell(&self, wanted: &Wanted) -> u16 {
        let number = device_number(wanted.major, wanted.minor);
        let first = self.answers.devices.as_ptr();
        let mut cells = [0; 3];
        for index in 0..DEVICES {
            // SAFETY: below the array's length; user space may write it meanwhile, while nobody
            // is bound to it.
            let answer = unsafe { first.add(index).read_volatile() };
            if answer.kind == 0 {
                break;
            }
            if answer.kind == wanted.kind && number & answer.mask == answer.number {
                cells = answer.cells;
                break;
            }
        }
        let mut strictest = 0;
        for (place, cell) in cells.into_iter().enumerate() {
            if wanted.access & (1 << place) != 0 && action(cell) > action(strictest) {
                strictest = cell;
            }
        }
        strictest
    }

    #[inline(always)]
    fn tell_device(&self, task: u64, cell: u16, action: u16, wanted: &Wanted) {
        let key = self.hit(cell, action);
        count(key);
        let number = device_number(wanted.major, wanted.minor);
        // Whoever is to be killed is told to who does that.
        if action != ACTION_KILL && !asking_is_told(self.who.slot, number) {
            return;
        }
        tell(
            Ring::Critical,
            self.who.slot,
            #[inline(always)]
            |record: *mut DeviceDenial| {
                // SAFETY: reserved memory of this record's size; each field is written.
                unsafe {
                    write_header_of(
                        &raw mut (*record).header,
                        kind::DEVICE_DENIAL,
                        self.who.slot,
                        &self.who,
                        task,
                    );
                    (&raw mut (*record).ruleset).write(key.ruleset);
                    (&raw mut (*record).rule).write(key.rule);
                    (&raw mut (*record).action).write(key.action);
                    (&raw mut (*record).major).write(wanted.major);
                    (&raw mut (*record).minor).write(wanted.minor);
                    (&raw mut (*record).kind).write(wanted.kind);
                    (&raw mut (*record).access).write(wanted.access);
                }
            },
        );
    }
}

/// As `bpf_get_current_pid_tgid` has it.
#[inline(always)]
pub(super) fn thread(task: u64) -> u64 {
    let tgid: u32 = field(task, &OFF_TASK_TGID);
    u64::from(tgid) << 32 | u64::from(field::<u32>(task, &OFF_TASK_PID))
}
