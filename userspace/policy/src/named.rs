//! The rules that have a name, in one table: which activities at whose targets each forbids, and
//! a sentence for the docs, the schema and `paddock policy check`.

use paddock_abi::{
    activity::{Activity, TABLE, Verdict},
    namespace::Target,
};

/// The classes of a target that a rule can tell apart. What had no target counts as unknown.
pub const TARGETS: [Target; 5] = [
    Target::Own,
    Target::New,
    Target::Peer,
    Target::Host,
    Target::Unknown,
];

/// As files and words have it.
#[must_use]
pub const fn target_name(target: Target) -> &'static str {
    match target {
        Target::Own => "own",
        Target::New => "new",
        Target::Peer => "peer",
        Target::Host => "host",
        Target::None | Target::Unknown => "unknown",
    }
}

/// A bit for each [`Target`].
pub type Targets = u8;

#[must_use]
pub const fn bit(target: Target) -> Targets {
    match target {
        Target::None => bit(Target::Unknown),
        _ => 1 << target as u8,
    }
}

const OWN: Targets = bit(Target::Own);
const OTHERS: Targets = bit(Target::Peer) | bit(Target::Host);
const ALL: Targets = OWN | OTHERS | bit(Target::New) | bit(Target::Unknown);

/// What a named rule forbids.
#[derive(Clone, Copy, Debug)]
pub enum Acts {
    /// These activities where the target is one of these.
    Of(&'static [(Activity, Targets)]),
    /// Whatever [`TABLE`] calls an escape when it is done.
    EveryEscape,
}

/// A rule that works the moment it is named.
#[derive(Clone, Copy, Debug)]
pub struct NamedRule {
    pub name: &'static str,
    pub acts: Acts,
    /// What is forbidden.
    pub what: &'static str,
}

impl NamedRule {
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        NAMED.iter().find(|rule| rule.name == name)
    }

    /// Whether it forbids this.
    #[must_use]
    pub fn holds(&self, activity: Activity, target: Target) -> bool {
        match self.acts {
            Acts::Of(acts) => acts
                .iter()
                .any(|(act, targets)| *act == activity && targets & bit(target) != 0),
            Acts::EveryEscape => activity.row().pair(target).done == Verdict::Escape,
        }
    }

    /// Every activity and target it forbids.
    pub fn cells(&self) -> impl Iterator<Item = (Activity, Target)> {
        let of = |row: &paddock_abi::activity::Row| {
            let activity = row.activity;
            TARGETS.map(|target| (activity, target))
        };
        TABLE
            .iter()
            .flat_map(of)
            .filter(|(activity, target)| self.holds(*activity, *target))
    }
}

macro_rules! named {
    ($($name:literal $what:literal [$($activity:ident $targets:ident),*];)*) => {
        /// Every named rule but the one for all escapes, which stands last.
        pub const NAMED: &[NamedRule] = &[
            $(NamedRule {
                name: $name,
                acts: Acts::Of(&[$((Activity::$activity, $targets)),*]),
                what: $what,
            },)*
            NamedRule {
                name: "any-escape",
                acts: Acts::EveryEscape,
                what: "every act that docs/verdicts.md calls an escape, also those that get a name later",
            },
        ];
    };
}

