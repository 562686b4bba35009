//! What a container's processes do that concerns its walls, and the one table that judges it.
//!
//! The kernel half looks verdicts up here, the agent names and counts by it, and
//! docs/verdicts.md is printed from it. Processes in set-up are not judged at all.

use crate::{counters::EscapeKind, namespace::Target};

/// What an activity amounts to.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// What programs do.
    Benign = 0,
    /// Nothing was reached outside, but the way there may begin so.
    Notable = 1,
    /// Reached for what is not the container's, in vain or not wholly.
    EscapeAttempt = 2,
    /// Has hold of what is not the container's.
    Escape = 3,
}

pub const VERDICTS: usize = 4;

impl Verdict {
    pub const ALL: [Self; VERDICTS] = [
        Self::Benign,
        Self::Notable,
        Self::EscapeAttempt,
        Self::Escape,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Benign => "benign",
            Self::Notable => "notable",
            Self::EscapeAttempt => "escape_attempt",
            Self::Escape => "escape",
        }
    }
}

/// Verdicts of a success and of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub done: Verdict,
    pub failed: Verdict,
}

/// An activity's line of the table: a pair by whose the target is.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub activity: Activity,
    pub name: &'static str,
    /// What its escapes count as.
    pub escape: EscapeKind,
    pub own: Pair,
    pub peer: Pair,
    pub host: Pair,
    pub new: Pair,
    pub unknown: Pair,
    /// What it is, for the docs.
    pub what: &'static str,
}

const fn pair(done: Verdict, failed: Verdict) -> Pair {
    Pair { done, failed }
}

const BENIGN: Pair = pair(Verdict::Benign, Verdict::Benign);
const NOTABLE: Pair = pair(Verdict::Notable, Verdict::Notable);
/// Done only on the way to something else.
const REACHING: Pair = pair(Verdict::EscapeAttempt, Verdict::Notable);
const ESCAPE: Pair = pair(Verdict::Escape, Verdict::EscapeAttempt);

/// Where columns say nothing else: one's own is harmless, another's is an escape.
const fn row(
    activity: Activity,
    name: &'static str,
    escape: EscapeKind,
    what: &'static str,
) -> Row {
    Row {
        activity,
        name,
        escape,
        own: BENIGN,
        peer: ESCAPE,
        host: ESCAPE,
        new: BENIGN,
        unknown: NOTABLE,
        what,
    }
}

impl Row {
    const fn with_own(mut self, own: Pair) -> Self {
        self.own = own;
        self
    }

    const fn with_others(mut self, others: Pair) -> Self {
        self.peer = others;
        self.host = others;
        self
    }

    const fn with_new(mut self, new: Pair) -> Self {
        self.new = new;
        self
    }

    const fn with_unknown(mut self, unknown: Pair) -> Self {
        self.unknown = unknown;
        self
    }

    /// The pair of a target.
    #[must_use]
    pub const fn pair(&self, target: Target) -> Pair {
        match target {
            Target::Own => self.own,
            Target::Peer => self.peer,
            Target::Host => self.host,
            Target::New => self.new,
            Target::None | Target::Unknown => self.unknown,
        }
    }
}

macro_rules! activities {
    ($($variant:ident $name:literal $escape:ident $what:literal $(.$column:ident($pair:expr))*;)*) => {
        /// See [`TABLE`].
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Activity {
            $($variant,)*
        }

        impl Activity {
            /// Every activity, in the table's order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
        }

        /// One row for each activity, in the order of the enum.
        pub const TABLE: &[Row] = &[
            $(row(Activity::$variant, $name, EscapeKind::$escape, $what)$(.$column($pair))*,)*
        ];
    };
}

