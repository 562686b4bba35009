//! Who owns a namespace, and whose a target is.

use paddock_abi::{
    key::{SlotConfig, State},
    namespace::{NS_TYPES, Target},
};

use crate::{
    count::{NESTED, parent},
    maps::{NS_OWNER, SLOT_CONFIG, STATE},
};

/// `BPF_NOEXIST`: keep the owner that is there.
pub(crate) const KEEP: u64 = 1;
/// `BPF_ANY`: the number is a new namespace's, whoever had it before.
pub(crate) const REPLACE: u64 = 0;

/// Enters `slot` as owner of the namespaces in `mask`; slot 0 forgets former owners.
#[inline(always)]
pub(crate) fn own(inums: &[u32; NS_TYPES], mask: u32, slot: u32, how: u64) {
    let Some(state) = STATE.get(0) else { return };
    for index in 0..NS_TYPES {
        let inum = inums[index];
        if mask & (1 << index) == 0 || inum == 0 || inum == state.host[index] {
            continue;
        }
        // A full map cannot be helped here: the namespace then counts as a peer's.
        let _ = if slot == 0 {
            NS_OWNER.remove(inum)
        } else {
            NS_OWNER.insert(inum, slot, how)
        };
    }
}

/// The namespace of this number is nobody's.
#[inline(always)]
pub(crate) fn forget(inum: u32) {
    // A look costs less than a removal, and there is seldom anything.
    // SAFETY: only whether there is one.
    if unsafe { NS_OWNER.get(inum) }.is_some() {
        let _ = NS_OWNER.remove(inum);
    }
}

/// Another's namespaces that `slot`'s first program finds itself in are shared by configuration:
/// its set-up brought it there, as into a pod's.
#[inline(always)]
pub(crate) fn share(inums: &[u32; NS_TYPES], slot: u32) {
    let Some(config) = SLOT_CONFIG.get_ptr_mut(slot) else {
        return;
    };
    for index in 0..NS_TYPES {
        // SAFETY: copied at once; a concurrent writer replaces it as a whole.
        let owner = unsafe { NS_OWNER.get(inums[index]) };
        if owner.is_some_and(|owner| *owner != slot) {
            // SAFETY: a live array element, one aligned word.
            unsafe { (&raw mut (*config).joined[index]).write(inums[index]) };
        }
    }
}

/// Whose the namespace of type `index` is, for a process of `slot`.
#[inline(always)]
pub(crate) fn whose(state: &State, slot: u32, index: usize, inum: u32) -> Target {
    if inum == 0 {
        return Target::Unknown;
    }
    if inum == state.host[index] {
        return if shared_with_host(slot) & (1 << index) == 0 {
            Target::Host
        } else {
            Target::Own
        };
    }
    if SLOT_CONFIG
        .get(slot)
        .is_some_and(|config| config.joined[index] == inum)
    {
        return Target::Own;
    }
    // SAFETY: copied at once; a concurrent writer replaces it as a whole.
    match unsafe { NS_OWNER.get(inum) } {
        Some(owner) if within(*owner, slot) => Target::Own,
        _ => Target::Peer,
    }
}

#[inline(always)]
fn shared_with_host(slot: u32) -> u32 {
    SLOT_CONFIG
        .get(slot)
        .map_or(0, |config: &SlotConfig| config.shared_with_host)
}

/// Whether `slot` is `owner` or around it: what a container nests is its own.
#[inline(always)]
fn within(owner: u32, slot: u32) -> bool {
    if owner == slot {
        return true;
    }
    let (mut owner, mut found) = (owner, false);
    for _ in 0..NESTED {
        owner = parent(owner);
        found |= owner == slot;
    }
    found
}
