//! Keys and values of the maps that user space writes.

use crate::{
    namespace::NS_TYPES,
    record::{PATH_LEN, hierarchy},
};

/// Identity of a cgroup: kernfs ids collide between hierarchies, so the hierarchy is part of it.
///
/// One word, since every hook looks one up: hierarchy in the two topmost bits of the id, whose
/// upper half counts how often the 31 bits of the lower have run out
/// (<https://github.com/torvalds/linux/blob/v6.18/fs/kernfs/dir.c>, `__kernfs_new_node`).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CgroupKey(u64);

impl CgroupKey {
    const HIERARCHY_SHIFT: u32 = 62;

    /// `hierarchy` is one of [`crate::record::hierarchy`].
    #[must_use]
    #[inline]
    pub const fn new(hierarchy: u32, id: u64) -> Self {
        Self((hierarchy as u64) << Self::HIERARCHY_SHIFT | id)
    }

    #[must_use]
    #[inline]
    pub const fn hierarchy(self) -> u32 {
        (self.0 >> Self::HIERARCHY_SHIFT) as u32
    }

    #[must_use]
    #[inline]
    pub const fn id(self) -> u64 {
        self.0 & ((1 << Self::HIERARCHY_SHIFT) - 1)
    }
}

/// What user space says about a slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotConfig {
    /// 1 while the slot belongs to a container.
    pub in_use: u32,
    /// Namespace types that the container shares with the host by its configuration.
    pub shared_with_host: u32,
    /// When its first process was to run, nanoseconds since the epoch; 0 is unknown.
    pub started_at_ns: u64,
    /// Namespaces of others that it shares by its configuration; 0 is none of that type.
    pub joined: [u32; NS_TYPES],
}

/// Where a slot stands: whose it is yet to become, and in whose it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotPlace {
    /// One of [`slot_state`].
    pub state: u32,
    /// Slot of the container around it; 0 is none. What is counted here counts there, too.
    pub parent: u32,
}

/// [`SlotPlace::state`].
pub mod slot_state {
    /// A container's, or nobody's where [`super::SlotConfig::in_use`] is 0.
    pub const DECIDED: u32 = 0;
    /// Waits in a queue for a new cgroup.
    pub const WAITING: u32 = 1;
    /// A new cgroup's, until user space says what the cgroup is.
    pub const PROVISIONAL: u32 = 2;
}

/// Waiting slots for new cgroups outside of all containers, and for those within one: what a
/// container makes cannot use up the former.
pub const WAITING_OUTSIDE: u32 = 256;
pub const WAITING_WITHIN: u32 = 64;

/// A cgroup's path, the same in every hierarchy; NULs behind it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathKey {
    pub path: [u8; PATH_LEN],
}

/// The slot of the cgroups of a path, and in how many hierarchies there is one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathSlot {
    pub slot: u32,
    pub hierarchies: u32,
}

/// A process in set-up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetUp {
    /// Where it came into a container from outside, the mount namespace of who brought it; there a
    /// program without a name on disk, which runtimes execute themselves from, does not end it.
    /// 0: any program does.
    pub mounts: u32,
    /// 1: it may execute its own program again by name, once.
    pub once: u32,
    /// Inode number of its own program, which it may execute again by descriptor; 0 is none.
    pub own: u64,
}

/// A block device that a container was given by its configuration.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceKey {
    pub slot: u32,
    /// As the kernel keeps it: twelve bits of major, twenty of minor.
    pub device: u32,
}

/// A file of a container runtime's on the host.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    pub inode: u64,
    /// As the kernel keeps it.
    pub device: u32,
    pub pad: u32,
}

/// What a [`FileKey`] stands for.
pub mod runtime_file {
    pub const PROGRAM: u32 = 1;
    pub const SOCKET: u32 = 2;

    /// A socket that is the own one of the container of that slot, 0 of none.
    #[must_use]
    pub const fn socket_of(slot: u32) -> u32 {
        SOCKET | slot << 8
    }

    /// Whether it is a socket, and not the own one of that slot.
    #[must_use]
    #[inline]
    pub const fn is_socket_for(kind: u32, slot: u32) -> bool {
        kind & 0xff == SOCKET && kind >> 8 != slot
    }
}

/// What user space tells every hook, and the self-test's switch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The first namespace of every type.
    pub host: [u32; NS_TYPES],
    /// `file_operations` of a pidfd where pidfds are anonymous inodes (before 6.9); 0 is unknown.
    pub pidfd_fops: u64,
    /// Process under self-test, 0 is none, and the child it made.
    pub selftest_tid: u32,
    pub selftest_child: u32,
}

/// Length of the self-test's packet, headers and all.
pub const SELFTEST_PACKET: u32 = 1037;

/// What a hook read about the process under self-test.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    pub hits: u64,
    pub unified_id: u64,
    pub memory_id: u64,
    pub pids_id: u64,
    /// setns: the descriptor's `f_op`, its file system's magic, and what it stands for.
    pub file_ops: u64,
    pub magic: u64,
    pub target_inum: u32,
    pub target_mask: u32,
    pub tgid: u32,
    pub tid: u32,
    pub parent_tgid: u32,
    pub uid: u32,
    /// A cgroup's id, an exit status: what the capability is about.
    pub ret: i64,
    pub inums: [u32; NS_TYPES],
    /// Namespaces of the first task, found through the chain of parents.
    pub first: [u32; NS_TYPES],
    pub comm: [u8; 16],
}

/// A namespace call between entry and exit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    pub flags: u64,
    /// Whose the caller is: its cgroup's id and hierarchy, its slot.
    pub id: u64,
    pub hierarchy: u32,
    pub slot: u32,
    pub fd: i32,
    /// 1: set-up of a slot, neither counted nor told.
    pub exempt: u32,
    /// Types that the descriptor resolved to.
    pub resolved: u32,
    /// The ruleset that has let the call through and has nothing to say of the capability for it,
    /// 0 is none: the kernel asks several times.
    pub let_through: u32,
    /// Found at exit: types that changed, and the set of classes reached for, `1 << Target`.
    pub changed: u32,
    pub classes: u32,
    /// Types whose class is found; of the namespaces in `inums`.
    pub classed: u32,
    pub pad: u32,
    /// [`crate::namespace::Target`] by type.
    pub class: [u8; NS_TYPES],
    pub before: [u32; NS_TYPES],
    /// What the descriptor resolved to; after a success what the thread is in.
    pub inums: [u32; NS_TYPES],
}

const _: () = assert!(size_of::<CgroupKey>() == 8);
const _: () = assert!(hierarchy::PIDS_V1 < 4);
const _: () = assert!(size_of::<SlotConfig>() == 48);
const _: () = assert!(size_of::<SlotPlace>() == 8);
const _: () = assert!(size_of::<PathKey>() == PATH_LEN);
const _: () = assert!(size_of::<PathSlot>() == 8);
const _: () = assert!(size_of::<SetUp>() == 16);
const _: () = assert!(size_of::<State>() == 48);
const _: () = assert!(size_of::<Observation>() == 48 + 24 + 8 + 64 + 16);
const _: () = assert!(size_of::<InFlight>() == 128);
