//! Mounts, roots and working directories.

use paddock_abi::{
    activity::Activity,
    namespace::{NsType, Target},
};

use super::{Act, Text, judge, syscalls::Call, watched};
use crate::{
    maps::STATE,
    offsets::*,
    owner::whose,
    read::{Anywhere, Reader, field, pointer},
    selftest,
    target::file_of,
    task::{self, Identity},
    word::{user_word, word},
};

/// `MS_REMOUNT`, `MS_BIND`, `MS_MOVE` and the four that change propagation.
const CHANGES: u64 = 32 | 4096 | 8192 | (0xf << 17);
/// Error pointers and `MNT_NS_INTERNAL`: no namespace at all.
const ERRORS: u64 = 0xffff_ffff_ffff_f000;
/// A detached tree's: <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/nsfs.h>
const MNT_NS_ANON_INO: u32 = 0xEFFF_FFF7;
/// `OPEN_TREE` and others: relative to the working directory.
const AT_FDCWD: i32 = -100;

#[inline(always)]
pub(super) fn mount(call: &Call) {
    if selftest::on() {
        let class = class(user_word(call.arg2()));
        selftest::observe(selftest::MOUNT, task::current(), class as i64);
        return;
    }
    let Some((_, who)) = watched() else { return };
    let flags = call.arg3();
    let target = class_of_call(user_word(call.arg2()), flags);
    let object = if flags & CHANGES == 0 {
        call.arg2()
    } else {
        call.arg0()
    };
    judge(
        &who,
        &Act {
            args: [flags, 0, 0, 0],
            object: Text::User(object),
            place: Text::User(call.arg1()),
            ..Act::new(Activity::Mount, target, call.ret)
        },
    );
}

#[inline(always)]
pub(super) fn fsopen(call: &Call) {
    let Some((_, who)) = watched() else { return };
    judge(
        &who,
        &Act {
            args: [call.arg1(), 0, 0, 0],
            object: Text::User(call.arg0()),
            ..Act::new(Activity::FsOpen, class(user_word(call.arg0())), call.ret)
        },
    );
}

#[inline(always)]
pub(super) fn move_mount(call: &Call) {
    let Some((_, who)) = watched() else { return };
    judge(
        &who,
        &Act {
            object: Text::User(call.arg1()),
            place: Text::User(call.arg3()),
            ..Act::new(
                Activity::MoveMount,
                or_own(from_directory(&who, call.arg0() as i32)),
                call.ret,
            )
        },
    );
}

#[inline(always)]
pub(super) fn open_tree(call: &Call) {
    let Some((_, who)) = watched() else { return };
    let foreign = from_directory(&who, call.arg0() as i32);
    let found = through(&who, file_mount::<Anywhere>(file_of(call.ret as i32)));
    let target = match foreign {
        Target::None => or_own(found),
        foreign => foreign,
    };
    judge(
        &who,
        &Act {
            args: [call.arg2(), 0, 0, 0],
            object: Text::User(call.arg1()),
            ..Act::new(Activity::OpenTree, target, call.ret)
        },
    );
}

#[inline(always)]
pub(super) fn pivot_root(call: &Call) {
    let Some((_, who)) = watched() else { return };
    judge(
        &who,
        &Act {
            object: Text::User(call.arg0()),
            place: Text::User(call.arg1()),
            ..Act::new(Activity::PivotRoot, Target::Own, call.ret)
        },
    );
}

#[inline(always)]
pub(super) fn chroot(call: &Call) {
    let Some((task, who)) = watched() else { return };
    let root = pointer(task, &OFF_TASK_FS).wrapping_add(u64::from(OFF_FS_ROOT.load()));
    let target = if call.ret < 0 {
        Target::Own
    } else {
        or_own(through(&who, pointer(root, &OFF_PATH_MNT)))
    };
    judge(
        &who,
        &Act {
            object: Text::User(call.arg0()),
            ..Act::new(Activity::Chroot, target, call.ret)
        },
    );
}

/// Whose a root at this mount would be.
#[inline(always)]
pub(crate) fn root_target(who: &Identity, vfsmount: u64) -> Target {
    or_own(through(who, vfsmount))
}

/// Whose tree a path begins in that is relative to a descriptor.
#[inline(always)]
fn from_directory(who: &Identity, directory: i32) -> Target {
    if directory == AT_FDCWD {
        Target::None
    } else {
        through(who, file_mount::<Anywhere>(file_of(directory)))
    }
}

