//! Cgroups born, entered and gone; a child inherits its parent's slot before anyone can join it.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel_str, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use paddock_abi::{
    counters::Ring,
    key::CgroupKey,
    record::{Cgroup, PATH_LEN, cgroup_op, hierarchy, kind},
};

use crate::{
    admit::Need,
    count::{debug_call, header, tell_by_need},
    maps::CGROUP_SLOT,
    offsets::*,
    once::{MAY_RECUR_NS, UNIQUE_NS, once},
    read::{field, pointer},
    selftest,
    task::{self, hierarchy_of, identity, kernfs_id, slot_of},
};

/// Places of claims.
const ONCE_MKDIR: u32 = 0x10;
const ONCE_ATTACH: u32 = 0x11;

#[btf_tracepoint(function = "cgroup_mkdir")]
fn btf_cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Place::of(ctx.arg(0));
    if selftest::on() {
        selftest::observe(selftest::CGROUP, task::current(), cgroup.id.cast_signed());
    }
    if cgroup.hierarchy == hierarchy::OTHER || !once(ONCE_MKDIR, cgroup.id, ctx.arg(0), UNIQUE_NS) {
        return 0;
    }
    let slot = slot_of(cgroup.hierarchy, cgroup.parent_id);
    if slot != 0 {
        let key = CgroupKey {
            id: cgroup.id,
            hierarchy: cgroup.hierarchy,
            pad: 0,
        };
        // Full (65,536 cgroups): the child is nobody's; its processes are still seen by v1 identity.
        let _ = CGROUP_SLOT.insert(key, slot, 0);
    }
    // Nobody's births are told, too: one may be a container that another runtime makes.
    debug_call(&ctx, "cgroup_mkdir", cgroup.id.cast_signed());
    told(cgroup_op::MKDIR, slot, &cgroup, ctx.arg(1), 0);
    0
}

#[btf_tracepoint(function = "cgroup_attach_task")]
fn btf_cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Place::of(ctx.arg(0));
    let mut slot = slot_of(cgroup.hierarchy, cgroup.id);
    if slot == 0 {
        // A container's process that moves another one elsewhere.
        slot = identity(task::current()).slot;
    }
    if slot == 0 || !once(ONCE_ATTACH, ctx.arg(0), ctx.arg(2), MAY_RECUR_NS) {
        return 0;
    }
    told(cgroup_op::ATTACH, slot, &cgroup, ctx.arg(1), ctx.arg(2));
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
fn btf_cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Place::of(ctx.arg(0));
    let slot = slot_of(cgroup.hierarchy, cgroup.id);
    // A second program finds no slot any more: what is taken away once is told once.
    if slot == 0 {
        return 0;
    }
    let key = CgroupKey {
        id: cgroup.id,
        hierarchy: cgroup.hierarchy,
        pad: 0,
    };
    let _ = CGROUP_SLOT.remove(key);
    told(cgroup_op::RMDIR, slot, &cgroup, ctx.arg(1), 0);
    0
}

struct Place {
    id: u64,
    parent_id: u64,
    hierarchy: u32,
}

impl Place {
    #[inline(always)]
    fn of(cgroup: u64) -> Self {
        let parent_css = if cgroup == 0 {
            0
        } else {
            pointer(cgroup + u64::from(OFF_CGROUP_SELF.load()), &OFF_CSS_PARENT)
        };
        Self {
            id: kernfs_id(cgroup),
            parent_id: kernfs_id(pointer(parent_css, &OFF_CSS_CGROUP)),
            hierarchy: hierarchy_of(cgroup),
        }
    }
}

#[inline(always)]
fn told(op: u32, slot: u32, cgroup: &Place, path: u64, moved: u64) {
    let head = header(kind::CGROUP, slot, &identity(task::current()));
    let need = if op == cgroup_op::ATTACH {
        Need::Told
    } else {
        Need::Agent
    };
    tell_by_need(Ring::Events, slot, need, |record: *mut Cgroup| {
        // SAFETY: reserved memory of this record's size; each field is written before it is sent,
        // the path up to its NUL by the helper (at least its first byte by us).
        unsafe {
            (&raw mut (*record).header).write(head);
            (&raw mut (*record).op).write(op);
            (&raw mut (*record).hierarchy).write(cgroup.hierarchy);
            (&raw mut (*record).id).write(cgroup.id);
            (&raw mut (*record).parent_id).write(cgroup.parent_id);
            (&raw mut (*record).moved_tgid).write(field(moved, &OFF_TASK_TGID));
            (&raw mut (*record).moved_tid).write(field(moved, &OFF_TASK_PID));
            let text = (&raw mut (*record).path).cast::<u8>();
            text.write(0);
            bpf_probe_read_kernel_str(text.cast(), PATH_LEN as u32, path as *const _);
        }
    });
}
