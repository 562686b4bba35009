//! How full the maps are whose content is lost where there is no more room.

use aya::maps::{MapError, MapInfo};
use paddock_abi::counters::MAX_SLOTS;

use crate::{Probe, pins};

/// The maps that have one, by what they would lose: whose a cgroup or a namespace is, who left a
/// container or is in set-up, which act a policy met; and a container's place to be counted in.
pub const FILLED: [&str; 9] = [
    "CGROUP_SLOT",
    "NS_OWNER",
    "MEMBER",
    "LEFT",
    "EXEMPT",
    "PATH_SLOT",
    "SLOT_DEVICES",
    "HITS",
    "SLOT_CONFIG",
];

/// How full one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub map: &'static str,
    pub entries: usize,
    pub most: u32,
}

impl Probe {
    /// Of one of [`FILLED`]. The kernel keeps no count: this is a system call an entry.
    pub fn fill(&self, map: &'static str) -> Option<Fill> {
        let most = match map {
            // The first is nobody's.
            "SLOT_CONFIG" => MAX_SLOTS - 1,
            _ => MapInfo::from_pin(pins::map_path(&self.pin_dir, map))
                .ok()?
                .max_entries(),
        };
        let maps = &self.maps;
        let entries = match map {
            "CGROUP_SLOT" => count(maps.cgroup_slot.keys(), most),
            "NS_OWNER" => count(maps.ns_owner.keys(), most),
            "MEMBER" => count(maps.member.keys(), most),
            "LEFT" => count(maps.left.keys(), most),
            "EXEMPT" => count(maps.exempt.keys(), most),
            "PATH_SLOT" => count(maps.path_slot.keys(), most),
            "SLOT_DEVICES" => count(maps.slot_devices.keys(), most),
            "HITS" => count(maps.hits.keys(), most),
            "SLOT_CONFIG" => self.slots.used().len(),
            _ => return None,
        };
        Some(Fill { map, entries, most })
    }
}

/// A key that goes while it is looked at sends the walk back to the first one: no walk is longer
/// than the map can be.
fn count<K>(keys: impl Iterator<Item = Result<K, MapError>>, most: u32) -> usize {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    keys.take(most).flatten().count()
}
