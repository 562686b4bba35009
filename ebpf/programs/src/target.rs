//! What the descriptor given to setns stands for: an nsfs file or a pidfd.
//!
//! Read before the call, so that failed calls have a target too. A thread that swaps the
//! descriptor meanwhile can only blur a failed call: a success is judged by what it changed.

use paddock_abi::namespace::{NS_TYPES, mask_of_flags};

use crate::{
    maps::STATE,
    offsets::*,
    read::{Anywhere, Reader, Typed, at, field, pointer},
    task::{self, namespaces, task_of_pid},
};

/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/magic.h>
const NSFS_MAGIC: u64 = 0x6e73_6673;
const PIDFS_MAGIC: u64 = 0x5049_4446;

/// What a descriptor resolved to.
pub(crate) struct Resolved {
    /// Types that the call asks for; 0 when it is neither kind of descriptor.
    pub(crate) mask: u32,
    pub(crate) inums: [u32; NS_TYPES],
    pub(crate) file_ops: u64,
    pub(crate) magic: u64,
}

/// Resolves descriptor `fd` of the current task; `flags` as given to setns.
#[inline(always)]
pub(crate) fn resolve(fd: i32, flags: u64) -> Resolved {
    resolve_file(file_of(fd), flags)
}

/// The same of another task that stays where it is meanwhile.
#[inline(always)]
pub(crate) fn resolve_of(task: u64, fd: i32, flags: u64) -> Resolved {
    resolve_file(file_by::<Anywhere>(task, fd), flags)
}

#[inline(always)]
fn resolve_file(file: u64, flags: u64) -> Resolved {
    let mut found = Resolved {
        mask: 0,
        inums: [0; NS_TYPES],
        file_ops: 0,
        magic: 0,
    };
    if file == 0 {
        return found;
    }
    let inode = pointer(file, &OFF_FILE_INODE);
    found.file_ops = pointer(file, &OFF_FILE_OP);
    found.magic = field(pointer(inode, &OFF_INODE_SB), &OFF_SB_MAGIC);
    let pidfd_fops = STATE.get(0).map_or(0, |state| state.pidfd_fops);
    if found.magic == NSFS_MAGIC {
        let ns = pointer(inode, &OFF_INODE_PRIVATE);
        let kind: u32 = if HAS_NS_COMMON_TYPE.load() == 0 {
            field(pointer(ns, &OFF_NS_COMMON_OPS), &OFF_NS_OPERATIONS_TYPE)
        } else {
            field(ns, &OFF_NS_COMMON_TYPE)
        };
        found.mask = mask_of_flags(u64::from(kind));
        let inum: u32 = field(ns, &OFF_NS_COMMON_INUM);
        for index in 0..NS_TYPES {
            if found.mask & (1 << index) != 0 {
                found.inums[index] = inum;
            }
        }
    } else if found.magic == PIDFS_MAGIC {
        of_pid(pointer(inode, &OFF_INODE_PRIVATE), flags, &mut found);
    } else if pidfd_fops != 0 && found.file_ops == pidfd_fops {
        of_pid(pointer(file, &OFF_FILE_PRIVATE_DATA), flags, &mut found);
    }
    found
}

/// The file of a descriptor of the current task.
#[inline(always)]
pub(crate) fn file_of(fd: i32) -> u64 {
    if HAS_TYPED_TASK.load() == 0 {
        file_by::<Anywhere>(task::current(), fd)
    } else {
        file_by::<Typed>(task::current_typed(), fd)
    }
}

#[inline(always)]
fn file_by<R: Reader>(task: u64, fd: i32) -> u64 {
    let table = R::pointer(R::pointer(task, &OFF_TASK_FILES), &OFF_FILES_FDT);
    let max: u32 = R::field(table, &OFF_FDT_MAX_FDS);
    let fd = fd as u32;
    if fd >= max {
        return 0;
    }
    let array = R::pointer(table, &OFF_FDT_FD);
    if array == 0 {
        0
    } else {
        at(array + u64::from(fd) * 8)
    }
}

/// The `struct pid` of a pidfd's file; 0 where it is none.
#[inline(always)]
pub(crate) fn pid_of_file(file: u64) -> u64 {
    let inode = pointer(file, &OFF_FILE_INODE);
    let magic: u64 = field(pointer(inode, &OFF_INODE_SB), &OFF_SB_MAGIC);
    let pidfd_fops = STATE.get(0).map_or(0, |state| state.pidfd_fops);
    if magic == PIDFS_MAGIC {
        pointer(inode, &OFF_INODE_PRIVATE)
    } else if pidfd_fops != 0 && pointer(file, &OFF_FILE_OP) == pidfd_fops {
        pointer(file, &OFF_FILE_PRIVATE_DATA)
    } else {
        0
    }
}

/// The namespaces of a `struct pid`'s task: the first of `tasks[PIDTYPE_PID]`.
#[inline(always)]
fn of_pid(pid: u64, flags: u64, found: &mut Resolved) {
    found.mask = mask_of_flags(flags);
    let task = task_of_pid(pid);
    if task != 0 {
        found.inums = namespaces(task);
    }
}
