//! Counting and telling. Counts never ride a ring: a lost record loses no count.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_comm, bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str},
    },
};
use paddock_abi::{
    counters::{CELLS, Ring, RingCounters, ring_cell},
    record::{COMM_LEN, EXE_LEN, Header},
};

use crate::{
    admit::{Need, admitted},
    maps::{CRITICAL, EVENTS, RING_COUNTERS, SLOT_COUNTERS, SLOT_PLACE},
    offsets::*,
    read::{field, pointer},
    task::{self, About, Identity},
};

/// So many containers around one count what it does.
pub(crate) const NESTED: usize = 3;

/// Adds one to a cell of a slot (see `paddock_abi::counters`), and of those around it.
#[inline(always)]
pub(crate) fn bump(slot: u32, cell: usize) {
    bump_by(slot, cell, 1);
}

/// The same by any amount.
#[inline(always)]
pub(crate) fn bump_by(slot: u32, cell: usize, amount: u64) {
    bump_one_by(slot, cell, amount);
    let mut around = slot;
    for _ in 0..NESTED {
        around = parent(around);
        if around == 0 {
            return;
        }
        bump_one_by(around, cell, amount);
    }
}

/// The slot around a slot; 0 is none.
#[inline(always)]
pub(crate) fn parent(slot: u32) -> u32 {
    SLOT_PLACE.get(slot).map_or(0, |place| place.parent)
}

#[inline(always)]
pub(crate) fn bump_one(slot: u32, cell: usize) {
    bump_one_by(slot, cell, 1);
}

#[inline(always)]
fn bump_one_by(slot: u32, cell: usize, amount: u64) {
    if cell >= CELLS {
        return;
    }
    if let Some(counters) = SLOT_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is to a live array element, the index was checked; every writer adds
        // atomically, so the shared view as an atomic is the only one.
        unsafe { add((&raw mut (*counters).cells).cast::<u64>().add(cell), amount) };
    }
}

/// SAFETY: `cell` is a valid, aligned `u64` that is only written atomically.
#[inline(always)]
pub(crate) unsafe fn add(cell: *mut u64, amount: u64) {
    // rustc offers no atomic read-modify-write for BPF, though every kernel has this one.
    // SAFETY: one aligned eight-byte atomic addition to memory the caller vouches for.
    unsafe {
        asm!("lock *(u64 *)({cell} + 0) += {amount}", cell = in(reg) cell, amount = in(reg) amount, options(nostack));
    }
}

#[inline(always)]
fn account(ring: Ring, slot: u32, field: usize) {
    // Not those around it: a ring's account is the sum of all slots'.
    bump_one(slot, ring_cell(ring, field));
    if let Some(counters) = RING_COUNTERS.get_ptr_mut(ring as u32) {
        // SAFETY: as in `bump`; `field` is a constant below the struct's five cells.
        unsafe { add(counters.cast::<u64>().add(field), 1) };
    }
}

/// Reserves a record, lets `fill` write all of it, submits it; or counts it as lost, by why.
///
/// `fill` is to be a closure written here and inlined always: verifiers before 6.4 track every
/// number of a program that has a subprogram, and walk each path to its end.
#[inline(always)]
pub(crate) fn tell<T: 'static>(ring: Ring, slot: u32, fill: impl FnOnce(*mut T)) {
    tell_by_need(ring, slot, Need::Told, fill);
}

/// The same; under load, what the agent needs goes on longer.
#[inline(always)]
pub(crate) fn tell_by_need<T: 'static>(
    ring: Ring,
    slot: u32,
    need: Need,
    fill: impl FnOnce(*mut T),
) {
    account(ring, slot, RingCounters::SEEN);
    if ring == Ring::Events {
        match admitted(slot, need) {
            RingCounters::SUBMITTED => {}
            RingCounters::LOST_PRESSURE => {
                return account(ring, slot, RingCounters::LOST_PRESSURE);
            }
            _ => return account(ring, slot, RingCounters::LOST_RATE_LIMITED),
        }
    }
    let entry = match ring {
        Ring::Critical => CRITICAL.reserve_untyped::<T>(0),
        Ring::Events => EVENTS.reserve_untyped::<T>(0),
    };
    match entry {
        Some(mut entry) => {
            fill(entry.as_mut_ptr());
            entry.submit(0);
            account(ring, slot, RingCounters::SUBMITTED);
        }
        None => account(ring, slot, RingCounters::LOST_RING_FULL),
    }
}

/// Writes the header of a record about `slot` whose actor is the current task: field by field
/// into the ring, since older kernels allow 512 bytes of stack over all calls.
///
/// SAFETY: `to` is a record's header in reserved memory.
#[inline(always)]
pub(crate) unsafe fn write_header(to: *mut Header, kind: u32, slot: u32, actor: &Identity) {
    let uid = bpf_get_current_uid_gid() as u32;
    // SAFETY: as the caller vouches.
    unsafe { write_header_about(to, kind, slot, actor, &task::about(uid)) };
}

/// Whose doing a record is.
#[derive(Clone, Copy)]
pub(crate) enum Author {
    /// The current task's.
    Current,
    /// Another's, which waits meanwhile.
    Waiting(u64),
}

