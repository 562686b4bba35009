//! Opening files that are doors.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use paddock_abi::activity::Activity;

use super::{Asked, bound, path};
use crate::{
    activity::{door, node_target, observed, of_a_layer},
    read::Typed,
    selftest,
};

/// Of the kernel's own device numbers.
const MINOR_BITS: u32 = 20;

#[lsm(hook = "file_open")]
fn lsm_file_open(ctx: LsmContext) -> i32 {
    // Attached is not asked: the kernel may be started without this module.
    if selftest::on() {
        observed::<Typed>(selftest::ENFORCE, ctx.arg(0));
        return 0;
    }
    if of_a_layer::<Typed>(ctx.arg(0)) {
        return 0;
    }
    let Some(bound) = bound() else { return 0 };
    if let Some(door) = door::<Typed>(&bound.who, ctx.arg(0)) {
        let asked = Asked {
            activity: door.activity,
            target: door.target,
            other_tgid: door.other_tgid,
        };
        let refused = bound.refuse(bound.cell(asked.activity, asked.target), asked);
        if refused != 0 {
            return refused;
        }
    }
    path::opened(&bound, ctx.arg(0))
}

#[lsm(hook = "inode_mknod")]
fn lsm_inode_mknod(ctx: LsmContext) -> i32 {
    let Some(bound) = bound() else { return 0 };
    let device = ctx.arg::<u32>(3);
    let target = node_target(
        u32::from(ctx.arg::<u16>(2)),
        u64::from(device >> MINOR_BITS),
        u64::from(device & ((1 << MINOR_BITS) - 1)),
    );
    match target {
        Some(target) => bound.refuse_act(Activity::Mknod, target),
        None => 0,
    }
}
