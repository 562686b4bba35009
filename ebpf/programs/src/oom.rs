//! OOM kills: victim, trigger, and whose limit it was.
//!
//! Where fentry loads, `oom_kill_process` says by its `oom_control` whose shortage it is, and
//! `mark_oom_victim` passes the victim's task. Else oom/mark_victim passes it on newer kernels
//! (the loader reads the prototype), and on older ones a pid. Without an `oom_control` the limit
//! is looked for in `limit`. Each thread of a process may be marked: a process counts once.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, fentry, fexit, tracepoint},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, TracePointContext},
};
use paddock_abi::{
    counters::{Constraint, Level, Ring, oom_cell, oom_nested_cell, oom_outside_cell},
    record::{COMM_LEN, Oom, RSS_KINDS, UNREAD, kind},
};

use crate::{
    count::{NESTED, bump_one, debug_call, parent, tell, write_header},
    limit::{self, Limit},
    maps::{OOM_DECISION, OOM_MARKED},
    offsets::*,
    read::{at, field, pointer},
    task::{self, Identity, identity, own_identity, settled},
};

/// `BPF_NOEXIST`.
const NEW: u64 = 1;
/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/sched/signal.h>
const SIGNAL_GROUP_EXIT: u32 = 4;

/// An `oom_control` while `oom_kill_process` runs.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Decision {
    /// The thread that the kill is for; 0 is none.
    tid: u32,
    /// `enum oom_constraint`.
    constraint: u32,
    memcg: u64,
    /// 1: the chosen one is dying already and is only let have the memory to do so.
    dying: u64,
}

#[fentry(function = "oom_kill_process")]
fn fentry_oom_kill_process(ctx: FEntryContext) -> i32 {
    let control: u64 = ctx.arg(0);
    let signal = pointer(pointer(control, &OFF_OC_CHOSEN), &OFF_TASK_SIGNAL);
    let flags: u32 = field(signal, &OFF_SIGNAL_FLAGS);
    decide(Decision {
        tid: bpf_get_current_pid_tgid() as u32,
        constraint: field(control, &OFF_OC_CONSTRAINT),
        memcg: pointer(control, &OFF_OC_MEMCG),
        dying: u64::from(flags & SIGNAL_GROUP_EXIT),
    });
    0
}

#[fexit(function = "oom_kill_process")]
fn fexit_oom_kill_process(_ctx: FExitContext) -> i32 {
    decide(Decision {
        tid: 0,
        constraint: 0,
        memcg: 0,
        dying: 0,
    });
    0
}

#[inline(always)]
fn decide(decision: Decision) {
    if let Some(place) = OOM_DECISION.get_ptr_mut(0) {
        // SAFETY: a live array element; the kernel holds its OOM lock around both hooks.
        unsafe { *place = decision };
    }
}

/// Also called for who is dying anyway, outside of `oom_kill_process`: no kill, and none in
/// memory.events.
#[fentry(function = "mark_oom_victim")]
fn fentry_mark_oom_victim(ctx: FEntryContext) -> i32 {
    let Some(decision) = OOM_DECISION.get(0).copied() else {
        return 0;
    };
    if decision.tid != bpf_get_current_pid_tgid() as u32 || decision.dying != 0 {
        return 0;
    }
    let victim = ctx.arg(0);
    let limit = limit::decided(decision.constraint, decision.memcg);
    known(&ctx, victim, &limit)
}

#[btf_tracepoint(function = "mark_victim")]
fn btf_mark_victim(ctx: BtfTracePointContext) -> i32 {
    let victim = ctx.arg(0);
    known(&ctx, victim, &limit::found(victim))
}

#[tracepoint]
fn tp_mark_victim(ctx: TracePointContext) -> u32 {
    // The offset is from the tracepoint's own format file.
    let pid: u32 = field(ctx.as_ptr() as u64, &OFF_TP_VICTIM_PID);
    let trigger = task::current();
    // The victim of a memory cgroup sits in it, as the trigger does; nothing better is known.
    let limit = limit::found(trigger);
    let mut who = identity(trigger);
    let mut slot = who.slot;
    // Else a task that is already dying, or chose itself.
    let known = pid == bpf_get_current_pid_tgid() as u32;
    let (victim, tgid) = if known {
        (trigger, field(trigger, &OFF_TASK_TGID))
    } else {
        (0, pid)
    };
    if !known {
        who = Identity {
            id: 0,
            hierarchy: 0,
            slot: 0,
        };
        if !matches!(limit.constraint, Constraint::Memcg) {
            slot = 0;
        }
    }
    if OOM_MARKED.insert(tgid, 1, NEW).is_ok() {
        told(&who, slot, &limit, &Victim::of(victim, tgid, pid, &limit));
    }
    0
}

/// A victim whose task is at hand.
#[inline(always)]
fn known(ctx: &impl EbpfContext, victim: u64, limit: &Limit) -> i32 {
    let tgid: u32 = field(victim, &OFF_TASK_TGID);
    if OOM_MARKED.insert(tgid, 1, NEW).is_err() {
        return 0;
    }
    debug_call(ctx, "mark_victim", i64::from(tgid));
    let who = identity(victim);
    let thread = field(victim, &OFF_TASK_PID);
    let victim = Victim::of(victim, tgid, thread, limit);
    told(&who, who.slot, limit, &victim);
    0
}