named! {
    "namespace-escape" "joining a namespace of the host's or of another container's, or opening its file"
        [Setns OTHERS, Unshare OTHERS, Clone OTHERS, Userns OTHERS, IdMap OTHERS, ProcNs OTHERS];
    "userns-create" "making a user namespace"
        [Userns ALL];
    "mount" "every mount, the container's own too"
        [Mount ALL, MoveMount ALL, OpenTree ALL, FsOpen ALL, PivotRoot ALL];
    "mount-outside" "mounting, picking up or taking as root what is the host's or another container's"
        [Mount OTHERS, MoveMount OTHERS, OpenTree OTHERS, FsOpen OTHERS, PivotRoot OTHERS, Chroot OTHERS];
    "open-by-handle" "opening files by handle, which passes by what is mounted"
        [OpenByHandle OWN, OpenByHandle OTHERS];
    "release-agent" "writing release_agent and notify_on_release of cgroups that are not the container's"
        [ReleaseAgent OTHERS, NotifyOnRelease OTHERS];
    "cgroup-escape" "moving processes to cgroups that are not the container's, and writing those cgroups' files"
        [CgroupLeave OTHERS, CgroupLimit OTHERS];
    "core-pattern" "writing the host's core_pattern"
        [CorePattern OTHERS];
    "modprobe-path" "writing the host's path of modprobe"
        [ModprobePath OTHERS];
    "uevent-helper" "writing the host's uevent_helper"
        [UeventHelper OTHERS];
    "sysrq" "writing sysrq-trigger"
        [Sysrq OTHERS];
    "binfmt-misc" "registering binary formats on the host"
        [BinfmtMisc OTHERS];
    "kernel-tunables" "writing the host's parameters below /proc/sys, /sys/kernel and /sys/module, and every file by which the kernel is told to run a program"
        [CorePattern OTHERS, ModprobePath OTHERS, UeventHelper OTHERS, Sysrq OTHERS, BinfmtMisc OTHERS, Tunable OTHERS];
    "module-load" "loading and removing kernel modules"
        [Module OTHERS];
    "kexec" "loading another kernel"
        [Kexec OTHERS];
    "bpf" "making BPF maps and programs of any kind"
        [Bpf ALL];
    "bpf-outside" "BPF programs that see the whole machine"
        [Bpf OTHERS];
    "perf-event" "perf events of a whole CPU or of another's process"
        [PerfEvent OTHERS];
    "io-uring" "making io_uring instances"
        [IoUring ALL];
    "keyctl" "using the kernel's keys"
        [Keyctl ALL];
    "userfaultfd" "handling page faults in user space"
        [Userfaultfd ALL];
    "debugfs" "opening files of debugfs and tracefs"
        [Debugfs OTHERS];
    "raw-memory" "opening the machine's memory and ports"
        [RawMemory OTHERS];
    "ptrace-outside" "tracing, reading or taking descriptors of processes that are not the container's"
        [Ptrace OTHERS, ProcessVm OTHERS, PidfdGetfd OTHERS];
    "proc-root" "opening files through /proc/PID/root, /proc/PID/fd or a leaked descriptor, in a mount namespace that is not the container's"
        [ForeignFile OTHERS];
    "proc-mem" "opening /proc/PID/mem of processes that are not the container's"
        [ProcMem OTHERS];
    "signal-outside" "signalling processes that are not the container's"
        [Signal OTHERS];
    "host-device" "opening block devices that the container was not given"
        [BlockDevice OTHERS];
    "mknod" "making device nodes other than null, zero, full, random, urandom and tty"
        [Mknod OTHERS];
    "runtime-socket" "connecting to a container runtime's socket"
        [RuntimeSocket OTHERS];
    "runtime-exe" "opening a container runtime's program for writing"
        [RuntimeExe OTHERS];
    "leaked-descriptor" "a working directory or a program in a mount namespace that is not the container's"
        [LeakedDir OTHERS, LeakedExec OTHERS];
    "drift" "running programs that were written or changed since the container started"
        [Drift ALL];
    "fileless-exec" "running programs that have no file"
        [MemfdExec ALL];
    "setuid-exec" "becoming another user by a set-user-ID program"
        [SetuidExec ALL];
    "capability-gain" "gaining capabilities by starting a program"
        [CapabilityGain ALL];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_each_stands_once() {
        for (index, rule) in NAMED.iter().enumerate() {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(rule.name.chars().all(plain), "{}", rule.name);
            assert!(rule.cells().count() > 0, "{}", rule.name);
            assert!(!rule.what.ends_with('.'), "{}", rule.name);
            let first = NAMED.iter().position(|other| other.name == rule.name);
            assert_eq!(first, Some(index), "{}", rule.name);
        }
    }

    #[test]
    fn every_escape_has_a_name_of_its_own_or_is_in_the_last() {
        for row in TABLE {
            for target in TARGETS {
                let named = NAMED.iter().any(|rule| rule.holds(row.activity, target));
                assert!(
                    named || row.pair(target).done < Verdict::Escape,
                    "{} {target:?}",
                    row.name
                );
            }
        }
    }
}
