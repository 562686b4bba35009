//! Names in the bpffs, and the bpffs itself: the last name that goes takes its object along.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use paddock_abi::guard::{Tampered, mode};

use super::{current_mode, device, touched};
use crate::{
    maps::SHOWN,
    offsets::*,
    read::{Reader, Typed, pointer},
};

/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/mount.h>
const MS_REMOUNT: u64 = 32;
const MS_BIND: u64 = 4096;
const MNT_DETACH: u32 = 2;
/// How many mounts may be above the bpffs.
const DEPTH: usize = 16;

#[lsm(hook = "inode_unlink")]
fn guard_inode_unlink(ctx: LsmContext) -> i32 {
    if in_pins(ctx.arg(0)) {
        touched(Tampered::Pin, 0)
    } else {
        0
    }
}

/// Both directories are of one file system.
#[lsm(hook = "inode_rename")]
fn guard_inode_rename(ctx: LsmContext) -> i32 {
    if in_pins(ctx.arg(0)) {
        touched(Tampered::Pin, 0)
    } else {
        0
    }
}

/// Whether a directory is in the bpffs with the pins.
#[inline(always)]
fn in_pins(directory: u64) -> bool {
    if current_mode() == mode::OFF {
        return false;
    }
    let device: u32 = Typed::field(Typed::pointer(directory, &OFF_INODE_SB), &OFF_SB_DEV);
    SHOWN.get(0).is_some_and(|shown| shown.pins == device)
}

/// The bpffs itself, or lazily what it is mounted below. Copies in other mount namespaces are
/// others' business.
#[lsm(hook = "sb_umount")]
fn guard_sb_umount(ctx: LsmContext) -> i32 {
    if current_mode() == mode::OFF {
        return 0;
    }
    let Some(shown) = SHOWN.get(0) else { return 0 };
    let leaves: u64 = ctx.arg(0);
    let mut above = shown.mount;
    let lazily = ctx.arg::<u32>(1) & MNT_DETACH != 0;
    let mut hit = above == leaves;
    for _ in 0..DEPTH {
        let to_mount = u64::from(OFF_MOUNT_MNT.load());
        let parent = pointer(above.wrapping_sub(to_mount), &OFF_MOUNT_PARENT);
        above = parent.wrapping_add(to_mount);
        hit |= lazily && above == leaves;
    }
    if hit { touched(Tampered::Mount, 0) } else { 0 }
}

#[lsm(hook = "sb_mount")]
fn guard_sb_mount(ctx: LsmContext) -> i32 {
    if current_mode() == mode::OFF {
        return 0;
    }
    let Some(shown) = SHOWN.get(0) else { return 0 };
    let path: u64 = ctx.arg(1);
    let flags: u64 = ctx.arg(3);
    let inode = pointer(pointer(path, &OFF_PATH_DENTRY), &OFF_DENTRY_INODE);
    // What is changed of the file system itself is changed wherever it is mounted.
    let whole = flags & (MS_REMOUNT | MS_BIND) == MS_REMOUNT && device(inode) == shown.pins;
    if whole || pointer(path, &OFF_PATH_MNT) == shown.mount {
        touched(Tampered::Mount, 0)
    } else {
        0
    }
}

#[lsm(hook = "move_mount")]
fn guard_move_mount(ctx: LsmContext) -> i32 {
    if current_mode() == mode::OFF {
        return 0;
    }
    let Some(shown) = SHOWN.get(0) else { return 0 };
    let from = pointer(ctx.arg(0), &OFF_PATH_MNT);
    let to = pointer(ctx.arg(1), &OFF_PATH_MNT);
    if from == shown.mount || to == shown.mount {
        touched(Tampered::Mount, 0)
    } else {
        0
    }
}
