//! What a hook reads of a known process, for the loader to compare with procfs.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use paddock_abi::{key::Observation, namespace::NS_TYPES};

use crate::{
    maps::{OBSERVED, STATE},
    offsets::*,
    read::{field, pointer},
    target::Resolved,
    task::{kernfs_id, memory_id, namespaces, pids_id},
};

/// Places in `OBSERVED`.
pub(crate) const SETNS: u32 = 0;
pub(crate) const UNSHARE: u32 = 1;
pub(crate) const CLONE: u32 = 2;
pub(crate) const CGROUP: u32 = 4;
pub(crate) const EXEC: u32 = 5;
pub(crate) const EXIT: u32 = 6;
pub(crate) const MOUNT: u32 = 7;
pub(crate) const PROCESS: u32 = 8;
pub(crate) const SURFACE: u32 = 9;
pub(crate) const OPEN: u32 = 10;
pub(crate) const CONNECT: u32 = 11;
pub(crate) const ENFORCE: u32 = 14;
pub(crate) const NETWORK: u32 = 15;
pub(crate) const GUARD: u32 = 16;
pub(crate) const DEVICE: u32 = 17;
pub(crate) const QUESTION: u32 = 18;
pub(crate) const PATHS: u32 = 19;
pub(crate) const TRAFFIC: u32 = 20;
pub(crate) const SYSCTL: u32 = 21;

/// How far up the chain of parents the first task is looked for.
const ANCESTORS: usize = 256;

/// Whether the current thread, or the child it made for the test, is under self-test. Another
/// thread of the loader's process may make such calls of its own meanwhile: they are not meant.
#[inline(always)]
pub(crate) fn on() -> bool {
    on_by(|| bpf_get_current_pid_tgid() as u32)
}

/// The same for programs that may not ask for the current thread, which it is.
#[inline(always)]
pub(crate) fn on_for(tid: u32) -> bool {
    on_by(|| tid)
}

/// Who it is is asked last: there is seldom a self-test.
#[inline(always)]
fn on_by(tid: impl FnOnce() -> u32) -> bool {
    STATE.get(0).is_some_and(|state| {
        state.selftest_tid != 0 && {
            let tid = tid();
            state.selftest_tid == tid || state.selftest_child == tid
        }
    })
}

/// Marks the child of the thread under self-test.
#[inline(always)]
pub(crate) fn adopt_child(child_tgid: u32) {
    if let Some(state) = STATE.get_ptr_mut(0) {
        // SAFETY: a live array element; only the self-test's own fork writes this field.
        unsafe { (*state).selftest_child = child_tgid };
    }
}

/// Writes down a packet as long as the self-test's: in no task's context, so also another's.
#[inline(always)]
pub(crate) fn observe_packet(cgroup: u64, bytes: u32) {
    let testing = STATE.get(0).is_some_and(|state| state.selftest_tid != 0);
    if let (true, Some(observed)) = (testing, OBSERVED.get_ptr_mut(TRAFFIC)) {
        // SAFETY: a live array element; whoever else writes it writes the same, or is found out.
        unsafe {
            (*observed).hits += 1;
            (*observed).unified_id = cgroup;
            (*observed).ret = i64::from(bytes);
        }
    }
}

/// Writes down what is read about `task`, the current one.
#[inline(always)]
pub(crate) fn observe(place: u32, task: u64, ret: i64) {
    let Some(observed) = OBSERVED.get_ptr_mut(place) else {
        return;
    };
    let set = pointer(task, &OFF_TASK_CGROUPS);
    // SAFETY: a live array element that only the thread under self-test and its child, in turn, write.
    let seen: &mut Observation = unsafe { &mut *observed };
    seen.hits += 1;
    seen.ret = ret;
    seen.unified_id = kernfs_id(pointer(set, &OFF_CSS_SET_DFL_CGRP));
    seen.memory_id = memory_id(set);
    seen.pids_id = pids_id(set);
    seen.tgid = field(task, &OFF_TASK_TGID);
    seen.tid = field(task, &OFF_TASK_PID);
    seen.parent_tgid = field(pointer(task, &OFF_TASK_REAL_PARENT), &OFF_TASK_TGID);
    seen.uid = bpf_get_current_uid_gid() as u32;
    seen.inums = namespaces(task);
    seen.comm = field(task, &OFF_TASK_COMM);
}

/// Adds what setns' descriptor resolved to.
#[inline(always)]
pub(crate) fn observe_target(place: u32, found: &Resolved) {
    let Some(observed) = OBSERVED.get_ptr_mut(place) else {
        return;
    };
    // SAFETY: as in `observe`.
    let seen: &mut Observation = unsafe { &mut *observed };
    seen.file_ops = found.file_ops;
    seen.magic = found.magic;
    seen.target_mask = found.mask;
    seen.target_inum = 0;
    for index in 0..NS_TYPES {
        if found.inums[index] != 0 {
            seen.target_inum = found.inums[index];
        }
    }
}

/// The first task is its own parent; its namespaces are the first of their types.
#[inline(always)]
pub(crate) fn observe_first(task: u64) {
    let mut first = task;
    for _ in 0..ANCESTORS {
        let parent = pointer(first, &OFF_TASK_REAL_PARENT);
        if parent == 0 || parent == first {
            break;
        }
        first = parent;
    }
    if field::<u32>(first, &OFF_TASK_TGID) != 0 {
        return;
    }
    if let Some(observed) = OBSERVED.get_ptr_mut(SETNS) {
        // SAFETY: as in `observe`.
        unsafe { (*observed).first = namespaces(first) };
    }
}
