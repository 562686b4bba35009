//! Mounts and roots.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use paddock_abi::{activity::Activity, namespace::Target};

use super::bound;
use crate::{
    activity::{class_of_call, root_target},
    offsets::OFF_PATH_MNT,
    read::pointer,
    word::kernel_word,
};

#[lsm(hook = "sb_mount")]
fn lsm_sb_mount(ctx: LsmContext) -> i32 {
    let Some(bound) = bound() else { return 0 };
    let target = class_of_call(kernel_word(ctx.arg(2)), ctx.arg(3));
    bound.refuse_act(Activity::Mount, target)
}

#[lsm(hook = "move_mount")]
fn lsm_move_mount(_ctx: LsmContext) -> i32 {
    own(Activity::MoveMount)
}

#[lsm(hook = "sb_pivotroot")]
fn lsm_sb_pivotroot(_ctx: LsmContext) -> i32 {
    own(Activity::PivotRoot)
}

#[inline(always)]
fn own(activity: Activity) -> i32 {
    let Some(bound) = bound() else { return 0 };
    bound.refuse_act(activity, Target::Own)
}

/// Where the kernel is built with hooks on paths.
#[lsm(hook = "path_chroot")]
fn lsm_path_chroot(ctx: LsmContext) -> i32 {
    let Some(bound) = bound() else { return 0 };
    let target = root_target(&bound.who, pointer(ctx.arg(0), &OFF_PATH_MNT));
    bound.refuse_act(Activity::Chroot, target)
}
