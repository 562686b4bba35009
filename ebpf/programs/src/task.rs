//! Who a task is: cgroup identity, slot, namespaces.
//!
//! Identity is the v2 cgroup where that one is tracked, else the v1 memory one, else v1 pids:
//! some runtimes join v1 hierarchies only and leave the process in another's v2 cgroup.

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{
            bpf_get_current_cgroup_id, bpf_get_current_task, bpf_get_current_task_btf,
            bpf_task_pt_regs,
        },
    },
};
use paddock_abi::{
    key::{CgroupKey, InFlight, slot_state},
    namespace::NS_TYPES,
    record::{UNMAPPED, hierarchy},
};

use crate::{
    count::NESTED,
    maps::{CGROUP_SLOT, EXEMPT, SLOT_PLACE},
    member::{any_left, left},
    offsets::*,
    read::{Anywhere, Reader, Typed, at, field, pointer},
};

/// Kernfs id of the root of any hierarchy.
/// <https://github.com/torvalds/linux/blob/v6.18/fs/kernfs/dir.c>, `__kernfs_new_node`
const ROOT: u64 = 1;

#[inline(always)]
pub(crate) fn current() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() }
}

/// The current task as the verifier knows it, where `HAS_TYPED_TASK` says so.
#[inline(always)]
pub(crate) fn current_typed() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task_btf() as u64 }
}

#[derive(Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) id: u64,
    pub(crate) hierarchy: u32,
    /// 0: nobody's.
    pub(crate) slot: u32,
}

/// Slot of a cgroup; 0 is nobody's.
#[inline(always)]
pub(crate) fn slot_of(hierarchy: u32, id: u64) -> u32 {
    let key = CgroupKey::new(hierarchy, id);
    // SAFETY: the value is copied at once; a concurrent writer replaces it as a whole.
    unsafe { CGROUP_SLOT.get(key) }.copied().unwrap_or(0)
}

#[inline(always)]
pub(crate) fn kernfs_id(cgroup: u64) -> u64 {
    kernfs_id_by::<Anywhere>(cgroup)
}

#[inline(always)]
fn kernfs_id_by<R: Reader>(cgroup: u64) -> u64 {
    R::field(R::pointer(cgroup, &OFF_CGROUP_KN), &OFF_KN_ID)
}

/// Which hierarchy a cgroup is in, as far as identity goes.
#[inline(always)]
pub(crate) fn hierarchy_of(cgroup: u64) -> u32 {
    let root = pointer(cgroup, &OFF_CGROUP_ROOT);
    if root == 0 {
        return hierarchy::OTHER;
    }
    if field::<i32>(root, &OFF_ROOT_HIERARCHY_ID) == 0 {
        return hierarchy::UNIFIED;
    }
    let mask: u32 = field(root, &OFF_ROOT_SUBSYS_MASK);
    if mask & MEMORY_SUBSYS_BIT.load() != 0 {
        hierarchy::MEMORY_V1
    } else if mask & PIDS_SUBSYS_BIT.load() != 0 {
        hierarchy::PIDS_V1
    } else {
        hierarchy::OTHER
    }
}

/// Kernfs id in the v1 hierarchy of memory; 0 in its root, or where there is none.
#[inline(always)]
pub(crate) fn memory_id(set: u64) -> u64 {
    v1_id::<Anywhere>(&HAS_V1_MEMORY, set, &OFF_CSS_SET_MEMORY)
}

/// Likewise of pids.
#[inline(always)]
pub(crate) fn pids_id(set: u64) -> u64 {
    v1_id::<Anywhere>(&HAS_V1_PIDS, set, &OFF_CSS_SET_PIDS)
}

#[inline(always)]
fn v1_id<R: Reader>(has: &Global<u32>, set: u64, css: &Global<u32>) -> u64 {
    if has.load() == 0 {
        return 0;
    }
    match kernfs_id_by::<R>(R::pointer(R::pointer(set, css), &OFF_CSS_CGROUP)) {
        ROOT => 0,
        id => id,
    }
}

