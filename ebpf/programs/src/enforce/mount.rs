//! Mounts and roots.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use paddock_abi::{activity::Activity, namespace::Target};

use super::{Bound, bound, call};
use crate::{
    activity::{class_of_call, root_target, tree_target},
    offsets::{OFF_PATH_MNT, OFF_REGS_ARG0},
    read::{field, pointer},
    task,
    word::{kernel_word, user_word},
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

/// The kernel asks for CAP_SYS_ADMIN: before a tree is copied or a file system begun it is the only
/// question. Whose tree a path led to is judged when it has been opened.
#[inline(always)]
pub(super) fn before_call(bound: &Bound, call: u64) -> i32 {
    if call != call::OPEN_TREE && call != call::OPEN_TREE_ATTR && call != call::FSOPEN {
        return 0;
    }
    let first: u64 = field(task::registers(), &OFF_REGS_ARG0);
    if call == call::FSOPEN {
        return bound.refuse_act(Activity::FsOpen, class_of_call(user_word(first), 0));
    }
    bound.refuse_act(Activity::OpenTree, tree_target(&bound.who, first as i32))
}

/// Where the kernel is built with hooks on paths.
#[lsm(hook = "path_chroot")]
fn lsm_path_chroot(ctx: LsmContext) -> i32 {
    let Some(bound) = bound() else { return 0 };
    let target = root_target(&bound.who, pointer(ctx.arg(0), &OFF_PATH_MNT));
    bound.refuse_act(Activity::Chroot, target)
}