/// The same for any author.
///
/// SAFETY: as above.
#[inline(always)]
pub(crate) unsafe fn write_header_by(
    to: *mut Header,
    kind: u32,
    slot: u32,
    actor: &Identity,
    author: Author,
) {
    let Author::Waiting(task) = author else {
        // SAFETY: as the caller vouches.
        return unsafe { write_header(to, kind, slot, actor) };
    };
    let process: u32 = field(task, &OFF_TASK_TGID);
    let thread: u32 = field(task, &OFF_TASK_PID);
    let uid: u32 = field(pointer(task, &OFF_TASK_REAL_CRED), &OFF_CRED_UID);
    let pid_tgid = u64::from(process) << 32 | u64::from(thread);
    // SAFETY: as the caller vouches.
    unsafe {
        write_all_but_comm(
            to,
            kind,
            slot,
            actor,
            &task::about_of(task, uid),
            pid_tgid,
            uid,
        );
        (&raw mut (*to).comm).write(field(task, &OFF_TASK_COMM));
    }
}

/// The same with what the caller read about the current task.
///
/// SAFETY: as above.
#[inline(always)]
pub(crate) unsafe fn write_header_about(
    to: *mut Header,
    kind: u32,
    slot: u32,
    actor: &Identity,
    about: &About,
) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let uid = bpf_get_current_uid_gid() as u32;
    // SAFETY: the caller vouches for `to`; the helper writes at most the length given.
    unsafe {
        write_all_but_comm(to, kind, slot, actor, about, pid_tgid, uid);
        bpf_get_current_comm((&raw mut (*to).comm).cast(), COMM_LEN as u32);
    }
}

/// SAFETY: as above.
#[inline(always)]
unsafe fn write_all_but_comm(
    to: *mut Header,
    kind: u32,
    slot: u32,
    actor: &Identity,
    about: &About,
    pid_tgid: u64,
    uid: u32,
) {
    // SAFETY: the caller vouches for `to`; the helpers have no preconditions, and write at most
    // the length given.
    unsafe {
        (&raw mut (*to).kind).write(kind);
        (&raw mut (*to).slot).write(slot);
        (&raw mut (*to).time_ns).write(bpf_ktime_get_boot_ns());
        (&raw mut (*to).cgroup_id).write(actor.id);
        (&raw mut (*to).cgroup_hierarchy).write(actor.hierarchy);
        (&raw mut (*to).tgid).write((pid_tgid >> 32) as u32);
        (&raw mut (*to).tid).write(pid_tgid as u32);
        (&raw mut (*to).uid).write(uid);
        (&raw mut (*to).inner_tgid).write(about.inner_tgid);
        (&raw mut (*to).parent_tgid).write(about.parent_tgid);
        (&raw mut (*to).inner_uid).write(about.inner_uid);
        (&raw mut (*to).pad).write(0);
        let name = (&raw mut (*to).exe).cast::<u8>();
        name.write(0);
        bpf_probe_read_kernel_str(name.cast(), EXE_LEN as u32, about.exe as *const _);
    }
}

/// The same for programs that may ask for nothing of the current task but its address, `task`: all
/// is read from there.
///
/// SAFETY: as above.
#[inline(always)]
pub(crate) unsafe fn write_header_of(
    to: *mut Header,
    kind: u32,
    slot: u32,
    actor: &Identity,
    task: u64,
) {
    let uid = bpf_get_current_uid_gid() as u32;
    let about = task::about_anywhere(uid);
    // SAFETY: the caller vouches for `to`; the helpers have no preconditions, and write at most
    // the length given.
    unsafe {
        (&raw mut (*to).kind).write(kind);
        (&raw mut (*to).slot).write(slot);
        (&raw mut (*to).time_ns).write(bpf_ktime_get_boot_ns());
        (&raw mut (*to).cgroup_id).write(actor.id);
        (&raw mut (*to).cgroup_hierarchy).write(actor.hierarchy);
        (&raw mut (*to).tgid).write(field(task, &OFF_TASK_TGID));
        (&raw mut (*to).tid).write(field(task, &OFF_TASK_PID));
        (&raw mut (*to).uid).write(uid);
        (&raw mut (*to).inner_tgid).write(about.inner_tgid);
        (&raw mut (*to).parent_tgid).write(about.parent_tgid);
        (&raw mut (*to).inner_uid).write(about.inner_uid);
        (&raw mut (*to).pad).write(0);
        (&raw mut (*to).comm).write(field(task, &OFF_TASK_COMM));
        let name = (&raw mut (*to).exe).cast::<u8>();
        name.write(0);
        bpf_probe_read_kernel_str(name.cast(), EXE_LEN as u32, about.exe as *const _);
    }
}

/// The same where no task is whose doing it is.
///
/// SAFETY: as above.
#[inline(always)]
pub(crate) unsafe fn write_header_of_nobody(
    to: *mut Header,
    kind: u32,
    slot: u32,
    actor: &Identity,
) {
    // SAFETY: the caller vouches for `to`; the helper has no preconditions.
    unsafe {
        to.write_bytes(0, 1);
        (&raw mut (*to).kind).write(kind);
        (&raw mut (*to).slot).write(slot);
        (&raw mut (*to).time_ns).write(bpf_ktime_get_boot_ns());
        (&raw mut (*to).cgroup_id).write(actor.id);
        (&raw mut (*to).cgroup_hierarchy).write(actor.hierarchy);
    }
}

/// A debug line where the loader asked for them; else verifier-dead.
#[inline(always)]
pub(crate) fn debug_call(ctx: &impl EbpfContext, hook: &str, ret: i64) {
    aya_log_ebpf::debug!(ctx, "{}: {}", hook, ret);
}
