//! Who is who, as user space tells the kernel half: slots, cgroups, namespaces, set-up.

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
};

use aya::maps::{HashMap, Map, MapData, MapError};
use paddock_abi::{
    counters::{MAX_SLOTS, oom_before_cell},
    key::{SetUp, SlotConfig, SlotPlace, slot_state},
};

use crate::{CgroupKey, Error, NsInums, Probe, Slot, SlotCounters, maps::Maps, pins};

/// What a container shares by its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Types that are the host's: a mask of [`crate::NsType::bit`].
    pub with_host: u32,
    /// When its first process was to run, nanoseconds since the epoch; 0 is unknown. Programs that
    /// are younger have drifted.
    pub started_at_ns: u64,
    /// Another container's namespaces that it was put into; 0 is none of that type.
    pub joined: NsInums,
}

/// Which are taken. The maps have it, too, for the next agent; to ask them is a system call for
/// each of two thousand.
#[derive(Debug)]
pub(crate) struct Slots {
    used: BTreeSet<u32>,
    /// Where the search for a free one goes on.
    next: u32,
}

impl Slots {
    pub(crate) fn known(maps: &Maps) -> Self {
        let used = |slot: &u32| {
            let config = maps.slot_config.get(slot, 0);
            config.is_ok_and(|config| config.in_use != 0)
        };
        Self {
            used: (1..MAX_SLOTS).filter(used).collect(),
            next: 1,
        }
    }

    /// The numbers go round, so late records of a slot's former owner are rare.
    fn free(&self) -> Option<u32> {
        (0..MAX_SLOTS - 1)
            .map(|step| 1 + (self.next - 1 + step) % (MAX_SLOTS - 1))
            .find(|slot| !self.used.contains(slot))
    }

    fn take(&mut self, slot: u32) {
        self.used.insert(slot);
        self.next = 1 + slot % (MAX_SLOTS - 1);
    }

    pub(crate) fn used(&self) -> impl ExactSizeIterator<Item = Slot> {
        self.used.iter().copied().map(Slot)
    }
}

impl Probe {
    /// A free slot, zeroed. `None`: all are taken.
    pub fn allocate_slot(&mut self) -> Option<Slot> {
        let free = self.slots.free()?;
        let config = SlotConfig {
            in_use: 1,
            ..SlotConfig::default()
        };
        self.maps
            .slot_counters
            .set(free, SlotCounters::ZERO, 0)
            .ok()?;
        self.maps
            .slot_place
            .set(free, SlotPlace::default(), 0)
            .ok()?;
        self.maps.fresh.set(free, 0, 0).ok()?;
        self.maps.slot_ruleset.set(free, 0, 0).ok()?;
        self.written.bound.remove(&free);
        self.maps.slot_config.set(free, config, 0).ok()?;
        self.slots.take(free);
        Some(Slot(free))
    }

    /// Containers' slots, a dead predecessor's included.
    pub fn slots(&self) -> Vec<Slot> {
        let decided = |slot: &Slot| self.place(*slot).state == slot_state::DECIDED;
        self.slots.used().filter(decided).collect()
    }

    /// What the container shares by its configuration: joining those is no escape.
    pub fn configure_slot(&mut self, slot: Slot, shares: &Shares) -> Result<(), Error> {
        let config = SlotConfig {
            in_use: 1,
            shared_with_host: shares.with_host,
            started_at_ns: shares.started_at_ns,
            joined: shares.joined,
        };
        self.maps
            .slot_config
            .set(slot.0, config, 0)
            .map_err(|source| Error::map("write", "SLOT_CONFIG", source))
    }

    /// The same of the host's alone, and when its first process was to run (0: unknown): what else
    /// it shares, the kernel half may have seen.
    pub fn share_with_host(
        &mut self,
        slot: Slot,
        types: u32,
        started_at_ns: u64,
    ) -> Result<(), Error> {
        let config = self
            .maps
            .slot_config
            .get(&slot.0, 0)
            .map_err(|source| Error::map("read", "SLOT_CONFIG", source))?;
        let config = SlotConfig {
            shared_with_host: types,
            started_at_ns,
            ..config
        };
        self.maps
            .slot_config
            .set(slot.0, config, 0)
            .map_err(|source| Error::map("write", "SLOT_CONFIG", source))
    }

    /// Zeroes the counters, drops the slots' cgroups and namespaces, frees them. Each map is
    /// walked whole, two system calls an entry: once for all of them.
    pub fn release_slots(&mut self, slots: &[Slot]) -> Result<(), Error> {
        for (cgroup, _) in self
            .tracked()?
            .into_iter()
            .filter(|(_, owner)| slots.contains(owner))
        {
            self.untrack(cgroup)?;
        }
        self.disown_namespaces(slots)?;
        for (process, _) in entries("LEFT", self.maps.left.iter())?
            .into_iter()
            .filter(|(_, owner)| slots.contains(&Slot(*owner)))
        {
            gone("LEFT", self.maps.left.remove(&process))?;
        }
        self.leave_places(slots)?;
        self.take_devices(slots)?;
        for slot in slots {
            self.bind(*slot, 0)?;
            self.maps
                .slot_counters
                .set(slot.0, SlotCounters::ZERO, 0)
                .map_err(|source| Error::map("write", "SLOT_COUNTERS", source))?;
            self.maps
                .slot_config
                .set(slot.0, SlotConfig::default(), 0)
                .map_err(|source| Error::map("write", "SLOT_CONFIG", source))?;
            self.slots.used.remove(&slot.0);
        }
        Ok(())
    }

