//! Cgroups born, entered and gone; a child inherits its parent's slot before anyone can join it.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel_str},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use paddock_abi::{
    activity::Activity,
    counters::Ring,
    key::CgroupKey,
    namespace::Target,
    record::{Cgroup, PATH_LEN, cgroup_op, hierarchy, kind},
};

use crate::{
    activity::{Act, Text, judge},
    count::{debug_call, header, tell},
    maps::{CGROUP_SLOT, MEMBER},
    offsets::*,
    read::{field, pointer},
    selftest,
    task::{self, exempt, hierarchy_of, identity, kernfs_id, member, slot_of},
};

#[btf_tracepoint(function = "cgroup_mkdir")]
fn btf_cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Place::of(ctx.arg(0));
    if selftest::on() {
        selftest::observe(selftest::CGROUP, task::current(), cgroup.id.cast_signed());
    }
    if cgroup.hierarchy == hierarchy::OTHER {
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
    moved(&cgroup, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    let mut slot = slot_of(cgroup.hierarchy, cgroup.id);
    if slot == 0 {
        // A container's process that moves another one elsewhere.
        slot = identity(task::current()).slot;
    }
    if slot == 0 {
        return 0;
    }
    told(cgroup_op::ATTACH, slot, &cgroup, ctx.arg(1), ctx.arg(2));
    0
}

/// Whose the moved process is now. Where it came from the kernel does not tell any more: it is
/// remembered. Moved by the host it is what its new cgroup is; what a container moves out of its
/// cgroups stays the container's.
#[inline(always)]
fn moved(to: &Place, cgroup: u64, path: u64, task: u64) {
    if to.hierarchy == hierarchy::OTHER {
        return;
    }
    let tgid: u32 = field(task, &OFF_TASK_TGID);
    let who = identity(task::current());
    let mover = (bpf_get_current_pid_tgid() >> 32) as u32;
    let slot = slot_of(to.hierarchy, to.id);
    let mut from = member(tgid);
    if from == 0 && tgid == mover {
        // It was there before paddock; another hierarchy still says where.
        from = who.slot;
    }
    if from == 0 || who.slot != from || exempt(mover) || from == slot {
        if slot == 0 {
            let _ = MEMBER.remove(tgid);
        } else {
            let _ = MEMBER.insert(tgid, slot, 0);
        }
        return;
    }
    let target = if is_below(to.hierarchy, cgroup, from) {
        Target::Own
    } else if slot != 0 {
        Target::Peer
    } else {
        Target::Host
    };
    let mut act = Act::new(Activity::CgroupLeave, target, 0);
    act.other_tgid = tgid;
    act.other_slot = from;
    act.place = Text::Kernel(path);
    judge(&who, &act);
    let _ = MEMBER.insert(
        tgid,
        if target == Target::Own && slot != 0 {
            slot
        } else {
            from
        },
        0,
    );
}

/// Whether a cgroup above is the slot's: another container's may be inside of it.
#[inline(always)]
fn is_below(hierarchy: u32, cgroup: u64, slot: u32) -> bool {
    /// As deep as memory cgroups are followed.
    const LEVELS: usize = 16;
    let mut css = cgroup.wrapping_add(u64::from(OFF_CGROUP_SELF.load()));
    for _ in 0..LEVELS {
        css = pointer(css, &OFF_CSS_PARENT);
        if css == 0 {
            return false;
        }
        if slot_of(hierarchy, kernfs_id(pointer(css, &OFF_CSS_CGROUP))) == slot {
            return true;
        }
    }
    false
}

#[btf_tracepoint(function = "cgroup_rmdir")]
fn btf_cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Place::of(ctx.arg(0));
    let slot = slot_of(cgroup.hierarchy, cgroup.id);
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
    tell(Ring::Events, slot, |record: *mut Cgroup| {
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
