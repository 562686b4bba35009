//! What rides the rings. Every record starts with a [`Header`] whose `kind` tells the rest.
//!
//! Text fields are NUL-terminated by the kernel and may hold old bytes behind the NUL.

use crate::namespace::NS_TYPES;

pub const COMM_LEN: usize = 16;
pub const EXE_LEN: usize = 32;
/// [`Header::inner_uid`] of a user that the user namespace does not have.
pub const UNMAPPED: u32 = u32::MAX;
pub const PATH_LEN: usize = 256;
pub const RSS_KINDS: usize = 3;
/// A number that could not be read.
pub const UNREAD: u64 = u64::MAX;
pub const OBJECT_LEN: usize = 64;

/// [`Header::kind`].
pub mod kind {
    pub const NS_CALL: u32 = 1;
    pub const OOM: u32 = 2;
    pub const CGROUP: u32 = 3;
    pub const EXEC: u32 = 4;
    pub const EXIT: u32 = 5;
    pub const ACTIVITY: u32 = 6;
    pub const DENIAL: u32 = 7;
    pub const PEER_DENIAL: u32 = 8;
    pub const TAMPERING: u32 = 9;
    pub const CAPABILITY_DENIAL: u32 = 10;
    pub const DEVICE_DENIAL: u32 = 11;
    pub const PATH_DENIAL: u32 = 12;
}

/// Hierarchy that a cgroup id belongs to; ids of different hierarchies collide.
pub mod hierarchy {
    /// A v1 hierarchy that serves no identity.
    pub const OTHER: u32 = 0;
    pub const UNIFIED: u32 = 1;
    pub const MEMORY_V1: u32 = 2;
    pub const PIDS_V1: u32 = 3;
}

/// [`Cgroup::op`].
pub mod cgroup_op {
    pub const MKDIR: u32 = 0;
    pub const ATTACH: u32 = 1;
    pub const RMDIR: u32 = 2;
    /// `MKDIR` that took a waiting slot, the header's: what the cgroup is has to be decided.
    pub const BIRTH: u32 = 3;
}

/// Who acted, when, and whose record it is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub kind: u32,
    /// The container the record is about; 0 is none.
    pub slot: u32,
    /// `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// The actor's identity cgroup.
    pub cgroup_id: u64,
    pub cgroup_hierarchy: u32,
    pub tgid: u32,
    pub tid: u32,
    pub uid: u32,
    /// The process' id in its own pid namespace, and its parent's on the host.
    pub inner_tgid: u32,
    pub parent_tgid: u32,
    /// The user in the process' own user namespace; [`UNMAPPED`] where it has none there.
    pub inner_uid: u32,
    pub pad: u32,
    pub comm: [u8; COMM_LEN],
    /// Last part of its program's path; NULs behind it. Unlike `comm` nobody can choose it.
    pub exe: [u8; EXE_LEN],
}

/// What a policy forbids: denied, or in audit let through.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Denial {
    pub header: Header,
    /// [`crate::activity::Activity`].
    pub activity: u32,
    /// [`crate::namespace::Target`].
    pub target: u32,
    /// What decided, as in [`crate::policy::HitKey`].
    pub ruleset: u32,
    pub rule: u32,
    /// `crate::policy::ACTION_*`.
    pub action: u32,
    /// The process reached for, or 0.
    pub other_tgid: u32,
}

/// A peer that a policy forbids: denied, or in audit let through.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PeerDenial {
    pub header: Header,
    /// What decided, as in [`crate::policy::HitKey`].
    pub ruleset: u32,
    pub rule: u32,
    /// `crate::policy::ACTION_*`.
    pub action: u32,
    /// The peer's for what the container begins, else the container's own.
    pub port: u16,
    /// [`crate::network::way`].
    pub way: u8,
    /// 4 or 6.
    pub family: u8,
    /// In the order of the net, as in [`crate::network::PeerKey`].
    pub address: [u32; 4],
}

/// A capability that a policy forbids: denied, or in audit let through.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CapabilityDenial {
    pub header: Header,
    /// What decided, as in [`crate::policy::HitKey`].
    pub ruleset: u32,
    pub rule: u32,
    /// `crate::policy::ACTION_*`.
    pub action: u32,
    /// Its number.
    pub capability: u32,
}

/// A device that a policy forbids: denied, or in audit let through.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceDenial {
    pub header: Header,
    /// What decided, as in [`crate::policy::HitKey`].
    pub ruleset: u32,
    pub rule: u32,
    /// `crate::policy::ACTION_*`.
    pub action: u32,
    pub major: u32,
    pub minor: u32,
    /// [`crate::policy::device_kind`].
    pub kind: u16,
    /// A bit for each of [`crate::policy::device_access`].
    pub access: u16,
}

/// What was done to a file that a policy forbids: denied, or in audit let through.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PathDenial {
    pub header: Header,
    /// What decided, as in [`crate::policy::HitKey`].
    pub ruleset: u32,
    pub rule: u32,
    /// `crate::policy::ACTION_*`.
    pub action: u32,
    /// One of [`crate::path::operation`].
    pub operation: u32,
    /// From the mount namespace's root; of one that is longer than half of this the beginning.
    pub path: [u8; 2 * PATH_LEN],
}

