//! Cgroups born, entered and gone; a new one has a slot before anyone can join it.

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_probe_read_kernel_str, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use paddock_abi::{
    counters::Ring,
    key::CgroupKey,
    record::{Cgroup, PATH_LEN, cgroup_op, hierarchy, kind},
};

use crate::{
    admit::Need,
    birth::{born, died},
    count::{debug_call, tell_by_need, write_header},
    maps::CGROUP_SLOT,
    member,
    offsets::*,
    once::{Runs, once},
    read::{field, pointer},
    selftest, setup,
    task::{self, Identity, hierarchy_of, in_setup, kernfs_id, own_identity, slot_of},
};

#[btf_tracepoint(function = "cgroup_mkdir")]
fn btf_cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Place::of(ctx.arg(0));
    if selftest::on() {
        selftest::observe(selftest::CGROUP, task::current(), cgroup.id.cast_signed());
        return 0;
    }
    if cgroup.hierarchy == hierarchy::OTHER || !once(Runs::NewestLast) {
        return 0;
    }
    let parent = slot_of(cgroup.hierarchy, cgroup.parent_id);
    // paddock enters its containers itself.
    let (slot, op) = if parent == 0 && in_setup() {
        (0, cgroup_op::MKDIR)
    } else {
        born(ctx.arg(1), parent)
    };
    if slot != 0 {
        let key = CgroupKey::new(cgroup.hierarchy, cgroup.id);
        // Full (65,536 cgroups): the child is nobody's; its processes are still seen by v1 identity.
        let _ = CGROUP_SLOT.insert(key, slot, 0);
    }
    // Nobody's births are told, too: one may be a container that another runtime makes.
    debug_call(&ctx, "cgroup_mkdir", cgroup.id.cast_signed());
    told(op, slot, &cgroup, ctx.arg(1), 0);
    0
}

#[btf_tracepoint(function = "cgroup_attach_task")]
fn btf_cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    // Each once: read on several ways, the compiler reads by a pointer that it chose before,
    // which the verifier takes for no context.
    let [cgroup, path, moved] = arguments(&ctx);
    if !once(Runs::NewestLast) {
        return 0;
    }
    let cgroup = Place::of(cgroup);
    let mut slot = slot_of(cgroup.hierarchy, cgroup.id);
    let to = Identity {
        id: cgroup.id,
        hierarchy: cgroup.hierarchy,
        slot,
    };
    let left = member::moved(&to, path, moved);
    if slot == 0 || left {
        // A container's process that moves another one elsewhere.
        slot = own_identity().slot;
    } else {
        setup::attached(moved, slot);
    }
    if slot == 0 {
        return 0;
    }
    told(cgroup_op::ATTACH, slot, &cgroup, path, moved);
    0
}

#[inline(always)]
fn arguments(ctx: &BtfTracePointContext) -> [u64; 3] {
    let first = ctx.as_ptr().cast::<u64>();
    // SAFETY: the tracepoint has three arguments and more, as words.
    unsafe {
        [
            first.read_volatile(),
            first.add(1).read_volatile(),
            first.add(2).read_volatile(),
        ]
    }
}

#[btf_tracepoint(function = "cgroup_rmdir")]
fn btf_cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Place::of(ctx.arg(0));
    let slot = slot_of(cgroup.hierarchy, cgroup.id);
    // A second program finds no slot any more: what is taken away once is told once.
    if slot == 0 {
        return 0;
    }
    let _ = CGROUP_SLOT.remove(CgroupKey::new(cgroup.hierarchy, cgroup.id));
    died(ctx.arg(1));
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
    let actor = own_identity();
    let need = if op == cgroup_op::ATTACH {
        Need::Told
    } else {
        Need::Agent
    };
    tell_by_need(
        Ring::Events,
        slot,
        need,
        #[inline(always)]
        |record: *mut Cgroup| {
            // SAFETY: reserved memory of this record's size; each field is written before it is sent,
            // the path up to its NUL by the helper (at least its first byte by us).
            unsafe {
                write_header(&raw mut (*record).header, kind::CGROUP, slot, &actor);
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
        },
    );
}
