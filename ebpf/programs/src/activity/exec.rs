//! Programs started: where they come from, and what the process gained by it.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, fentry, kprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};
use paddock_abi::{
    activity::Activity,
    namespace::{NsType, Target},
};

use super::{
    Act, Text, judge,
    mount::{file_mount, through, working_directory},
    watched,
};
use crate::{
    maps::{BEFORE_EXEC, SLOT_CONFIG, STATE},
    offsets::*,
    read::{Anywhere, field, pointer},
    task::{Identity, namespaces},
};

const TMPFS_MAGIC: u64 = 0x0102_1994;
const S_ISUID: u32 = 0o4000;

/// After an exec. `from_setup`: the last step of a runtime's set-up, where only what it brings
/// in from outside matters.
#[inline(always)]
pub(crate) fn executed(task: u64, who: &Identity, binprm: u64, from_setup: bool) {
    let file = pointer(binprm, &OFF_BINPRM_FILE);
    let inode = pointer(file, &OFF_FILE_INODE);
    if in_host_mounts(task) {
        // Its program and directory are the host's by configuration, or it is still on its way in.
        if from_setup {
            return;
        }
    } else {
        working_directory(task, who);
        let foreign = through(who, file_mount::<Anywhere>(file));
        if !matches!(foreign, Target::None) {
            told(who, Activity::LeakedExec, foreign, file, [0; 2]);
        }
    }
    if from_setup {
        return;
    }
    if let Some(activity) = origin(who, inode) {
        told(who, activity, Target::Own, file, [0; 2]);
    }
    let cred = pointer(task, &OFF_TASK_REAL_CRED);
    gained(who, cred, file);
    let uid: u32 = field(cred, &OFF_CRED_UID);
    let effective: u32 = field(cred, &OFF_CRED_EUID);
    let mode = u32::from(field::<u16>(inode, &OFF_INODE_MODE));
    if mode & S_ISUID != 0 && uid != effective {
        let ids = [u64::from(uid), u64::from(effective)];
        told(who, Activity::SetuidExec, Target::Own, file, ids);
    }
}

/// Whether a program is none of those that were there when the container started.
#[inline(always)]
fn origin(who: &Identity, inode: u64) -> Option<Activity> {
    let started = SLOT_CONFIG
        .get(who.slot)
        .map_or(0, |config| config.started_at_ns);
    let linked: u32 = field(inode, &OFF_INODE_NLINK);
    let magic: u64 = field(pointer(inode, &OFF_INODE_SB), &OFF_SB_MAGIC);
    if linked == 0 && magic == TMPFS_MAGIC {
        Some(Activity::MemfdExec)
    } else if started != 0 && changed_at(inode) >= started {
        Some(Activity::Drift)
    } else {
        None
    }
}

/// What a program that is about to start is.
#[inline(always)]
pub(crate) fn about_to_start(who: &Identity, task: u64, binprm: u64) -> Option<(Activity, Target)> {
    let file = pointer(binprm, &OFF_BINPRM_FILE);
    if !in_host_mounts(task) {
        let foreign = through(who, file_mount::<Anywhere>(file));
        if !matches!(foreign, Target::None) {
            return Some((Activity::LeakedExec, foreign));
        }
    }
    origin(who, pointer(file, &OFF_FILE_INODE)).map(|activity| (activity, Target::Own))
}

/// Capabilities that the process had not before; its thread is the one that execs.
#[inline(always)]
fn gained(who: &Identity, cred: u64, file: u64) {
    let thread = bpf_get_current_pid_tgid() as u32;
    // SAFETY: copied at once; only this thread writes its entry.
    let Some(before) = (unsafe { BEFORE_EXEC.get(thread) }).copied() else {
        return;
    };
    let _ = BEFORE_EXEC.remove(thread);
    let now: u64 = field(cred, &OFF_CRED_PERMITTED);
    if now & !before != 0 {
        told(
            who,
            Activity::CapabilityGain,
            Target::Own,
            file,
            [before, now],
        );
    }
}

/// What is permitted before an exec, for `gained`.
#[inline(always)]
fn prepare() {
    let Some((task, _)) = watched() else { return };
    let permitted: u64 = field(pointer(task, &OFF_TASK_REAL_CRED), &OFF_CRED_PERMITTED);
    let _ = BEFORE_EXEC.insert(bpf_get_current_pid_tgid() as u32, permitted, 0);
}

/// Beside the others, as in `process`: remembered twice is remembered.
#[kprobe]
fn kprobe_begin_new_exec(_ctx: ProbeContext) -> u32 {
    prepare();
    0
}

#[fentry]
fn fentry_begin_new_exec(_ctx: FEntryContext) -> i32 {
    prepare();
    0
}

#[btf_tracepoint(function = "sched_prepare_exec")]
fn btf_sched_prepare_exec(_ctx: BtfTracePointContext) -> i32 {
    prepare();
    0
}

/// Nanoseconds since the epoch; unlike the time of writing nobody can set it.
#[inline(always)]
fn changed_at(inode: u64) -> u64 {
    // The uppermost bit says that somebody asked, since Linux 6.13:
    // <https://github.com/torvalds/linux/blob/v6.18/include/linux/fs.h> `I_CTIME_QUERIED`
    let nanoseconds = field::<u32>(inode, &OFF_INODE_CTIME_NSEC) & 0x7fff_ffff;
    field::<u64>(inode, &OFF_INODE_CTIME)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(u64::from(nanoseconds))
}

#[inline(always)]
fn in_host_mounts(task: u64) -> bool {
    let index = NsType::Mnt.index();
    STATE
        .get(0)
        .is_none_or(|state| namespaces(task)[index] == state.host[index])
}

#[inline(always)]
fn told(who: &Identity, activity: Activity, target: Target, file: u64, args: [u64; 2]) {
    let dentry = pointer(
        file.wrapping_add(u64::from(OFF_FILE_PATH.load())),
        &OFF_PATH_DENTRY,
    );
    let directory = pointer(dentry, &OFF_DENTRY_PARENT);
    judge(
        who,
        &Act {
            args: [args[0], args[1], 0, 0],
            object: Text::Kernel(pointer(dentry, &OFF_DENTRY_NAME)),
            place: Text::Kernel(pointer(directory, &OFF_DENTRY_NAME)),
            ..Act::new(activity, target, 0)
        },
    );
}