struct Victim {
    /// 0 where only its id is known.
    task: u64,
    tgid: u32,
    tid: u32,
    uid: u32,
    known: u32,
    group: u32,
    comm: [u8; COMM_LEN],
}

impl Victim {
    /// What cannot be read of a task, of 0 to begin with, is 0.
    #[inline(always)]
    fn of(task: u64, tgid: u32, thread: u32, limit: &Limit) -> Self {
        let cred = pointer(task, &OFF_TASK_REAL_CRED);
        Self {
            task,
            tgid,
            tid: thread,
            uid: field(cred, &OFF_CRED_UID),
            known: u32::from(task != 0),
            group: limit::group(task, limit.memcg),
            comm: field(task, &OFF_TASK_COMM),
        }
    }
}

#[inline(always)]
fn told(who: &Identity, slot: u32, limit: &Limit, victim: &Victim) {
    let trigger = own_identity();
    count(slot, limit, victim.task);
    // As the container sees it that a new cgroup is a part of.
    let level = limit.level(settled(slot)) as u32;
    tell(
        Ring::Critical,
        slot,
        #[inline(always)]
        |record: *mut Oom| {
            let signal = pointer(victim.task, &OFF_TASK_SIGNAL);
            let adj: i16 = field(signal, &OFF_SIGNAL_OOM_SCORE_ADJ);
            // SAFETY: reserved memory of this record's size; each field is written.
            unsafe {
                write_header(&raw mut (*record).header, kind::OOM, slot, &trigger);
                (&raw mut (*record).victim_cgroup_id).write(who.id);
                (&raw mut (*record).victim_cgroup_hierarchy).write(who.hierarchy);
                (&raw mut (*record).constraint).write(limit.constraint as u32);
                (&raw mut (*record).limit_bytes).write(limit.bytes);
                (&raw mut (*record).limit_cgroup_id).write(limit.cgroup_id);
                (&raw mut (*record).limit_cgroup_hierarchy).write(limit.hierarchy);
                (&raw mut (*record).trigger_slot).write(trigger.slot);
                (&raw mut (*record).victim_tgid).write(victim.tgid);
                (&raw mut (*record).victim_tid).write(victim.tid);
                (&raw mut (*record).victim_uid).write(victim.uid);
                (&raw mut (*record).victim_known).write(victim.known);
                (&raw mut (*record).level).write(level);
                (&raw mut (*record).group).write(victim.group);
                size(
                    (&raw mut (*record).rss).cast(),
                    &raw mut (*record).total_vm,
                    victim.task,
                );
                (&raw mut (*record).oom_score_adj).write(i32::from(adj));
                (&raw mut (*record).pad).write(0);
                (&raw mut (*record).victim_comm).write(victim.comm);
            }
        },
    );
}

/// Counts a kill in the slot and in those around it, as each of them sees it.
#[inline(always)]
fn count(slot: u32, limit: &Limit, victim: u64) {
    let css = limit::memory_css(victim);
    let mut around = slot;
    for _ in 0..=NESTED {
        if around == 0 {
            return;
        }
        let kind = oom_cell(Constraint::Memcg, Level::Own);
        let cell = match limit.constraint {
            // The levels of memory cgroups are the first cells.
            Constraint::Memcg => kind + limit.level(around) as usize,
            Constraint::Host => oom_cell(Constraint::Host, Level::Host),
            Constraint::Cpuset => oom_cell(Constraint::Cpuset, Level::Host),
        };
        bump_one(around, cell);
        if victim != 0 {
            match limit::level(css, around) {
                Level::Nested => bump_one(around, oom_nested_cell()),
                Level::Ancestor => bump_one(around, oom_outside_cell()),
                _ => {}
            }
        }
        around = parent(around);
    }
}

/// What it has in memory, without the part of up to 32 pages that each CPU keeps to itself
/// since 6.2, which the kernel's own message leaves out as well.
///
/// SAFETY: room for [`RSS_KINDS`] numbers, and for one.
#[inline(always)]
unsafe fn size(rss: *mut u64, total_vm: *mut u64, task: u64) {
    /// `MM_FILEPAGES`, `MM_ANONPAGES`, `MM_SHMEMPAGES`.
    /// <https://github.com/torvalds/linux/blob/v6.18/include/linux/mm_types_task.h>
    const PLACES: [u64; RSS_KINDS] = [0, 1, 3];
    let mm = pointer(task, &OFF_TASK_MM);
    let page = u64::from(PAGE_SIZE.load());
    let readable = mm != 0 && HAS_MM_RSS.load() != 0;
    let first = mm.wrapping_add(u64::from(OFF_MM_RSS.load()));
    for index in 0..RSS_KINDS {
        let place = PLACES[index] * u64::from(MM_RSS_STRIDE.load());
        let pages: u64 = at(first.wrapping_add(place));
        // Below zero for a moment, where the CPUs' parts are not added.
        let pages = if pages.cast_signed() < 0 { 0 } else { pages };
        let bytes = if readable {
            pages.wrapping_mul(page)
        } else {
            UNREAD
        };
        // SAFETY: the caller's.
        unsafe { rss.add(index).write(bytes) };
    }
    let pages: u64 = field(mm, &OFF_MM_TOTAL_VM);
    let bytes = if readable {
        pages.wrapping_mul(page)
    } else {
        UNREAD
    };
    // SAFETY: the caller's.
    unsafe { total_vm.write(bytes) };
}
