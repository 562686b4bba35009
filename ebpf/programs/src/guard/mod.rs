//! Paddock's own maps, programs, links and pins are its own to touch, whoever else is root.
//!
//! Its objects are known by their ids (`GUARDED`), its pins by their file system, the agent by
//! process and beginning; besides, the program that is at the agent's place in the file system may
//! do what the agent may, on the host itself: the next agent, `paddock unload`. Both places are
//! what a call of the agent's showed here, so that no number is one of user space's.

mod objects;
mod pins;
mod process;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use paddock_abi::{
    counters::Ring,
    guard::{Shown, Tampered, mode, tamper_cell},
    namespace::NsType,
    record::{Tampering, kind},
};

use crate::{
    count::{add, tell, write_header},
    maps::{GUARD, SHOWN, STATE, TAMPERED},
    offsets::*,
    read::{field, pointer},
    task::{self, namespaces, own_identity},
    word::kernel_word,
};

const EPERM: i32 = -1;

#[inline(always)]
fn current_mode() -> u32 {
    GUARD.get(0).map_or(mode::OFF, |guard| guard.mode)
}

/// Where a program is: its name in a directory.
struct Place {
    directory: u64,
    device: u32,
    name: [u64; 2],
}

#[inline(always)]
fn place(task: u64) -> Place {
    let file = pointer(pointer(task, &OFF_TASK_MM), &OFF_MM_EXE_FILE);
    let path = file.wrapping_add(u64::from(OFF_FILE_PATH.load()));
    let dentry = pointer(path, &OFF_PATH_DENTRY);
    let name = kernel_word(pointer(dentry, &OFF_DENTRY_NAME));
    let directory = pointer(pointer(dentry, &OFF_DENTRY_PARENT), &OFF_DENTRY_INODE);
    Place {
        directory: field(directory, &OFF_INODE_NUMBER),
        device: device(directory),
        name: [name as u64, (name >> 64) as u64],
    }
}

#[inline(always)]
fn device(inode: u64) -> u32 {
    field(pointer(inode, &OFF_INODE_SB), &OFF_SB_DEV)
}

#[inline(always)]
fn start(task: u64) -> u64 {
    field(pointer(task, &OFF_TASK_GROUP_LEADER), &OFF_TASK_START)
}

/// Writes down who calls, where that is asked of it.
#[inline(always)]
fn show() {
    let pid_tgid = bpf_get_current_pid_tgid();
    let asked = GUARD.get(0).map_or(0, |guard| guard.shower);
    if asked == 0 || asked != pid_tgid as u32 {
        return;
    }
    let Some(shown) = SHOWN.get_ptr_mut(0) else {
        return;
    };
    let task = task::current();
    let place = place(task);
    let pins = pointer(task, &OFF_TASK_FS).wrapping_add(u64::from(OFF_FS_PWD.load()));
    let inode = pointer(pointer(pins, &OFF_PATH_DENTRY), &OFF_DENTRY_INODE);
    // SAFETY: a live array element, which only the thread that is asked writes.
    let shown: &mut Shown = unsafe { &mut *shown };
    shown.agent = pid_tgid >> 32;
    shown.start = start(task);
    shown.directory = place.directory;
    shown.device = place.device;
    shown.name = place.name;
    shown.pins = device(inode);
    shown.mount = pointer(pins, &OFF_PATH_MNT);
}

/// Whether a task is the agent's.
#[inline(always)]
fn is_agent(task: u64, shown: &Shown) -> bool {
    u64::from(field::<u32>(task, &OFF_TASK_TGID)) == shown.agent && start(task) == shown.start
}

/// Whether the current task may touch what is paddock's.
#[inline(always)]
fn ours(shown: &Shown) -> bool {
    let task = task::current();
    if is_agent(task, shown) {
        return true;
    }
    let place = place(task);
    if place.directory != shown.directory
        || place.device != shown.device
        || place.name[0] != shown.name[0]
        || place.name[1] != shown.name[1]
    {
        return false;
    }
    // The same program from within a container is a container's.
    let Some(state) = STATE.get(0) else {
        return false;
    };
    let inums = namespaces(task);
    let (user, pid) = (NsType::User.index(), NsType::Pid.index());
    inums[user] == state.host[user] && inums[pid] == state.host[pid] && own_identity().slot == 0
}

/// Somebody reaches for what is paddock's: what the hook returns.
#[inline(always)]
fn touched(what: Tampered, id: u32) -> i32 {
    let Some(shown) = SHOWN.get(0) else { return 0 };
    if ours(shown) {
        return 0;
    }
    let denied = current_mode() >= mode::ENFORCE;
    if let Some(cell) = TAMPERED.get_ptr_mut(tamper_cell(what, denied) as u32) {
        // SAFETY: a live element that is only written atomically.
        unsafe { add(cell, 1) };
    }
    let who = own_identity();
    tell(
        Ring::Critical,
        who.slot,
        #[inline(always)]
        |record: *mut Tampering| {
            // SAFETY: reserved memory of this record's size; each field is written.
            unsafe {
                write_header(&raw mut (*record).header, kind::TAMPERING, who.slot, &who);
                (&raw mut (*record).what).write(what as u32);
                (&raw mut (*record).denied).write(u32::from(denied));
                (&raw mut (*record).id).write(id);
                (&raw mut (*record).pad).write(0);
            }
        },
    );
    if denied { EPERM } else { 0 }
}
