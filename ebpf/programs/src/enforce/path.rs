//! What is done to files, by their paths: asked before each act, whatever it goes by.
//!
//! A path is what its names say from the root of the task's mount namespace, not from the task's
//! own root: who changes that changes nothing here. What would make another path lead to the
//! same file (a mount, a hard link, a renamed directory) is refused by user space's table of
//! activities and by the two hooks below that have a second name.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use paddock_abi::{
    path::{OPERATIONS, PathNode, PathRoot, operation},
    policy::{ACTION_ALLOW, ACTION_AUDIT, ACTION_KILL, action},
    record::{PathDenial, kind},
};

use super::{Bound, EPERM, SIGKILL, bound, count, own_action};
use crate::{
    admit::asking_is_told,
    count::{tell, write_header},
    names::{Names, Top},
    offsets::*,
    once::{Runs, once},
    read::{Reader, Typed},
    selftest, task,
};
use aya_ebpf::helpers::generated::bpf_send_signal;
use paddock_abi::counters::Ring;

/// In a file's flags and mode.
const FMODE_EXEC: u32 = 0x20;
const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
/// Both names change their places.
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/fs.h>
const RENAME_EXCHANGE: u32 = 2;

/// A path that somebody does something to: the mount it is found in, and its last name.
#[derive(Clone, Copy)]
struct Place {
    mount: u64,
    dentry: u64,
}

/// What is said of a path: numbers that were copied, so that one is to the verifier as another.
#[derive(Clone, Copy)]
struct Said {
    cells: [u16; OPERATIONS],
    /// Of what is below it, where the node is the path's own.
    within: u16,
    lengths: u64,
}

/// The strictest of what was asked, and for which operation.
#[derive(Clone, Copy)]
struct Strictest {
    cell: u16,
    operation: u32,
}

#[lsm(hook = "path_chmod")]
fn lsm_path_chmod(ctx: LsmContext) -> i32 {
    if selftest::on() {
        let mode = ctx.arg::<u32>(1) & 0o7777;
        selftest::observe(selftest::PATHS, task::current(), i64::from(mode));
        return 0;
    }
    at_path(ctx.arg(0), operation::WRITE)
}

#[lsm(hook = "path_chown")]
fn lsm_path_chown(ctx: LsmContext) -> i32 {
    at_path(ctx.arg(0), operation::WRITE)
}

#[lsm(hook = "path_truncate")]
fn lsm_path_truncate(ctx: LsmContext) -> i32 {
    at_path(ctx.arg(0), operation::WRITE)
}

#[lsm(hook = "path_mknod")]
fn lsm_path_mknod(ctx: LsmContext) -> i32 {
    at_name(ctx.arg(0), ctx.arg(1), operation::CREATE)
}

#[lsm(hook = "path_mkdir")]
fn lsm_path_mkdir(ctx: LsmContext) -> i32 {
    at_name(ctx.arg(0), ctx.arg(1), operation::CREATE)
}

#[lsm(hook = "path_symlink")]
fn lsm_path_symlink(ctx: LsmContext) -> i32 {
    at_name(ctx.arg(0), ctx.arg(1), operation::CREATE)
}

#[lsm(hook = "path_unlink")]
fn lsm_path_unlink(ctx: LsmContext) -> i32 {
    at_name(ctx.arg(0), ctx.arg(1), operation::REMOVE)
}

#[lsm(hook = "path_rmdir")]
fn lsm_path_rmdir(ctx: LsmContext) -> i32 {
    at_name(ctx.arg(0), ctx.arg(1), operation::REMOVE)
}

/// A second name for a file, on the same mount.
#[lsm(hook = "path_link")]
fn lsm_path_link(ctx: LsmContext) -> i32 {
    let Some(bound) = bound_by_path() else {
        return 0;
    };
    let to = in_directory(ctx.arg(1), ctx.arg(2));
    let from = Place {
        mount: to.mount,
        dentry: ctx.arg(0),
    };
    let Some(names) = Names::here() else { return 0 };
    let old = bound.said(names, from);
    let new = bound.said(names, to);
    let mut found = Strictest::NOTHING;
    found.take_lost_by_moving(&old, &new);
    found.take(&new, operation::CREATE);
    bound.answer_path(found, names)
}