/// Of any live task.
#[inline(always)]
pub(crate) fn identity(task: u64) -> Identity {
    let set = pointer(task, &OFF_TASK_CGROUPS);
    let unified = kernfs_id(pointer(set, &OFF_CSS_SET_DFL_CGRP));
    by_cgroup::<Anywhere>(task, unified).unless_left(|| field(task, &OFF_TASK_TGID))
}

/// Of the current task. Most calls of the machine are of nobody's tasks, and this is all they
/// cost; on a pure v2 host no memory of the kernel's is read for it.
#[inline(always)]
pub(crate) fn own_identity() -> Identity {
    // SAFETY: the helper has no preconditions.
    let unified = unsafe { bpf_get_current_cgroup_id() };
    let found = if HAS_TYPED_TASK.load() == 0 {
        by_cgroup::<Anywhere>(current(), unified)
    } else {
        by_cgroup::<Typed>(current_typed(), unified)
    };
    found.unless_left(own_tgid)
}

/// The same for programs that may not ask for the current task by its type.
#[inline(always)]
pub(crate) fn own_identity_anywhere() -> Identity {
    // SAFETY: the helper has no preconditions.
    let unified = unsafe { bpf_get_current_cgroup_id() };
    by_cgroup::<Anywhere>(current(), unified).unless_left(own_tgid)
}

impl Identity {
    /// Of who is in a namespace call, found at its entry.
    #[inline(always)]
    pub(crate) fn of_call(call: &InFlight) -> Self {
        Self {
            id: call.id,
            hierarchy: call.hierarchy,
            slot: call.slot,
        }
    }

    /// The container's, if that itself moved the process out of its cgroups.
    #[inline(always)]
    fn unless_left(mut self, tgid: impl FnOnce() -> u32) -> Self {
        if any_left() {
            let left = left(tgid());
            if left != 0 {
                self.slot = left;
            }
        }
        self
    }
}

#[inline(always)]
fn own_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// As its cgroups say; `unified` is the one in v2.
#[inline(always)]
fn by_cgroup<R: Reader>(task: u64, unified: u64) -> Identity {
    let slot = slot_of(hierarchy::UNIFIED, unified);
    let mut found = Identity {
        id: unified,
        hierarchy: hierarchy::UNIFIED,
        slot,
    };
    if slot != 0 || (HAS_V1_MEMORY.load() == 0 && HAS_V1_PIDS.load() == 0) {
        return found;
    }
    let at_root = unified == ROOT;
    let set = R::pointer(task, &OFF_TASK_CGROUPS);
    let memory = v1_id::<R>(&HAS_V1_MEMORY, set, &OFF_CSS_SET_MEMORY);
    if memory != 0 {
        let slot = slot_of(hierarchy::MEMORY_V1, memory);
        if slot != 0 || at_root {
            found = Identity {
                id: memory,
                hierarchy: hierarchy::MEMORY_V1,
                slot,
            };
        }
        if slot != 0 {
            return found;
        }
    }
    let pids = v1_id::<R>(&HAS_V1_PIDS, set, &OFF_CSS_SET_PIDS);
    if pids != 0 {
        let slot = slot_of(hierarchy::PIDS_V1, pids);
        if slot != 0 || (at_root && memory == 0) {
            found = Identity {
                id: pids,
                hierarchy: hierarchy::PIDS_V1,
                slot,
            };
        }
    }
    found
}

/// What the current task came into the kernel with.
#[inline(always)]
pub(crate) fn registers() -> u64 {
    if OFF_REGS_ON_STACK.load() == 0 {
        // SAFETY: no preconditions; the current task has registers to go back to.
        unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
    } else {
        // At the top of its stack.
        pointer(current(), &OFF_TASK_STACK).wrapping_add(u64::from(OFF_REGS_ON_STACK.load()))
    }
}

/// Whether the process is in set-up.
#[inline(always)]
pub(crate) fn exempt(tgid: u32) -> bool {
    EXEMPT.get_ptr(tgid).is_some()
}

/// Whether the current one is.
#[inline(always)]
pub(crate) fn in_setup() -> bool {
    exempt(own_tgid())
}

