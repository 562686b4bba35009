//! The kernel's words for who is who.

use paddock_abi::{key, namespace::NS_TYPES, record::hierarchy};
use serde::Serialize;

/// Kernel identity of a cgroup: its kernfs id (the inode number of its directory) by hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "hierarchy", content = "id", rename_all = "snake_case")]
pub enum CgroupKey {
    Unified(u64),
    MemoryV1(u64),
    PidsV1(u64),
}

/// Small integer of a tracked container; 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Slot(pub u32);

/// Namespace inode numbers in [`paddock_abi::namespace::NsType`] order; 0 is unknown.
/// `pid` and `time` are those that children are born in.
pub type NsInums = [u32; NS_TYPES];

impl CgroupKey {
    pub(crate) fn from_parts(tag: u32, id: u64) -> Option<Self> {
        match tag {
            hierarchy::UNIFIED => Some(Self::Unified(id)),
            hierarchy::MEMORY_V1 => Some(Self::MemoryV1(id)),
            hierarchy::PIDS_V1 => Some(Self::PidsV1(id)),
            _ => None,
        }
    }

    /// The directory's inode number.
    pub fn id(self) -> u64 {
        match self {
            Self::Unified(id) | Self::MemoryV1(id) | Self::PidsV1(id) => id,
        }
    }

    pub(crate) fn to_abi(self) -> key::CgroupKey {
        let (hierarchy, id) = match self {
            Self::Unified(id) => (hierarchy::UNIFIED, id),
            Self::MemoryV1(id) => (hierarchy::MEMORY_V1, id),
            Self::PidsV1(id) => (hierarchy::PIDS_V1, id),
        };
        key::CgroupKey::new(hierarchy, id)
    }
}
