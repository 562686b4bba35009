//! Slots for new cgroups, before anybody can join them.
//!
//! What a cgroup is, only user space can say, by its path. Until it has, a new one has a slot of
//! its own out of those that user space laid out: nothing that happens in it is lost when it
//! turns out to be a container, however short it lives. Its twins of the same path in other
//! hierarchies share the slot. What is counted in it counts in the slot of the cgroup around it,
//! too, so nothing has to be added up when it turns out to be a part of a container.
//! mkdir and rmdir hold the kernel's one cgroup mutex here: nobody else changes an entry.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use paddock_abi::{
    key::{PathKey, PathSlot, SlotPlace, slot_state},
    record::{PATH_LEN, cgroup_op},
};

use crate::{
    count::add,
    maps::{FRESH, PATH, PATH_SLOT, SLOT_PLACE, SLOTS_MISSED, SLOTS_OUTSIDE, SLOTS_WITHIN},
    setup::outside,
    task,
};

/// The slot of a new cgroup, and what to tell of it. `parent` is the slot of the one above.
#[inline(always)]
pub(crate) fn born(path: u64, parent: u32) -> (u32, u32) {
    let Some(key) = path_key(path) else {
        return (parent, cgroup_op::MKDIR);
    };
    if let Some(twin) = PATH_SLOT.get_ptr_mut(key) {
        // SAFETY: a live entry; the cgroup mutex keeps other writers out.
        let twin = unsafe { &mut *twin };
        twin.hierarchies += 1;
        return (twin.slot, cgroup_op::MKDIR);
    }
    let within = task::settled(parent) != 0;
    let waiting = if within {
        SLOTS_WITHIN.pop()
    } else {
        SLOTS_OUTSIDE.pop()
    };
    let Ok(Some(slot)) = waiting else {
        if let Some(missed) = SLOTS_MISSED.get_ptr_mut(u32::from(within)) {
            // SAFETY: a live array element that is only added to atomically.
            unsafe { add(missed, 1) };
        }
        return (parent, cgroup_op::MKDIR);
    };
    let place = SlotPlace {
        state: slot_state::PROVISIONAL,
        parent,
    };
    let _ = SLOT_PLACE.set(slot, place, 0);
    // A cgroup that a container's process makes is never one that others set up.
    let fresh = !within && outside();
    let _ = FRESH.set(slot, u32::from(fresh), 0);
    let entry = PathSlot {
        slot,
        hierarchies: 1,
    };
    // Full: its twins get slots of their own, of which user space keeps one.
    let _ = PATH_SLOT.insert(key, entry, 0);
    (slot, cgroup_op::BIRTH)
}

/// The last twin takes the entry with it.
#[inline(always)]
pub(crate) fn died(path: u64) {
    let Some(key) = path_key(path) else { return };
    let Some(entry) = PATH_SLOT.get_ptr_mut(key) else {
        return;
    };
    // SAFETY: as in `born`.
    let entry = unsafe { &mut *entry };
    if entry.hierarchies > 1 {
        entry.hierarchies -= 1;
    } else {
        let _ = PATH_SLOT.remove(key);
    }
}

/// `None` where it is too long: the start of a path is another's path.
#[inline(always)]
fn path_key(path: u64) -> Option<&'static PathKey> {
    let key = PATH.get_ptr_mut(0)?;
    // SAFETY: this processor's own element, and a tracing program is not interrupted by itself.
    let key = unsafe { &mut *key };
    key.path = [0; PATH_LEN];
    // SAFETY: the helper writes at most PATH_LEN bytes and never faults.
    let length = unsafe {
        bpf_probe_read_kernel_str(
            key.path.as_mut_ptr().cast(),
            PATH_LEN as u32,
            path as *const _,
        )
    };
    (length > 0 && (length as usize) < PATH_LEN).then_some(&*key)
}