/// Inode numbers of a task's namespaces; those for children where a task has two.
#[inline(always)]
pub(crate) fn namespaces(task: u64) -> [u32; NS_TYPES] {
    namespaces_by::<Anywhere>(task)
}

/// The current task's.
#[inline(always)]
pub(crate) fn own_namespaces() -> [u32; NS_TYPES] {
    if HAS_TYPED_TASK.load() == 0 {
        namespaces(current())
    } else {
        namespaces_by::<Typed>(current_typed())
    }
}

/// The current task's own credentials, not those that it acts with for the moment.
#[inline(always)]
pub(crate) fn own_credentials() -> u64 {
    if HAS_TYPED_TASK.load() == 0 {
        pointer(current(), &OFF_TASK_REAL_CRED)
    } else {
        Typed::pointer(current_typed(), &OFF_TASK_REAL_CRED)
    }
}

/// The kernel's structure of the one that the current task is in.
#[inline(always)]
pub(crate) fn own_mount_namespace() -> u64 {
    if HAS_TYPED_TASK.load() == 0 {
        pointer(pointer(current(), &OFF_TASK_NSPROXY), &OFF_NSPROXY_MNT)
    } else {
        let proxy = Typed::pointer(current_typed(), &OFF_TASK_NSPROXY);
        Typed::pointer(proxy, &OFF_NSPROXY_MNT)
    }
}

#[inline(always)]
fn namespaces_by<R: Reader>(task: u64) -> [u32; NS_TYPES] {
    let proxy = R::pointer(task, &OFF_TASK_NSPROXY);
    let cred = R::pointer(task, &OFF_TASK_REAL_CRED);
    [
        R::field(R::pointer(proxy, &OFF_NSPROXY_CGROUP), &OFF_CGROUP_NS_INUM),
        R::field(R::pointer(proxy, &OFF_NSPROXY_IPC), &OFF_IPC_NS_INUM),
        R::field(R::pointer(proxy, &OFF_NSPROXY_MNT), &OFF_MNT_NS_INUM),
        R::field(R::pointer(proxy, &OFF_NSPROXY_NET), &OFF_NET_NS_INUM),
        R::field(R::pointer(proxy, &OFF_NSPROXY_PID), &OFF_PID_NS_INUM),
        R::field(R::pointer(proxy, &OFF_NSPROXY_TIME), &OFF_TIME_NS_INUM),
        R::field(R::pointer(cred, &OFF_CRED_USER_NS), &OFF_USER_NS_INUM),
        R::field(R::pointer(proxy, &OFF_NSPROXY_UTS), &OFF_UTS_NS_INUM),
    ]
}

/// Whose a slot is as far as anybody knows: a cgroup that nobody has named yet is of what is
/// around it, which may be as new. One deeper than is looked at is taken for a container's.
#[inline(always)]
pub(crate) fn settled(slot: u32) -> u32 {
    let mut whole = slot;
    for _ in 0..=NESTED {
        match SLOT_PLACE.get(whole) {
            Some(place) if place.state == slot_state::PROVISIONAL => whole = place.parent,
            _ => break,
        }
    }
    whole
}

/// The first task of a `struct pid`; 0 where it is gone.
#[inline(always)]
pub(crate) fn task_of_pid(pid: u64) -> u64 {
    let link = if pid == 0 {
        0
    } else {
        pointer(pid, &OFF_PID_TASKS)
    };
    if link == 0 {
        0
    } else {
        link.wrapping_sub(u64::from(OFF_TASK_PID_LINKS.load()))
    }
}

/// The pid namespace that a task itself is in, and its number there: the last of
/// `pid.numbers`, of `{ int nr; struct pid_namespace *ns; }` each.
#[inline(always)]
fn innermost(task: u64) -> u64 {
    let pid = pointer(task, &OFF_TASK_THREAD_PID);
    let level: u32 = field(pid, &OFF_PID_LEVEL);
    pid.wrapping_add(u64::from(OFF_PID_NUMBERS.load()))
        .wrapping_add(u64::from(level & 0x3f) * 16)
}

