//! Joining and making namespaces.
//!
//! No hook covers setns. Its entry remembers what the descriptor stands for (`ns`), and
//! `capable`, which the kernel asks in every type's install, is where it is denied. Who swaps
//! the descriptor in between is found at the exit by what it has joined, and killed.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::lsm,
    programs::LsmContext,
};
use paddock_abi::{
    activity::Activity,
    key::InFlight,
    namespace::{NS_TYPES, NsType, Target, mask_of_flags},
    policy::{action, namespace_index},
};

use super::{Asked, Bound, bound, capable::CAP_SYS_ADMIN};
use crate::{
    activity::cgroup_target,
    maps::{IN_FLIGHT, STATE},
    ns::{class_of, each_type},
    offsets::*,
    read::{field, pointer},
    target::file_of,
    task::{self, Identity},
};

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The strictest cell of a call, and for whose sake.
pub(super) struct Strictest {
    pub(super) cell: u16,
    target: Target,
}

impl Strictest {
    #[inline(always)]
    fn take(&mut self, cell: u16, target: Target) {
        if action(cell) > action(self.cell) {
            self.cell = cell;
            self.target = target;
        }
    }
}

/// Of types `mask`, each with whose it is.
#[inline(always)]
pub(super) fn strictest(
    bound: &Bound,
    activity: Activity,
    mask: u32,
    mut target: impl FnMut(usize) -> Target,
) -> Strictest {
    let mut found = Strictest {
        cell: 0,
        target: Target::None,
    };
    each_type(
        mask,
        #[inline(always)]
        |index| {
            let target = target(index);
            found.take(bound.cell(activity, target), target);
            let place = namespace_index(index, target) & (NS_TYPES * 8 - 1);
            // SAFETY: below the array's length, as in `Bound::cell`.
            let cell = unsafe { bound.answers.namespaces.as_ptr().add(place).read_volatile() };
            found.take(cell, target);
        },
    );
    found
}

impl Strictest {
    #[inline(always)]
    pub(super) fn asked(&self, activity: Activity) -> Asked {
        Asked {
            activity,
            target: self.target,
            other_tgid: 0,
        }
    }
}

/// The namespace call that the current thread is in.
#[inline(always)]
pub(super) fn call_in_flight() -> Option<&'static mut InFlight> {
    let call = IN_FLIGHT.get_ptr_mut(bpf_get_current_pid_tgid())?;
    // SAFETY: the entry is this thread's own, and it is in the middle of the call.
    Some(unsafe { &mut *call })
}

/// The kernel asks for CAP_SYS_ADMIN: in setns and unshare it is the only question before the
/// act, and may be asked once for the namespace and once for the caller's own.
#[inline(always)]
pub(super) fn before_call(bound: &Bound, call: &mut InFlight) -> i32 {
    let refused = ask(bound, call);
    if refused == 0 && bound.allows_use(CAP_SYS_ADMIN) {
        call.let_through = bound.ruleset;
    }
    refused
}

#[inline(always)]
fn ask(bound: &Bound, call: &mut InFlight) -> i32 {
    let Some(state) = STATE.get(0) else { return 0 };
    if call.fd < 0 {
        let found = strictest(bound, Activity::Unshare, call.resolved, |_| Target::New);
        return bound.refuse(found.cell, found.asked(Activity::Unshare));
    }
    let mask = call.resolved;
    let found = strictest(
        bound,
        Activity::Setns,
        mask,
        #[inline(always)]
        |index| class_of(call, state, index),
    );
    bound.refuse(found.cell, found.asked(Activity::Setns))
}

/// After a success, with whose each type is: also the setns whose descriptor was another one
/// when it was asked for.
#[inline(always)]
pub(crate) fn done_to_namespaces(
    who: &Identity,
    activity: Activity,
    mask: u32,
    target: impl Fn(usize) -> Target,
) {
    if let Some(bound) = Bound::of(who) {
        let found = strictest(&bound, activity, mask, target);
        bound.done(found.cell, found.asked(activity));
    }
}

/// Since 6.1. A user namespace wants no capability of who makes it.
#[lsm(hook = "userns_create")]
fn lsm_userns_create(_ctx: LsmContext) -> i32 {
    let Some(bound) = bound() else { return 0 };
    let found = user_namespace(&bound);
    bound.refuse(found.cell, found.asked(Activity::Userns))
}

#[inline(always)]
fn user_namespace(bound: &Bound) -> Strictest {
    strictest(bound, Activity::Userns, NsType::User.bit(), |_| Target::New)
}

/// clone and clone3 with namespaces to make, or into a cgroup.
#[lsm(hook = "task_alloc")]
fn lsm_task_alloc(ctx: LsmContext) -> i32 {
    let flags = ctx.arg::<u64>(1);
    let mask = mask_of_flags(flags);
    if mask == 0 && flags & CLONE_INTO_CGROUP == 0 {
        return 0;
    }
    let Some(bound) = bound() else { return 0 };
    if flags & CLONE_INTO_CGROUP != 0 {
        let refused = bound.refuse_act(Activity::CgroupLeave, chosen_cgroup(&bound.who));
        if refused != 0 {
            return refused;
        }
    }
    let mut activity = Activity::Clone;
    let mut found = strictest(&bound, activity, mask, |_| Target::New);
    // Kernels before 6.1 have no question of its own for it.
    if mask & NsType::User.bit() != 0 {
        let user = user_namespace(&bound);
        if action(user.cell) > action(found.cell) {
            activity = Activity::Userns;
            found = user;
        }
    }
    bound.refuse(found.cell, found.asked(activity))
}

/// Whose the cgroup is that the clone3 which the task is in names by a descriptor. What another
/// thread puts into its arguments meanwhile is found when the child is born there.
#[inline(always)]
fn chosen_cgroup(who: &Identity) -> Target {
    // The last field of `struct clone_args`, a descriptor:
    // <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/sched.h>
    const CGROUP: u64 = 80;
    let arguments: u64 = field(task::registers(), &OFF_REGS_ARG0);
    // SAFETY: the helper never faults.
    let fd = unsafe { bpf_probe_read_user((arguments.wrapping_add(CGROUP)) as *const u64) };
    let file = file_of(fd.unwrap_or(u64::MAX) as i32);
    let node = pointer(pointer(file, &OFF_FILE_INODE), &OFF_INODE_PRIVATE);
    cgroup_target(who, pointer(node, &OFF_KN_PRIV)).0
}