/// Somebody reached for what is the kernel half's own.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Tampering {
    pub header: Header,
    /// [`crate::guard::Tampered`].
    pub what: u32,
    /// 1: refused.
    pub denied: u32,
    /// Of the map, program or link, or 0.
    pub id: u32,
    pub pad: u32,
}

/// A setns, unshare, clone or clone3 that named namespaces.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NsCall {
    pub header: Header,
    pub flags: u64,
    /// [`crate::counters::NsSyscall`].
    pub syscall: u32,
    /// setns' first argument, else -1.
    pub fd: i32,
    /// 0 or a negative errno; clone's child.
    pub ret: i32,
    /// [`crate::activity::Verdict`].
    pub verdict: u32,
    /// Types asked for, by flags or by what the descriptor is.
    pub requested: u32,
    /// Types that are different after the call.
    pub changed: u32,
    /// [`crate::namespace::Target`] by type.
    pub target: [u8; NS_TYPES],
    /// Target's inode number by type; 0 is unknown.
    pub inums: [u32; NS_TYPES],
}

/// An OOM kill. The header's actor is the trigger, its slot the victim's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Oom {
    pub header: Header,
    pub victim_cgroup_id: u64,
    pub victim_cgroup_hierarchy: u32,
    /// [`crate::counters::Constraint`].
    pub constraint: u32,
    /// Limit that was hit; 0 when none was found.
    pub limit_bytes: u64,
    /// Memory cgroup that has it, and its hierarchy.
    pub limit_cgroup_id: u64,
    pub limit_cgroup_hierarchy: u32,
    pub trigger_slot: u32,
    pub victim_tgid: u32,
    pub victim_tid: u32,
    pub victim_uid: u32,
    /// 1 when the victim's fields below `victim_tid` were read, 0 on the rung that only knows a pid.
    pub victim_known: u32,
    /// [`crate::counters::Level`].
    pub level: u32,
    /// 1 where `memory.oom.group` took it, alone or with others.
    pub group: u32,
    /// Bytes of `MM_FILEPAGES`, `MM_ANONPAGES`, `MM_SHMEMPAGES`, and of the address space;
    /// [`UNREAD`] is unknown.
    pub rss: [u64; RSS_KINDS],
    pub total_vm: u64,
    pub oom_score_adj: i32,
    pub pad: u32,
    pub victim_comm: [u8; COMM_LEN],
}

/// A cgroup born, entered or gone.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Cgroup {
    pub header: Header,
    pub op: u32,
    pub hierarchy: u32,
    pub id: u64,
    pub parent_id: u64,
    /// `attach`: who moved.
    pub moved_tgid: u32,
    pub moved_tid: u32,
    /// Within its hierarchy.
    pub path: [u8; PATH_LEN],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exec {
    pub header: Header,
    pub filename: [u8; PATH_LEN],
}

/// A process (its last thread) is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub header: Header,
    /// As wait's status word.
    pub status: i32,
    pub pad: u32,
}

/// Something of [`crate::activity::TABLE`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    pub header: Header,
    /// [`crate::activity::Activity`].
    pub activity: u32,
    /// [`crate::namespace::Target`].
    pub target: u32,
    /// [`crate::activity::Verdict`].
    pub verdict: u32,
    /// 0 or a positive result, or a negative errno.
    pub ret: i32,
    /// Flags and numbers, as each activity has them.
    pub args: [u64; 4],
    /// The process reached for, and its slot; 0 is none.
    pub other_tgid: u32,
    pub other_slot: u32,
    /// What: a file, a file system's type, a device.
    pub object: [u8; OBJECT_LEN],
    /// Where to, or what the object is found in.
    pub place: [u8; OBJECT_LEN],
}

const HEADER: usize = 72 + EXE_LEN;
const _: () = assert!(size_of::<Header>() == HEADER);
const _: () = assert!(size_of::<NsCall>() == HEADER + 8 + 24 + 8 + 32);
const _: () = assert!(size_of::<Oom>() == HEADER + 16 + 16 + 24 + 8 + 32 + 8 + 16);
const _: () = assert!(size_of::<Cgroup>() == HEADER + 8 + 16 + 8 + PATH_LEN);
const _: () = assert!(size_of::<Exec>() == HEADER + PATH_LEN);
const _: () = assert!(size_of::<Activity>() == HEADER + 16 + 32 + 8 + 2 * OBJECT_LEN);
const _: () = assert!(size_of::<PeerDenial>() == HEADER + 16 + 16);
const _: () = assert!(size_of::<CapabilityDenial>() == HEADER + 16);
const _: () = assert!(size_of::<DeviceDenial>() == HEADER + 24);
const _: () = assert!(size_of::<PathDenial>() == HEADER + 16 + 2 * PATH_LEN);
const _: () = assert!(size_of::<Tampering>() == HEADER + 16);
const _: () = assert!(size_of::<Exit>() == HEADER + 8);
