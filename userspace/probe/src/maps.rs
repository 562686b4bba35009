//! Typed handles of the kernel half's maps, fresh or from pins.

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, Queue, RingBuf};
use paddock_abi::{
    admission::Control,
    counters::{RingCounters, SlotCounters},
    guard::{Guard, ObjectKey},
    key::{CgroupKey, DeviceKey, FileKey, PathKey, PathSlot, SetUp, SlotConfig, SlotPlace, State},
    network::{PeerKey, Ports},
    path::{NAME_KEYS, NameKey, PathNode},
    policy::{Answers, HitKey},
};

use crate::Error;

/// Every map that outlives the loader and that the next generation of programs goes on with.
pub(crate) const PINNED: &[&str] = &[
    "STATE",
    "CGROUP_SLOT",
    "SLOT_CONFIG",
    "NS_OWNER",
    "EXEMPT",
    "MEMBER",
    "LEFT",
    "ANY_LEFT",
    "SLOT_PLACE",
    "FRESH",
    "SLOTS_OUTSIDE",
    "SLOTS_WITHIN",
    "SLOTS_MISSED",
    "PATH_SLOT",
    "SLOT_DEVICES",
    "RUNTIME_FILES",
    "IN_FLIGHT",
    "BEFORE_EXEC",
    "OOM_MARKED",
    "OOM_DECISION",
    "CONTROL",
    "BUCKETS",
    "CLAIMS",
    "DONE",
    "ANSWERS",
    "SLOT_RULESET",
    "PEER_PORTS",
    "CONTACTS",
    "PATH_NODES",
    "NAME_SEED",
    "HITS",
    "HITS_LOST",
    "GUARD",
    "SHOWN",
    "GUARDED",
    "TAMPERED",
    "SLOT_COUNTERS",
    "RING_COUNTERS",
    "CRITICAL",
    "EVENTS",
];

pub(crate) struct Maps {
    pub(crate) state: Array<MapData, State>,
    pub(crate) cgroup_slot: HashMap<MapData, CgroupKey, u32>,
    pub(crate) slot_config: Array<MapData, SlotConfig>,
    pub(crate) ns_owner: HashMap<MapData, u32, u32>,
    pub(crate) member: HashMap<MapData, u32, CgroupKey>,
    pub(crate) left: HashMap<MapData, u32, u32>,
    pub(crate) exempt: HashMap<MapData, u32, SetUp>,
    pub(crate) slot_place: Array<MapData, SlotPlace>,
    pub(crate) fresh: Array<MapData, u32>,
    /// `SLOTS_OUTSIDE` and `SLOTS_WITHIN`.
    pub(crate) waiting: [Queue<MapData, u32>; 2],
    pub(crate) slots_missed: Array<MapData, u64>,
    pub(crate) path_slot: HashMap<MapData, PathKey, PathSlot>,
    pub(crate) slot_devices: HashMap<MapData, DeviceKey, u32>,
    pub(crate) runtime_files: HashMap<MapData, FileKey, u32>,
    pub(crate) slot_counters: Array<MapData, SlotCounters>,
    pub(crate) ring_counters: Array<MapData, RingCounters>,
    pub(crate) control: Array<MapData, Control>,
    pub(crate) answers: Array<MapData, Answers>,
    pub(crate) slot_ruleset: Array<MapData, u32>,
    pub(crate) peer_ports: LpmTrie<MapData, PeerKey, Ports>,
    pub(crate) path_nodes: HashMap<MapData, NameKey, PathNode>,
    pub(crate) name_seed: Array<MapData, [u64; NAME_KEYS]>,
    pub(crate) hits: HashMap<MapData, HitKey, u64>,
    pub(crate) hits_lost: Array<MapData, u64>,
    pub(crate) guard: Array<MapData, Guard>,
    pub(crate) guarded: HashMap<MapData, ObjectKey, u32>,
    pub(crate) tampered: Array<MapData, u64>,
    /// `CRITICAL` and `EVENTS`, until the reader takes them.
    pub(crate) rings: Option<[RingBuf<MapData>; 2]>,
}

impl Maps {
    /// Takes each map by name from `source`.
    pub(crate) fn from(
        mut source: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<Self, Error> {
        Ok(Self {
            state: typed("STATE", source("STATE")?)?,
            cgroup_slot: typed("CGROUP_SLOT", source("CGROUP_SLOT")?)?,
            slot_config: typed("SLOT_CONFIG", source("SLOT_CONFIG")?)?,
            ns_owner: typed("NS_OWNER", source("NS_OWNER")?)?,
            exempt: typed("EXEMPT", source("EXEMPT")?)?,
            member: typed("MEMBER", source("MEMBER")?)?,
            left: typed("LEFT", source("LEFT")?)?,
            slot_place: typed("SLOT_PLACE", source("SLOT_PLACE")?)?,
            fresh: typed("FRESH", source("FRESH")?)?,
            waiting: [
                typed("SLOTS_OUTSIDE", source("SLOTS_OUTSIDE")?)?,
                typed("SLOTS_WITHIN", source("SLOTS_WITHIN")?)?,
            ],
            slots_missed: typed("SLOTS_MISSED", source("SLOTS_MISSED")?)?,
            path_slot: typed("PATH_SLOT", source("PATH_SLOT")?)?,
            slot_devices: typed("SLOT_DEVICES", source("SLOT_DEVICES")?)?,
            runtime_files: typed("RUNTIME_FILES", source("RUNTIME_FILES")?)?,
            slot_counters: typed("SLOT_COUNTERS", source("SLOT_COUNTERS")?)?,
            ring_counters: typed("RING_COUNTERS", source("RING_COUNTERS")?)?,
            control: typed("CONTROL", source("CONTROL")?)?,
            answers: typed("ANSWERS", source("ANSWERS")?)?,
            slot_ruleset: typed("SLOT_RULESET", source("SLOT_RULESET")?)?,
            peer_ports: typed("PEER_PORTS", source("PEER_PORTS")?)?,
            path_nodes: typed("PATH_NODES", source("PATH_NODES")?)?,
            name_seed: typed("NAME_SEED", source("NAME_SEED")?)?,
            hits: typed("HITS", source("HITS")?)?,
            hits_lost: typed("HITS_LOST", source("HITS_LOST")?)?,
            guard: typed("GUARD", source("GUARD")?)?,
            guarded: typed("GUARDED", source("GUARDED")?)?,
            tampered: typed("TAMPERED", source("TAMPERED")?)?,
            rings: Some([
                typed("CRITICAL", source("CRITICAL")?)?,
                typed("EVENTS", source("EVENTS")?)?,
            ]),
        })
    }
}

pub(crate) fn typed<T: TryFrom<Map, Error = MapError>>(
    map: &'static str,
    of: Map,
) -> Result<T, Error> {
    T::try_from(of).map_err(|source| Error::map("open", map, source))
}
