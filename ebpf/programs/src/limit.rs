//! Whose limit an OOM kill serves: as the kernel decided it, else as it can be seen.
//!
//! Seen: the topmost memory cgroup above the victim that holds its OOM lock; where the kernel
//! has no such lock (v2 only builds) or it was contended, the nearest one whose usage stands at
//! its maximum. Memory nodes cannot be seen so: their shortage looks like the machine's.

use paddock_abi::counters::{Constraint, Level};

use crate::{
    member::is_around,
    offsets::*,
    read::{field, pointer},
    task::{hierarchy_of, kernfs_id, slot_of},
};

/// Memory cgroups deeper than this are not looked at.
const LEVELS: usize = 16;
/// A charge is batched by up to 64 pages: so far from its maximum a counter may stand.
const SLACK_PAGES: u64 = 64;

/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/oom.h>: `enum oom_constraint`.
const CONSTRAINT_NONE: u32 = 0;
const CONSTRAINT_MEMCG: u32 = 3;

pub(crate) struct Limit {
    pub(crate) constraint: Constraint,
    pub(crate) bytes: u64,
    pub(crate) cgroup_id: u64,
    pub(crate) hierarchy: u32,
    /// `struct mem_cgroup`; 0 is none.
    pub(crate) memcg: u64,
}

impl Limit {
    const fn nobodys(constraint: Constraint) -> Self {
        Self {
            constraint,
            bytes: 0,
            cgroup_id: 0,
            hierarchy: 0,
            memcg: 0,
        }
    }

    #[inline(always)]
    fn of(memcg: u64) -> Self {
        let css = css_of(memcg);
        let cgroup = pointer(css, &OFF_CSS_CGROUP);
        // Where memory alone is not full, v1's memory and swap together were.
        let counter = if !stands_full(memcg, &OFF_MEMCG_MEMORY) && memsw_full(css, memcg) {
            &OFF_MEMCG_MEMSW
        } else {
            &OFF_MEMCG_MEMORY
        };
        Self {
            constraint: Constraint::Memcg,
            bytes: maximum(memcg, counter).wrapping_mul(u64::from(PAGE_SIZE.load())),
            cgroup_id: kernfs_id(cgroup),
            hierarchy: hierarchy_of(cgroup),
            memcg,
        }
    }

    /// Where it stands from a slot's view; nobody's have no inside.
    #[inline(always)]
    pub(crate) fn level(&self, slot: u32) -> Level {
        if self.memcg == 0 {
            return Level::Host;
        }
        level(css_of(self.memcg), slot)
    }
}

/// As `oom_control` has it.
#[inline(always)]
pub(crate) fn decided(constraint: u32, memcg: u64) -> Limit {
    match constraint {
        CONSTRAINT_MEMCG => Limit::of(memcg),
        CONSTRAINT_NONE => Limit::nobodys(Constraint::Host),
        _ => Limit::nobodys(Constraint::Cpuset),
    }
}

/// Walks from the task's memory cgroup upwards.
#[inline(always)]
pub(crate) fn found(task: u64) -> Limit {
    let mut css = memory_css(task);
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
    match if locked == 0 { full } else { locked } {
        0 => Limit::nobodys(Constraint::Host),
        memcg => Limit::of(memcg),
    }
}

/// 1 where a cgroup between the task's and the one whose limit it is is killed as a whole:
/// <https://github.com/torvalds/linux/blob/v6.18/mm/memcontrol.c>, `mem_cgroup_get_oom_group`.
#[inline(always)]
pub(crate) fn group(task: u64, limit: u64) -> u32 {
    let mut css = memory_css(task);
    let mut group = 0;
    for _ in 0..LEVELS {
        if css == 0 || HAS_OOM_GROUP.load() == 0 {
            break;
        }
        let memcg = css - u64::from(OFF_MEMCG_CSS.load());
        group |= u32::from(field::<u8>(memcg, &OFF_MEMCG_OOM_GROUP) & 1);
        if memcg == limit {
            break;
        }
        css = pointer(css, &OFF_CSS_PARENT);
    }
    group
}

#[inline(always)]
pub(crate) fn memory_css(task: u64) -> u64 {
    pointer(pointer(task, &OFF_TASK_CGROUPS), &OFF_CSS_SET_MEMORY)
}

/// Where a memory cgroup stands from a slot's view: its own, below that, or anywhere else.
#[inline(always)]
pub(crate) fn level(css: u64, slot: u32) -> Level {
    let of = slot_of_css(css);
    if !is_around(slot, of) {
        Level::Ancestor
    } else if of != slot || is_around(slot, slot_of_css(pointer(css, &OFF_CSS_PARENT))) {
        Level::Nested
    } else {
        Level::Own
    }
}

#[inline(always)]
fn slot_of_css(css: u64) -> u32 {
    let cgroup = pointer(css, &OFF_CSS_CGROUP);
    slot_of(hierarchy_of(cgroup), kernfs_id(cgroup))
}

#[inline(always)]
fn css_of(memcg: u64) -> u64 {
    memcg + u64::from(OFF_MEMCG_CSS.load())
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