/// The same, of what a tree is picked up from.
#[inline(always)]
pub(crate) fn tree_target(who: &Identity, directory: i32) -> Target {
    or_own(from_directory(who, directory))
}

#[inline(always)]
fn or_own(target: Target) -> Target {
    match target {
        Target::None => Target::Own,
        foreign => foreign,
    }
}

/// chdir and fchdir: only where it led out.
#[inline(always)]
pub(super) fn chdir(call: &Call) {
    if call.ret < 0 {
        return;
    }
    let Some((task, who)) = watched() else { return };
    working_directory(task, &who);
}

/// Judges a working directory that lies in another mount namespace.
#[inline(always)]
pub(super) fn working_directory(task: u64, who: &Identity) {
    let pwd = pointer(task, &OFF_TASK_FS).wrapping_add(u64::from(OFF_FS_PWD.load()));
    let target = through(who, pointer(pwd, &OFF_PATH_MNT));
    if matches!(target, Target::None) {
        return;
    }
    let dentry = pointer(pwd, &OFF_PATH_DENTRY);
    judge(
        who,
        &Act {
            object: Text::Kernel(pointer(dentry, &OFF_DENTRY_NAME)),
            ..Act::new(Activity::LeakedDir, target, 0)
        },
    );
}

/// The `vfsmount` that a file was opened through.
#[inline(always)]
pub(super) fn file_mount<R: Reader>(file: u64) -> u64 {
    R::pointer(
        file.wrapping_add(u64::from(OFF_FILE_PATH.load())),
        &OFF_PATH_MNT,
    )
}

/// Whose mount namespace a mount is in: `None` where it is the task's own, or none at all
/// (a pipe, a memfd, a tree that is not attached).
#[inline(always)]
pub(super) fn through(who: &Identity, vfsmount: u64) -> Target {
    if vfsmount == 0 {
        return Target::None;
    }
    let mount = vfsmount.wrapping_sub(u64::from(OFF_MOUNT_MNT.load()));
    let namespace = pointer(mount, &OFF_MOUNT_NS);
    let own = task::own_mount_namespace();
    if namespace == own || namespace == 0 || namespace >= ERRORS {
        return Target::None;
    }
    let inum: u32 = field(namespace, &OFF_MNT_NS_INUM);
    if inum == 0 || inum == MNT_NS_ANON_INO {
        return Target::None;
    }
    let Some(state) = STATE.get(0) else {
        return Target::None;
    };
    match whose(state, who.slot, NsType::Mnt.index(), inum) {
        Target::Own => Target::None,
        other => other,
    }
}

/// File systems that are of memory, or show what is the container's own.
const NEW: [u128; 12] = [
    word(b"proc"),
    word(b"sysfs"),
    word(b"tmpfs"),
    word(b"ramfs"),
    word(b"devpts"),
    word(b"mqueue"),
    word(b"hugetlbfs"),
    word(b"overlay"),
    word(b"fuse"),
    word(b"fusectl"),
    word(b"cgroup2"),
    word(b"rootfs"),
];

/// Those that show the kernel's inside, or another machine's files.
const INSIDE: [u128; 14] = [
    word(b"cgroup"),
    word(b"debugfs"),
    word(b"tracefs"),
    word(b"securityfs"),
    word(b"bpf"),
    word(b"configfs"),
    word(b"pstore"),
    word(b"efivarfs"),
    word(b"devtmpfs"),
    word(b"binfmt_misc"),
    word(b"nfs"),
    word(b"nfs4"),
    word(b"cifs"),
    word(b"9p"),
];

/// What a mount of this type and flags would show.
#[inline(always)]
pub(crate) fn class_of_call(name: u128, flags: u64) -> Target {
    if flags & CHANGES == 0 {
        class(name)
    } else {
        Target::Own
    }
}

/// What a file system of this type would show: see `mount` in the table.
#[inline(always)]
fn class(name: u128) -> Target {
    for index in 0..NEW.len() {
        if name == NEW[index] {
            return Target::New;
        }
    }
    for index in 0..INSIDE.len() {
        if name == INSIDE[index] {
            return Target::Unknown;
        }
    }
    if name == 0 {
        Target::Unknown
    } else {
        Target::Host
    }
}
