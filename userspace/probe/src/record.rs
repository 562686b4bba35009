//! Records as plain Rust values.

use std::net::IpAddr;

use paddock_abi::{
    activity::{Activity, Verdict},
    counters::{Constraint, Level, NsSyscall, Ring},
    guard::Tampered,
    namespace::{NsType, Target},
};

use crate::{CgroupKey, Slot};

/// One thing the kernel half told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub ring: Ring,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub time_ns: u64,
    /// The container the record is about (an OOM kill: the victim's); `Slot(0)` is none.
    pub slot: Slot,
    /// Who acted (an OOM kill: who triggered it).
    pub actor: Actor,
    pub body: Body,
}

/// A task as the kernel saw it; process ids of the first pid namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub tgid: u32,
    pub tid: u32,
    pub uid: u32,
    /// The process' id in its own pid namespace; 0 where it was not read.
    pub inner_tgid: u32,
    /// Its parent's process id; 0 where it was not read.
    pub parent_tgid: u32,
    /// The user in its own user namespace; `None` where it has none there, or was not read.
    pub inner_uid: Option<u32>,
    pub comm: String,
    /// Last part of its program's path; empty where it was not read.
    pub exe: String,
    /// `None` where it was not read.
    pub cgroup: Option<CgroupKey>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// setns, unshare, clone or clone3 that named namespaces; failed setns and unshare too.
    NsCall {
        syscall: NsSyscall,
        flags: u64,
        /// setns' first argument.
        fd: Option<i32>,
        /// Negative is an errno; a clone's is the child's process id.
        ret: i32,
        verdict: Verdict,
        /// One per type asked for or changed.
        targets: Vec<NamespaceTarget>,
    },
    OomKill {
        /// On the rung that only knows a pid: empty `comm`, `uid` 0, `cgroup` `None`.
        victim: Actor,
        /// Whether more than the victim's thread id was read.
        victim_known: bool,
        memory: Memory,
        /// Where the limit stands from the victim's container.
        level: Level,
        /// By `memory.oom.group`.
        group: bool,
        /// The container of the task that asked for the memory.
        trigger_slot: Slot,
        constraint: Constraint,
        /// The limit that was hit.
        limit_bytes: Option<u64>,
        limit_cgroup: Option<CgroupKey>,
    },
    Cgroup {
        op: CgroupOp,
        /// It took the record's slot, and what it is has to be decided.
        birth: bool,
        /// `None` in a v1 hierarchy that serves no identity.
        cgroup: Option<CgroupKey>,
        /// Directory's inode number, whatever the hierarchy.
        id: u64,
        parent_id: u64,
        /// Within its hierarchy; cut at 255 bytes.
        path: String,
        /// `Attach`: the task that moved (its process and thread id).
        moved: Option<(u32, u32)>,
    },
    Exec {
        /// As given to execve; cut at 255 bytes.
        filename: String,
    },
    /// See [`paddock_abi::activity::TABLE`].
    Activity {
        activity: Activity,
        target: Target,
        verdict: Verdict,
        /// Negative is an errno.
        ret: i32,
        /// Flags and numbers, as each activity has them.
        args: [u64; 4],
        /// The process reached for, and its container.
        other_tgid: Option<u32>,
        other_slot: Slot,
        /// What, and where to or in what it is found; cut at 63 bytes.
        object: String,
        place: String,
    },
    Denial(Denial),
    PathDenial(PathDenial),
    PeerDenial(PeerDenial),
    CapabilityDenial(CapabilityDenial),
    DeviceDenial(DeviceDenial),
    Tampering(Tampering),
    Exit {
        /// `None` where a signal ended it.
        code: Option<i32>,
        signal: Option<i32>,
    },
}

/// What a policy forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    pub activity: Activity,
    pub target: Target,
    pub ruleset: u32,
    pub rule: u32,
    /// `ACTION_*` of [`paddock_abi::policy`].
    pub action: u16,
    /// The process reached for.
    pub other_tgid: Option<u32>,
}

/// A peer that a policy forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerDenial {
    pub ruleset: u32,
    pub rule: u32,
    /// `ACTION_*` of [`paddock_abi::policy`].
    pub action: u16,
    /// One of [`paddock_abi::network::direction`].
    pub direction: u8,
    /// One of [`paddock_abi::network::protocol`].
    pub protocol: u8,
    pub address: IpAddr,
    /// The peer's for what the container begins, else the container's own.
    pub port: u16,
}

/// What was done to a file that a policy forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathDenial {
    pub ruleset: u32,
    pub rule: u32,
    /// `ACTION_*` of [`paddock_abi::policy`].
    pub action: u16,
    /// One of [`paddock_abi::path::operation`].
    pub operation: usize,
    /// From the mount namespace's root; of a long one the beginning.
    pub path: String,
}

/// A capability that a policy forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityDenial {
    pub ruleset: u32,
    pub rule: u32,
    /// `ACTION_*` of [`paddock_abi::policy`].
    pub action: u16,
    /// Its number.
    pub capability: u32,
}

/// A device that a policy forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceDenial {
    pub ruleset: u32,
    pub rule: u32,
    /// `ACTION_*` of [`paddock_abi::policy`].
    pub action: u16,
    /// One of [`paddock_abi::policy::device_kind`].
    pub kind: u16,
    pub major: u32,
    pub minor: u32,
    /// A bit for each of [`paddock_abi::policy::device_access`].
    pub access: u16,
}

/// Somebody reached for what is paddock's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tampering {
    pub what: Tampered,
    pub denied: bool,
    /// Of the map, program or link.
    pub id: Option<u32>,
}

/// What a victim had when it was chosen, bytes; `None` could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub rss_anon: Option<u64>,
    pub rss_file: Option<u64>,
    pub rss_shmem: Option<u64>,
    pub total_vm: Option<u64>,
    pub oom_score_adj: Option<i32>,
}

/// One namespace type in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceTarget {
    pub namespace: NsType,
    pub target: Target,
    pub inum: Option<u32>,
    /// Whether the caller is in another one after the call.
    pub changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupOp {
    Mkdir,
    Attach,
    Rmdir,
}