#[lsm(hook = "path_rename")]
fn lsm_path_rename(ctx: LsmContext) -> i32 {
    let Some(bound) = bound_by_path() else {
        return 0;
    };
    let from = in_directory(ctx.arg(0), ctx.arg(1));
    let to = in_directory(ctx.arg(2), ctx.arg(3));
    let Some(names) = Names::here() else { return 0 };
    let new = bound.said(names, to);
    let old = bound.said(names, from);
    let mut found = Strictest::NOTHING;
    found.take_moved(&old, &new);
    // Before 6.0 it is asked twice, and this is what was answered before: 0.
    if ctx.arg::<u32>(4) & RENAME_EXCHANGE != 0 {
        found.take_moved(&new, &old);
    } else if Typed::pointer(to.dentry, &OFF_DENTRY_INODE) != 0 {
        found.take(&new, operation::REMOVE);
    }
    bound.answer_path(found, names)
}

/// An open file of the hook of opens.
#[inline(always)]
pub(super) fn opened(bound: &Bound, file: u64) -> i32 {
    if bound.paths().any == 0 {
        return 0;
    }
    let place = place(file.wrapping_add(u64::from(OFF_FILE_PATH.load())));
    // A layer's file that overlayfs opens for one of its own, which has been asked about: before
    // 6.5 by that one's path, since then by a path in a mount that is nobody's.
    if Typed::pointer(file, &OFF_FILE_INODE) != Typed::pointer(place.dentry, &OFF_DENTRY_INODE) {
        return 0;
    }
    let Some(names) = Names::here() else { return 0 };
    let said = bound.said(names, place);
    let mut found = Strictest::NOTHING;
    if Typed::field::<u32>(file, &OFF_FILE_FLAGS) & FMODE_EXEC != 0 {
        found.take(&said, operation::EXEC);
    } else {
        let mode: u32 = Typed::field(file, &OFF_FILE_MODE);
        if mode & FMODE_READ != 0 {
            found.take(&said, operation::READ);
        }
        if mode & FMODE_WRITE != 0 {
            found.take(&said, operation::WRITE);
        }
    }
    bound.answer_path(found, names)
}

#[inline(always)]
fn bound_by_path() -> Option<Bound> {
    let bound = bound()?;
    if bound.paths().any == 0 {
        return None;
    }
    Some(bound)
}

#[inline(always)]
fn at_path(path: u64, operation: usize) -> i32 {
    let Some(bound) = bound_by_path() else {
        return 0;
    };
    bound.judge_path(place(path), operation)
}

#[inline(always)]
fn at_name(directory: u64, dentry: u64, operation: usize) -> i32 {
    let Some(bound) = bound_by_path() else {
        return 0;
    };
    bound.judge_path(in_directory(directory, dentry), operation)
}

#[inline(always)]
fn place(path: u64) -> Place {
    Place {
        mount: Typed::pointer(path, &OFF_PATH_MNT),
        dentry: Typed::pointer(path, &OFF_PATH_DENTRY),
    }
}

#[inline(always)]
fn in_directory(directory: u64, dentry: u64) -> Place {
    Place {
        mount: Typed::pointer(directory, &OFF_PATH_MNT),
        dentry,
    }
}

impl Strictest {
    const NOTHING: Self = Self {
        cell: 0,
        operation: 0,
    };

    #[inline(always)]
    fn take_cell(&mut self, cell: u16, operation: usize) {
        if action(cell) > action(self.cell) {
            self.cell = cell;
            self.operation = operation as u32;
        }
    }

    #[inline(always)]
    fn take(&mut self, said: &Said, operation: usize) {
        self.take_cell(said.cells[operation], operation);
    }