activities! {
    Setns "setns" HostNamespace "joining a namespace, by an nsfs file or a pidfd"
        .with_unknown(BENIGN);
    Unshare "unshare" HostNamespace "leaving namespaces for new ones";
    Clone "clone" HostNamespace "a child in new namespaces";
    Userns "userns" HostNamespace "a user namespace made: every capability, inside of it"
        .with_new(NOTABLE);
    IdMap "id_map" Process "uid_map or gid_map of a process opened for writing";
    Mount "mount" Filesystem "mount(2): own is a bind or a change of flags, new a file system of memory or of the kernel's that holds no other's data, unknown one that shows the kernel's inside (cgroup, debugfs), host one that lies on a device";
    MoveMount "move_mount" Filesystem "a detached mount put into the tree";
    OpenTree "open_tree" Filesystem "a mount picked up; whose it is tells the directory it was found from";
    FsOpen "fsopen" Filesystem "a file system about to be configured; classes as with mount"
        .with_others(REACHING);
    PivotRoot "pivot_root" Filesystem "another root for the mount namespace";
    Chroot "chroot" Filesystem "another root for the process";
    ForeignFile "foreign_file" Filesystem "a file opened through another mount namespace, by /proc/PID/root, /proc/PID/fd or a descriptor that leaked";
    OpenByHandle "open_by_handle" Filesystem "open_by_handle_at(2): any file of a file system, also outside of what is mounted of it"
        .with_own(REACHING);
    BlockDevice "block_device" Filesystem "a block device opened that the container was not given";
    Mknod "mknod" Filesystem "a device node made; own are null, zero, full, random, urandom, tty, and overlay's whiteout"
        .with_others(REACHING);
    Ptrace "ptrace" Process "ptrace(2) attach or seize";
    ProcessVm "process_vm" Process "process_vm_readv and process_vm_writev";
    PidfdGetfd "pidfd_getfd" Process "a descriptor taken out of a process";
    Signal "signal" Process "a signal that another process is sent";
    ProcMem "proc_mem" Process "/proc/PID/mem opened";
    ProcNs "proc_ns" HostNamespace "a namespace's file opened: what setns would join"
        .with_others(NOTABLE);
    CgroupLimit "cgroup_limit" Cgroup "a cgroup's file opened for writing";
    ReleaseAgent "release_agent" Cgroup "release_agent opened for writing: the kernel runs what it names, as the host's root";
    NotifyOnRelease "notify_on_release" Cgroup "notify_on_release opened for writing: what starts a release agent"
        .with_own(NOTABLE).with_others(NOTABLE);
    CgroupLeave "cgroup_leave" Cgroup "a process that the container moves to another cgroup, or lets be born there: own is its own or below; it stays the container's";
    Bpf "bpf" Kernel "bpf(2) that makes a map or program; host are programs that see the whole machine"
        .with_own(NOTABLE);
    Module "module" Kernel "a kernel module loaded or removed";
    Kexec "kexec" Kernel "another kernel loaded";
    PerfEvent "perf_event" Kernel "perf_event_open(2); host is a whole CPU or another's process"
        .with_others(REACHING);
    IoUring "io_uring" Kernel "io_uring_setup(2): its operations pass by hooks on system calls"
        .with_own(NOTABLE);
    Keyctl "keyctl" Kernel "keys: no namespace holds them apart but a user namespace"
        .with_own(NOTABLE);
    Userfaultfd "userfaultfd" Kernel "userfaultfd(2): a way to hold the kernel still"
        .with_own(NOTABLE);
    CorePattern "core_pattern" Kernel "core_pattern opened for writing: the kernel runs what it names";
    ModprobePath "modprobe_path" Kernel "modprobe's path opened for writing: the kernel runs what it names";
    UeventHelper "uevent_helper" Kernel "uevent_helper opened for writing: the kernel runs what it names";
    Sysrq "sysrq" Kernel "sysrq-trigger opened for writing";
    BinfmtMisc "binfmt_misc" Kernel "binfmt_misc's files opened for writing: whose programs run through a chosen one";
    Debugfs "debugfs" Kernel "a file of debugfs or tracefs opened"
        .with_others(REACHING);
    RawMemory "raw_memory" Kernel "/dev/mem, kmem, port or /proc/kcore opened, ioperm and iopl";
    RuntimeSocket "runtime_socket" Runtime "a container runtime's socket connected to: whoever talks to it is the host's root";
    RuntimeExe "runtime_exe" Runtime "a container runtime's own program opened for writing (CVE-2019-5736)";
    LeakedDir "leaked_dir" Runtime "a working directory in another mount namespace (CVE-2024-21626)";
    LeakedExec "leaked_exec" Runtime "a program started from another mount namespace";
    Drift "drift" Runtime "a program started that was written or changed since the container started"
        .with_own(NOTABLE);
    MemfdExec "memfd_exec" Runtime "a program started that has no file"
        .with_own(NOTABLE);
    SetuidExec "setuid_exec" Process "another user by a set-user-ID program"
        .with_own(NOTABLE);
    CapabilityGain "capability_gain" Process "capabilities gained by starting a program"
        .with_own(NOTABLE);
    Tunable "tunable" Kernel "a file below /proc/sys, /sys/kernel or /sys/module opened for writing; own is what the container's namespaces hold of /proc/sys"
        .with_others(NOTABLE);
}

pub const ACTIVITIES: usize = TABLE.len();

impl Activity {
    #[must_use]
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }
}

/// The table as the kernel half looks it up: [`verdict_index`] to a [`Verdict`].
pub const VERDICT_CELLS: usize = 16 * 64;
pub const VERDICT_TABLE: [u8; VERDICT_CELLS] = {
    const TARGETS: [Target; 6] = Target::ALL;
    let mut cells = [0; VERDICT_CELLS];
    let mut index = 0;
    while index < ACTIVITIES {
        let mut target = 0;
        while target < TARGETS.len() {
            let pair = TABLE[index].pair(TARGETS[target]);
            cells[verdict_index(TABLE[index].activity, TARGETS[target], false)] = pair.done as u8;
            cells[verdict_index(TABLE[index].activity, TARGETS[target], true)] = pair.failed as u8;
            target += 1;
        }
        index += 1;
    }
    cells
};

/// Place in [`VERDICT_TABLE`].
#[must_use]
#[inline]
pub const fn verdict_index(activity: Activity, target: Target, failed: bool) -> usize {
    activity as usize * 16 + target as usize * 2 + failed as usize
}

const _: () = assert!(ACTIVITIES <= 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_enum() {
        for (index, activity) in Activity::ALL.iter().enumerate() {
            assert_eq!(*activity as usize, index);
            assert_eq!(TABLE[index].activity, *activity);
        }
    }

    #[test]
    fn a_failure_is_never_judged_harder_than_a_success() {
        for row in TABLE {
            for pair in [row.own, row.peer, row.host, row.new, row.unknown] {
                assert!(pair.failed <= pair.done, "{}", row.name);
            }
        }
    }

    #[test]
    fn what_is_ones_own_is_no_escape() {
        for row in TABLE {
            assert!(row.own.done < Verdict::Escape, "{}", row.name);
            assert!(row.new.done < Verdict::EscapeAttempt, "{}", row.name);
        }
    }
}
