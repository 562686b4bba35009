//! Whose a process stays when a container moves it out of the container's cgroups.
//!
//! The kernel does not tell any more where a moved process came from, so `MEMBER` remembers by
//! process the cgroup it was last seen in, whatever slot that has by now. Moved by the host, a
//! process is what its new cgroup is; moved by the container, it stays the container's (`LEFT`),
//! with what it forks, until the host moves it, it comes back, or the container's slot is given up.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use paddock_abi::{
    activity::Activity, admission::done, key::CgroupKey, namespace::Target, record::hierarchy,
};

use crate::{
    activity::{Act, Text, judge},
    count::{NESTED, parent},
    maps::{ANY_LEFT, LEFT, MEMBER},
    offsets::*,
    once::first,
    read::{field, pointer},
    setup::is_outside,
    task::{self, Identity, exempt, identity, own_identity, settled, slot_of},
};

/// The slot of a process that left its cgroups; 0 is none.
#[inline(always)]
pub(crate) fn left(tgid: u32) -> u32 {
    // SAFETY: the value is copied at once; a concurrent writer replaces it as a whole.
    unsafe { LEFT.get(tgid) }.copied().unwrap_or(0)
}

/// Whether there has ever been one.
#[inline(always)]
pub(crate) fn any_left() -> bool {
    // SAFETY: a live array element, one aligned word.
    ANY_LEFT
        .get_ptr(0)
        .is_some_and(|any| unsafe { any.read_volatile() } != 0)
}

#[inline(always)]
fn leaves(tgid: u32, slot: u32) {
    if let Some(any) = ANY_LEFT.get_ptr_mut(0) {
        // SAFETY: as above. It is never taken back: a look that finds nothing does no harm.
        unsafe { any.write_volatile(1) };
    }
    // Full (8,192 processes): it is nobody's from now on.
    let _ = LEFT.insert(tgid, slot, 0);
}

#[inline(always)]
fn is_back(tgid: u32) {
    if any_left() {
        let _ = LEFT.remove(tgid);
    }
}

/// Its cgroups are those of `who` at the moment.
#[inline(always)]
pub(crate) fn stays(tgid: u32, who: &Identity) {
    // Full (65,536 processes): another hierarchy may still say where it was.
    let _ = MEMBER.insert(tgid, CgroupKey::new(who.hierarchy, who.id), 0);
}

#[inline(always)]
pub(crate) fn gone(tgid: u32) {
    let _ = MEMBER.remove(tgid);
    is_back(tgid);
}

/// A child process: its cgroup's, else, where its parent has left or let it be born elsewhere,
/// its parent's.
#[inline(always)]
pub(crate) fn forked(child: u64, tgid: u32) {
    let task = task::current();
    let came = left((bpf_get_current_pid_tgid() >> 32) as u32);
    // What a container's process forks may be judged.
    if own_identity().slot != 0 && !first(done::FORK, tgid, child, 0) {
        return;
    }
    // What its number stood for before is over.
    is_back(tgid);
    let born = identity(child);
    if came != 0 {
        leaves(tgid, came);
    } else if pointer(task, &OFF_TASK_CGROUPS) != pointer(child, &OFF_TASK_CGROUPS) {
        // CLONE_INTO_CGROUP
        let mover = (bpf_get_current_pid_tgid() >> 32) as u32;
        let who = own_identity();
        if !is_outside(who.slot, task)
            && !exempt(mover)
            && !matches!(moves(&who, tgid, born.slot, 0), Target::Own)
        {
            return;
        }
    }
    if born.slot == 0 {
        let _ = MEMBER.remove(tgid);
    } else {
        stays(tgid, &born);
    }
}

/// A process was moved into a cgroup of `slot`. Whether that was out of its container's.
#[inline(always)]
pub(crate) fn moved(to: &Identity, path: u64, task: u64) -> bool {
    if to.hierarchy == hierarchy::OTHER {
        return false;
    }
    let tgid: u32 = field(task, &OFF_TASK_TGID);
    let mover = (bpf_get_current_pid_tgid() >> 32) as u32;
    let mut who = own_identity();
    let mut from = left(tgid);
    if from == 0 {
        from = last_seen(tgid);
    }
    if tgid == mover {
        // It was there before paddock: another hierarchy still says where, if there is one.
        from = if from == 0 { who.slot } else { from };
        who.slot = from;
    }
    // A container may move what is in containers within it. conmon, in a cgroup that nobody has
    // named, sets one up.
    let by_container = from != 0
        && is_around(who.slot, from)
        && !exempt(mover)
        && !is_outside(who.slot, task::current());
    if by_container {
        let target = moves(&who, tgid, to.slot, path);
        if !matches!(target, Target::Own) {
            return true;
        }
    }
    is_back(tgid);
    if to.slot == 0 {
        let _ = MEMBER.remove(tgid);
    } else {
        stays(tgid, to);
    }
    false
}

/// A container's process moves one, or lets it be born, to a cgroup of slot `to`.
#[inline(always)]
fn moves(who: &Identity, tgid: u32, to: u32, path: u64) -> Target {
    let from = container(who.slot);
    let target = target(from, to);
    if !matches!(target, Target::Own) {
        leaves(tgid, from);
    }
    let mut act = Act::new(Activity::CgroupLeave, target, 0);
    act.other_tgid = tgid;
    act.place = Text::Kernel(path);
    judge(&Identity { slot: from, ..*who }, &act);
    target
}

/// The slot of the cgroup that it was last seen in.
#[inline(always)]
fn last_seen(tgid: u32) -> u32 {
    // SAFETY: copied at once, as above.
    match unsafe { MEMBER.get(tgid) }.copied() {
        Some(key) => slot_of(key.hierarchy(), key.id()),
        None => 0,
    }
}

/// The container that a slot is of as far as anybody knows; a new cgroup of nobody's may become one.
#[inline(always)]
fn container(slot: u32) -> u32 {
    match settled(slot) {
        0 => slot,
        whole => whole,
    }
}

/// Whose a cgroup of slot `to` is, seen from a container.
#[inline(always)]
fn target(from: u32, to: u32) -> Target {
    if is_around(from, to) {
        Target::Own
    } else if settled(to) != 0 {
        Target::Peer
    } else {
        Target::Host
    }
}

/// Whether the one slot is the other or around it.
#[inline(always)]
pub(crate) fn is_around(outer: u32, slot: u32) -> bool {
    let mut around = slot;
    let mut found = outer == slot;
    for _ in 0..NESTED {
        around = parent(around);
        found |= around == outer;
    }
    found && outer != 0
}
