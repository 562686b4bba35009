//! OOM kills: victim, trigger, and whose limit it was.
//!
//! oom/mark_victim passes the victim's task on newer kernels (the loader reads the prototype),
//! else only a pid is known from the plain tracepoint. The limit is the topmost memory cgroup
//! above the victim that holds its OOM lock; where the kernel has no such lock (v2 only
//! builds) or it was contended, the nearest one whose usage stands at its maximum.
//! Each thread of a process may be marked: a process counts once.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, fentry, tracepoint},
    programs::{BtfTracePointContext, FEntryContext, TracePointContext},
};
use paddock_abi::{
    counters::{Constraint, Ring, oom_cell},
    record::{COMM_LEN, Oom, kind},
};

use crate::{
    count::{bump, debug_call, tell, write_header},
    maps::OOM_MARKED,
    offsets::*,
    read::{field, pointer},
    task::{self, Identity, hierarchy_of, identity, kernfs_id},
};

/// Memory cgroups deeper than this are not looked at.
const LEVELS: usize = 16;
/// A charge is batched by up to 64 pages: so far from its maximum a counter may stand.
const SLACK_PAGES: u64 = 64;
/// `BPF_NOEXIST`.
const NEW: u64 = 1;

struct Limit {
    constraint: Constraint,
    bytes: u64,
    cgroup_id: u64,
    hierarchy: u32,
}

#[btf_tracepoint(function = "mark_victim")]
fn btf_mark_victim(ctx: BtfTracePointContext) -> i32 {
    known(&ctx, ctx.arg(0))
}

/// Where that passes a pid: its caller has the task.
#[fentry]
fn fentry_mark_oom_victim(ctx: FEntryContext) -> i32 {
    known(&ctx, ctx.arg(0))
}

#[tracepoint]
fn tp_mark_victim(ctx: TracePointContext) -> u32 {
    // The offset is from the tracepoint's own format file.
    let pid: u32 = field(ctx.as_ptr() as u64, &OFF_TP_VICTIM_PID);
    let trigger = task::current();
    if pid == bpf_get_current_pid_tgid() as u32 {
        // A task that is already dying, or chose itself.
        known(&ctx, trigger);
        return 0;
    }
    if OOM_MARKED.insert(pid, 1, NEW).is_err() {
        return 0;
    }
    // The victim of a memory cgroup sits in it, as the trigger does; nothing better is known.
    let limit = limit(trigger);
    let slot = match limit.constraint {
        Constraint::Memcg => identity(trigger).slot,
        Constraint::Host => 0,
    };
    let nobody = Identity {
        id: 0,
        hierarchy: 0,
        slot: 0,
    };
    let victim = Victim {
        tgid: pid,
        tid: pid,
        uid: 0,
        known: 0,
        comm: [0; COMM_LEN],
    };
    told(&nobody, slot, &limit, &victim);
    0
}

/// A victim whose task is at hand.
#[inline(always)]
fn known(ctx: &impl EbpfContext, victim: u64) -> i32 {
    let tgid: u32 = field(victim, &OFF_TASK_TGID);
    if OOM_MARKED.insert(tgid, 1, NEW).is_err() {
        return 0;
    }
    debug_call(ctx, "mark_victim", i64::from(tgid));
    let who = identity(victim);
    let cred = pointer(victim, &OFF_TASK_REAL_CRED);
    let limit = limit(victim);
    let victim = Victim {
        tgid,
        tid: field(victim, &OFF_TASK_PID),
        uid: field(cred, &OFF_CRED_UID),
        known: 1,
        comm: field(victim, &OFF_TASK_COMM),
    };
    told(&who, who.slot, &limit, &victim);
    0
}

struct Victim {
    tgid: u32,
    tid: u32,
    uid: u32,
    known: u32,
    comm: [u8; COMM_LEN],
}

#[inline(always)]
fn told(who: &Identity, slot: u32, limit: &Limit, victim: &Victim) {
    let trigger = identity(task::current());
    bump(
        slot,
        match limit.constraint {
            Constraint::Memcg => oom_cell(Constraint::Memcg),
            Constraint::Host => oom_cell(Constraint::Host),
        },
    );
    tell(
        Ring::Critical,
        slot,
        #[inline(always)]
        |record: *mut Oom| {
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
                (&raw mut (*record).victim_comm).write(victim.comm);
            }
        },
    );
}

/// Walks from the task's memory cgroup upwards.
#[inline(always)]
fn limit(task: u64) -> Limit {
    let set = pointer(task, &OFF_TASK_CGROUPS);
    let mut css = pointer(set, &OFF_CSS_SET_MEMORY);
    let mut locked = 0;
    let mut full = 0;
    for _ in 0..LEVELS {
        if css == 0 {
            break;
        }
        let memcg = css - u64::from(OFF_MEMCG_CSS.load());
        if HAS_OOM_LOCK.load() != 0 && field::<u8>(memcg, &OFF_MEMCG_OOM_LOCK) != 0 {
            locked = memcg;
        }
        if full == 0 && (stands_full(memcg, &OFF_MEMCG_MEMORY) || memsw_full(css, memcg)) {
            full = memcg;
        }
        css = pointer(css, &OFF_CSS_PARENT);
    }
    let memcg = if locked == 0 { full } else { locked };
    if memcg == 0 {
        return Limit {
            constraint: Constraint::Host,
            bytes: 0,
            cgroup_id: 0,
            hierarchy: 0,
        };
    }
    let css = memcg + u64::from(OFF_MEMCG_CSS.load());
    let cgroup = pointer(css, &OFF_CSS_CGROUP);
    // Where memory alone is not full, v1's memory and swap together were.
    let counter = if !stands_full(memcg, &OFF_MEMCG_MEMORY) && memsw_full(css, memcg) {
        &OFF_MEMCG_MEMSW
    } else {
        &OFF_MEMCG_MEMORY
    };
    Limit {
        constraint: Constraint::Memcg,
        bytes: maximum(memcg, counter).wrapping_mul(u64::from(PAGE_SIZE.load())),
        cgroup_id: kernfs_id(cgroup),
        hierarchy: hierarchy_of(cgroup),
    }
}

#[inline(always)]
fn maximum(memcg: u64, counter: &aya_ebpf::Global<u32>) -> u64 {
    field(memcg + u64::from(counter.load()), &OFF_COUNTER_MAX)
}

#[inline(always)]
fn stands_full(memcg: u64, counter: &aya_ebpf::Global<u32>) -> bool {
    let base = memcg + u64::from(counter.load());
    let max = maximum(memcg, counter);
    let usage: u64 = field(base, &OFF_COUNTER_USAGE);
    max != 0 && usage.saturating_add(SLACK_PAGES) >= max
}

/// v1 only: on v2 the same place counts swap alone, which fills without an OOM.
#[inline(always)]
fn memsw_full(css: u64, memcg: u64) -> bool {
    let root = pointer(pointer(css, &OFF_CSS_CGROUP), &OFF_CGROUP_ROOT);
    field::<i32>(root, &OFF_ROOT_HIERARCHY_ID) != 0 && stands_full(memcg, &OFF_MEMCG_MEMSW)
}
