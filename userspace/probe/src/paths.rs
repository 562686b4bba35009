//! What policies say of paths, as the kernel half looks it up.

use aya::maps::{HashMap, MapData, MapError};
use paddock_abi::path::{NAME_KEYS, NameKey, PATHS, PathNode, name_hash};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::{
    Error, Probe,
    maps::Maps,
    tables::{Entries, Table},
};

/// A name that something is said of, or of what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathName {
    /// [`PathNode::number`] of the directory that it is in.
    pub directory: u32,
    pub name: Vec<u8>,
    pub node: PathNode,
}

impl Probe {
    /// Writes what a ruleset says of paths below the root in the place of what was said under its
    /// number; no slot may be bound to it meanwhile, nor to those that are `idle`: where there is
    /// no room, what those say is forgotten, which is what is returned. Fails whole.
    pub fn set_paths(
        &mut self,
        ruleset: u32,
        paths: &[PathName],
        idle: &[u32],
    ) -> Result<bool, Error> {
        let keys = self.maps.name_seed.get(&0, 0);
        let keys = keys.map_err(|source| Error::map("read", "NAME_SEED", source))?;
        let entry = |path: &PathName| {
            let key = NameKey {
                ruleset,
                node: path.directory,
                hash: name_hash(&keys, &path.name),
            };
            (key, path.node)
        };
        let said: Vec<_> = paths.iter().map(entry).collect();
        let map = &mut self.maps.path_nodes;
        self.paths.set(map, ruleset, &said, idle)
    }
}

pub(crate) fn known(maps: &Maps) -> Table<NameKey> {
    let all = maps.path_nodes.keys().filter_map(Result::ok);
    let full = |names, most| Error::PathsFull { names, most };
    Table::known("PATH_NODES", PATHS, full, all.map(|key| (key.ruleset, key)))
}

/// Nobody can choose names that collide, who does not know these.
pub(crate) fn begin(maps: &mut Maps) -> Result<(), Error> {
    let mut keys = [0_u64; NAME_KEYS];
    for key in &mut keys {
        let mut bytes = [0; 8];
        let source = |errno: rustix::io::Errno| Error::Io {
            op: "get random numbers from",
            path: "/dev/urandom".into(),
            source: errno.into(),
        };
        // The kernel gives up to 256 bytes whole.
        getrandom(&mut bytes, GetRandomFlags::empty()).map_err(source)?;
        *key = u64::from_ne_bytes(bytes);
    }
    maps.name_seed
        .set(0, keys, 0)
        .map_err(|source| Error::map("write", "NAME_SEED", source))
}

impl Entries<NameKey, PathNode> for HashMap<MapData, NameKey, PathNode> {
    fn put(&mut self, key: &NameKey, node: &PathNode) -> Result<(), MapError> {
        self.insert(key, node, 0)
    }

    fn take(&mut self, key: &NameKey) -> Result<(), MapError> {
        self.remove(key)
    }
}
