//! Whose namespaces, and the id maps of a new user namespace.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Of one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    New,
    /// The launcher's own.
    Host,
    /// Another's.
    Join(Joined),
}

/// A namespace file such as `/proc/PID/ns/net`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub path: PathBuf,
    /// What it must still be when it is opened: a process id may be another process' by then.
    pub inode: Option<u32>,
}

/// The mount namespace is always new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    pub cgroup: Namespace,
    pub ipc: Namespace,
    pub net: Namespace,
    pub pid: Namespace,
    pub time: Namespace,
    pub user: Namespace,
    pub uts: Namespace,
}

/// `size` ids from `inside` on are those from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

/// user_namespaces(7): what uid_map and gid_map get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    pub uids: Vec<IdMap>,
    pub gids: Vec<IdMap>,
}

impl Namespace {
    pub fn is_new(&self) -> bool {
        *self == Self::New
    }

    pub fn is_host(&self) -> bool {
        *self == Self::Host
    }
}

impl IdMaps {
    /// Every id to itself: a boundary for capabilities, not for file owners. The last id,
    /// 2^32 - 1, means "no change" to the kernel and can't be mapped.
    pub fn identity() -> Self {
        let all = IdMap {
            inside: 0,
            outside: 0,
            size: u32::MAX,
        };
        Self {
            uids: vec![all],
            gids: vec![all],
        }
    }

    pub fn is_identity(&self) -> bool {
        *self == Self::identity()
    }

    /// The host's number of an id inside; `None`: it has none.
    pub fn host_uid(&self, inside: u32) -> Option<u32> {
        host_id(&self.uids, inside)
    }

    pub fn host_gid(&self, inside: u32) -> Option<u32> {
        host_id(&self.gids, inside)
    }
}

fn host_id(maps: &[IdMap], inside: u32) -> Option<u32> {
    maps.iter().find_map(|map| {
        let offset = inside.checked_sub(map.inside)?;
        (offset < map.size).then(|| map.outside.checked_add(offset))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_translated_by_the_range_they_are_in() {
        let map = |inside, outside, size| IdMap {
            inside,
            outside,
            size,
        };
        let maps = IdMaps {
            uids: vec![map(0, 165_536, 1000), map(1000, 1000, 1)],
            gids: vec![map(5, u32::MAX, 2)],
        };
        assert_eq!(maps.host_uid(0), Some(165_536));
        assert_eq!(maps.host_uid(999), Some(166_535));
        assert_eq!(maps.host_uid(1000), Some(1000));
        assert_eq!(maps.host_uid(1001), None);
        assert_eq!(
            (maps.host_gid(4), maps.host_gid(5), maps.host_gid(6)),
            (None, Some(u32::MAX), None)
        );
        assert_eq!(IdMaps::identity().host_gid(7), Some(7));
    }
}