    /// Forgets whose the slots' namespaces are: their processes have ended.
    pub fn disown_namespaces(&mut self, slots: &[Slot]) -> Result<(), Error> {
        let owned: HashSet<u32> = entries("NS_OWNER", self.maps.ns_owner.iter())?
            .into_iter()
            .filter(|(_, owner)| slots.contains(&Slot(*owner)))
            .map(|(inum, _)| inum)
            .collect();
        for inum in owned {
            gone("NS_OWNER", self.maps.ns_owner.remove(&inum))?;
        }
        Ok(())
    }

    /// Every process in this cgroup, and in cgroups made below it from now on, is the slot's.
    pub fn track(&mut self, cgroup: CgroupKey, slot: Slot) -> Result<(), Error> {
        self.maps
            .cgroup_slot
            .insert(cgroup.to_abi(), slot.0, 0)
            .map_err(|source| Error::map("write", "CGROUP_SLOT", source))
    }

    /// No error where it was not tracked.
    pub fn untrack(&mut self, cgroup: CgroupKey) -> Result<(), Error> {
        gone(
            "CGROUP_SLOT",
            self.maps.cgroup_slot.remove(&cgroup.to_abi()),
        )
    }

    /// What is tracked, nested cgroups that the kernel half added included.
    pub fn tracked(&self) -> Result<Vec<(CgroupKey, Slot)>, Error> {
        let entries = entries("CGROUP_SLOT", self.maps.cgroup_slot.iter())?;
        Ok(entries
            .into_iter()
            .filter_map(|(key, slot)| {
                let key = CgroupKey::from_parts(key.hierarchy(), key.id())?;
                Some((key, Slot(slot)))
            })
            .collect())
    }

    /// Says that these namespaces are the slot's own (found containers; zeros and the host's are skipped).
    pub fn own_namespaces(&mut self, slot: Slot, namespaces: &NsInums) -> Result<(), Error> {
        for (inum, host) in namespaces.iter().zip(self.manifest.host) {
            if *inum != 0 && *inum != host {
                self.maps
                    .ns_owner
                    .insert(inum, slot.0, 0)
                    .map_err(|source| Error::map("write", "NS_OWNER", source))?;
            }
        }
        Ok(())
    }

    /// How many OOM kills a new slot's cgroup had counted before it was tracked.
    pub fn begin_oom_count(&mut self, slot: Slot, kills: u64) -> Result<(), Error> {
        let mut counters = SlotCounters::ZERO;
        counters.cells[oom_before_cell()] = kills;
        self.maps
            .slot_counters
            .set(slot.0, counters, 0)
            .map_err(|source| Error::map("write", "SLOT_COUNTERS", source))
    }

    /// Says that a process was in this cgroup before that was tracked.
    pub fn remember(&mut self, pid: u32, cgroup: CgroupKey) -> Result<(), Error> {
        self.maps
            .member
            .insert(pid, cgroup.to_abi(), 0)
            .map_err(|source| Error::map("write", "MEMBER", source))
    }

    /// Marks a process as set-up: neither it nor what it forks is counted or judged, until exec or exit.
    /// `pid` is a process id of the first pid namespace.
    pub fn exempt(&mut self, pid: u32) -> Result<(), Error> {
        self.maps
            .exempt
            .insert(pid, SetUp::default(), 0)
            .map_err(|source| Error::map("write", "EXEMPT", source))
    }

    /// No error where it was not exempt.
    pub fn unexempt(&mut self, pid: u32) -> Result<(), Error> {
        gone("EXEMPT", self.maps.exempt.remove(&pid))
    }
}

/// Exempts this process from what a predecessor's programs judge, where any are.
pub(crate) fn exempt_from_last(pin_dir: &Path) {
    let path = pins::map_path(pin_dir, "EXEMPT");
    let exempt = MapData::from_pin(path).and_then(Map::from_map_data);
    let exempt = exempt.and_then(HashMap::<MapData, u32, SetUp>::try_from);
    if let Ok(mut exempt) = exempt {
        // Full: it is told of as any other.
        let _ = exempt.insert(std::process::id(), SetUp::default(), 0);
    }
}

/// All entries; those deleted meanwhile are left out, those seen twice stay twice.
pub(crate) fn entries<K, V>(
    map: &'static str,
    entries: impl Iterator<Item = Result<(K, V), MapError>>,
) -> Result<Vec<(K, V)>, Error> {
    entries
        .filter(|entry| !matches!(entry, Err(MapError::KeyNotFound)))
        .collect::<Result<_, _>>()
        .map_err(|source| Error::map("list", map, source))
}

/// Deleting what is not there is no error.
pub(crate) fn gone(map: &'static str, result: Result<(), MapError>) -> Result<(), Error> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(nix::errno::Errno::ENOENT as i32) =>
        {
            Ok(())
        }
        Err(source) => Err(Error::map("delete from", map, source)),
    }
}