#[inline(always)]
pub(crate) fn pid_namespace(task: u64) -> u64 {
    at(innermost(task).wrapping_add(8))
}

/// What a record says of who acts.
pub(crate) struct About {
    /// Where the name of the program's file is; 0 where the task has given its memory back.
    pub(crate) exe: u64,
    pub(crate) parent_tgid: u32,
    /// In the task's own pid and user namespace.
    pub(crate) inner_tgid: u32,
    pub(crate) inner_uid: u32,
}

/// Of the current task, whose user is `uid` on the host.
#[inline(always)]
pub(crate) fn about(uid: u32) -> About {
    about_by::<Anywhere>(current(), uid)
}

/// Likewise for programs that may not ask for its type.
#[inline(always)]
pub(crate) fn about_anywhere(uid: u32) -> About {
    about_by::<Anywhere>(current(), uid)
}

/// Of another task that stays where it is meanwhile.
#[inline(always)]
pub(crate) fn about_of(task: u64, uid: u32) -> About {
    about_by::<Anywhere>(task, uid)
}

#[inline(always)]
fn about_by<R: Reader>(task: u64, uid: u32) -> About {
    let file = R::pointer(R::pointer(task, &OFF_TASK_MM), &OFF_MM_EXE_FILE);
    let path = file.wrapping_add(u64::from(OFF_FILE_PATH.load()));
    let leader = R::pointer(task, &OFF_TASK_GROUP_LEADER);
    About {
        exe: R::pointer(R::pointer(path, &OFF_PATH_DENTRY), &OFF_DENTRY_NAME),
        parent_tgid: R::field(R::pointer(task, &OFF_TASK_REAL_PARENT), &OFF_TASK_TGID),
        inner_tgid: at(innermost(leader)),
        inner_uid: inner_uid::<R>(task, uid),
    }
}

/// What user `uid` of the host is in the task's user namespace.
/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/user_namespace.h>
#[inline(always)]
fn inner_uid<R: Reader>(task: u64, uid: u32) -> u32 {
    /// More than these are behind a pointer, which is not followed.
    const EXTENTS: u32 = 5;
    const EXTENT_SIZE: u64 = 12;
    let namespace = R::pointer(R::pointer(task, &OFF_TASK_REAL_CRED), &OFF_CRED_USER_NS);
    let extents = namespace.wrapping_add(u64::from(OFF_UID_MAP.load()));
    let count: u32 = R::field(namespace, &OFF_UID_MAP_COUNT);
    let mut inner = UNMAPPED;
    for index in 0..EXTENTS {
        if index >= count || count > EXTENTS {
            break;
        }
        let [first, lower, length]: [u32; 3] =
            at(extents.wrapping_add(u64::from(index) * EXTENT_SIZE));
        let offset = uid.wrapping_sub(lower);
        if offset < length {
            inner = first.wrapping_add(offset);
        }
    }
    inner
}

/// The task that number `nr` means to `task`: its pid namespace's idr, a radix tree of six bits
/// a level. 0 where there is none.
#[inline(always)]
pub(crate) fn find(task: u64, nr: u32) -> u64 {
    /// `pid_max` is at most 2^22.
    const LEVELS: usize = 4;
    let nr = u64::from(nr);
    let mut entry: u64 = field(pid_namespace(task), &OFF_PID_NS_TREE);
    for level in 0..LEVELS {
        // <https://github.com/torvalds/linux/blob/v6.18/include/linux/xarray.h>: `xa_is_node`.
        if entry & 3 != 2 || entry < 4096 {
            break;
        }
        let node = entry - 2;
        let shift = u64::from(field::<u8>(node, &OFF_XA_NODE_SHIFT)) & 63;
        let index = nr >> shift;
        if level == 0 && index > 63 {
            return 0;
        }
        entry = at(node
            .wrapping_add(u64::from(OFF_XA_NODE_SLOTS.load()))
            .wrapping_add((index & 63) * 8));
    }
    if entry & 3 != 0 {
        return 0;
    }
    task_of_pid(entry)
}