    /// What may be done to it at its new name and not at its old one.
    #[inline(always)]
    fn take_lost_by_moving(&mut self, old: &Said, new: &Said) {
        for operation in 0..OPERATIONS {
            let cell = old.cells[operation];
            if action(cell) > action(new.cells[operation]) {
                self.take_cell(cell, operation);
            }
        }
    }

    /// Its old name is gone, and a directory's takes all below it along.
    #[inline(always)]
    fn take_moved(&mut self, old: &Said, new: &Said) {
        self.take_lost_by_moving(old, new);
        self.take(old, operation::REMOVE);
        self.take(new, operation::CREATE);
        // Out of the reach of rules below it.
        self.take_cell(old.within, operation::REMOVE);
        // Into that of rules below its new name, which may allow what is denied where it was.
        if new.lengths != 0 {
            for operation in 0..OPERATIONS {
                self.take(old, operation);
            }
        }
    }
}

impl Said {
    /// User space may write a node meanwhile, while nobody is bound to it.
    #[inline(always)]
    fn of(node: *const PathNode, whole: bool) -> Self {
        // SAFETY: a live element of a map.
        let node = unsafe { node.read_volatile() };
        Self {
            cells: node.cells,
            within: if whole { node.within } else { 0 },
            lengths: if whole { node.lengths } else { 0 },
        }
    }
}

impl Bound {
    #[inline(always)]
    fn paths(&self) -> &PathRoot {
        &self.answers.paths
    }

    #[inline(always)]
    fn judge_path(&self, place: Place, operation: usize) -> i32 {
        let Some(names) = Names::here() else { return 0 };
        let said = self.said(names, place);
        let mut found = Strictest::NOTHING;
        found.take(&said, operation);
        self.answer_path(found, names)
    }

    #[inline(always)]
    fn said(&self, names: Names, place: Place) -> Said {
        let said = self.said_once(names, place);
        if names.untouched() {
            return said;
        }
        let said = self.said_once(names, place);
        if names.untouched() {
            return said;
        }
        Said::of(&raw const self.paths().lost, false)
    }

    #[inline(always)]
    fn said_once(&self, names: Names, place: Place) -> Said {
        let paths = self.paths();
        let (node, whole) = match names.climb::<Typed>(place.mount, place.dentry) {
            Top::Root => names.walk(self.ruleset, &raw const paths.node),
            Top::Nameless => (&raw const paths.nothing, false),
            Top::Lost => (&raw const paths.lost, false),
        };
        Said::of(node, whole)
    }

    #[inline(always)]
    fn answer_path(&self, found: Strictest, names: Names) -> i32 {
        let action = own_action(found.cell);
        if action == ACTION_ALLOW {
            return 0;
        }
        let passes = action == ACTION_AUDIT;
        // While two generations of programs are here both are asked.
        if !passes || once(Runs::NewestFirst) {
            self.tell_path(found, action, names);
        }
        if passes {
            return 0;
        }
        if action == ACTION_KILL {
            // SAFETY: the helper has no preconditions. Where it fails the act does, too.
            unsafe { bpf_send_signal(SIGKILL) };
        }
        EPERM
    }

    #[inline(always)]
    fn tell_path(&self, found: Strictest, action: u16, names: Names) {
        let key = self.hit(found.cell, action);
        count(key);
        if !asking_is_told(self.who.slot, names.last()) {
            return;
        }
        tell(
            Ring::Critical,
            self.who.slot,
            #[inline(always)]
            |record: *mut PathDenial| {
                // SAFETY: reserved memory of this record's size; each field is written, the text
                // up to its NUL.
                unsafe {
                    write_header(
                        &raw mut (*record).header,
                        kind::PATH_DENIAL,
                        self.who.slot,
                        &self.who,
                    );
                    (&raw mut (*record).ruleset).write(key.ruleset);
                    (&raw mut (*record).rule).write(key.rule);
                    (&raw mut (*record).action).write(key.action);
                    (&raw mut (*record).operation).write(found.operation);
                    let path = (&raw mut (*record).path).cast::<u8>();
                    path.write(0);
                    if names.untouched() {
                        names.write(path);
                    }
                }
            },
        );
    }
}
