//! Slots laid out for new cgroups, and what becomes of those that were taken.
//!
//! The kernel half gives a new cgroup a slot before anybody can join it (`birth.rs` there) and
//! tells of it; user space decides: a container's (`confirm`), a part of one (`join`), or
//! nobody's (`give_back`). A slot that is not kept rests before it is released: hooks may be in it.

use paddock_abi::{
    key::{PathKey, SlotPlace, slot_state},
    record::PATH_LEN,
};

use crate::{
    CgroupKey, Error, Probe, Slot,
    slots::{entries, gone},
};

impl Probe {
    /// Lays out as many free slots as fit; half of all are kept for containers.
    pub fn lay_out_slots(&mut self) -> Result<(), Error> {
        for queue in 0..self.maps.waiting.len() {
            while let Some(slot) = self.allocate_slot() {
                self.set_place(slot, slot_state::WAITING, Slot(0))?;
                // E2BIG: it is full.
                if self.maps.waiting[queue].push(slot.0, 0).is_err() {
                    self.release_slots(&[slot])?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// A slot that was laid out, for whom `allocate_slot` has none left.
    pub fn take_laid_out(&mut self) -> Option<Slot> {
        let slot = Slot(self.maps.waiting[0].pop(0).ok()?);
        self.set_place(slot, slot_state::DECIDED, Slot(0)).ok()?;
        Some(slot)
    }

    /// Whose a cgroup is, a provisional slot included.
    pub fn slot_of(&self, cgroup: CgroupKey) -> Option<Slot> {
        let slot = self.maps.cgroup_slot.get(&cgroup.to_abi(), 0).ok()?;
        (slot != 0).then_some(Slot(slot))
    }

    /// Whether it is to be decided whose the slot is.
    pub fn is_provisional(&self, slot: Slot) -> bool {
        self.place(slot).state == slot_state::PROVISIONAL
    }

    /// All that are to be decided.
    pub fn provisional_slots(&self) -> Vec<Slot> {
        self.slots
            .used()
            .filter(|slot| self.is_provisional(*slot))
            .collect()
    }

    /// The slot is a container's from now on, within that of `parent` (0: none).
    pub fn confirm(&mut self, slot: Slot, parent: Slot) -> Result<(), Error> {
        self.set_place(slot, slot_state::DECIDED, parent)
    }

    /// A cgroup with a slot of its own is a part of what has slot `whole`. Its counts are there
    /// already; late ones follow until it is released.
    pub fn join(&mut self, cgroup: CgroupKey, path: &str, whole: Slot) -> Result<(), Error> {
        if let Some(key) = path_key(path) {
            gone("PATH_SLOT", self.maps.path_slot.remove(&key))?;
        }
        self.track(cgroup, whole)
    }

    /// A cgroup with a slot of its own is nobody's.
    pub fn give_back(&mut self, cgroup: CgroupKey, path: &str) -> Result<(), Error> {
        if let Some(key) = path_key(path) {
            gone("PATH_SLOT", self.maps.path_slot.remove(&key))?;
        }
        self.untrack(cgroup)
    }

    /// Paths, with a leading slash, of the cgroups that were born with these slots and are there.
    pub fn birth_paths(&self, slots: &[Slot]) -> Result<Vec<(String, Slot)>, Error> {
        let entries = entries("PATH_SLOT", self.maps.path_slot.iter())?;
        Ok(entries
            .into_iter()
            .map(|(key, entry)| (key, Slot(entry.slot)))
            .filter(|(_, slot)| slots.contains(slot))
            .map(|(key, slot)| {
                let text = key.path.split(|byte| *byte == 0).next();
                let text = String::from_utf8_lossy(text.unwrap_or_default());
                (text.into_owned(), slot)
            })
            .collect())
    }

    /// Births that found no slot laid out: outside of all containers, and within one.
    pub fn missed_births(&self) -> Result<[u64; 2], Error> {
        let read = |index: u32| {
            self.maps
                .slots_missed
                .get(&index, 0)
                .map_err(|source| Error::map("read", "SLOTS_MISSED", source))
        };
        Ok([read(0)?, read(1)?])
    }

    /// Nothing stands in these slots any more, nor leads to them.
    pub(crate) fn leave_places(&mut self, slots: &[Slot]) -> Result<(), Error> {
        for (path, entry) in entries("PATH_SLOT", self.maps.path_slot.iter())? {
            if slots.contains(&Slot(entry.slot)) {
                gone("PATH_SLOT", self.maps.path_slot.remove(&path))?;
            }
        }
        let used: Vec<Slot> = self.slots.used().collect();
        for slot in used {
            let place = self.place(slot);
            if place.parent != 0 && slots.contains(&Slot(place.parent)) {
                let above = self.place(Slot(place.parent)).parent;
                self.set_place(slot, place.state, Slot(above))?;
            }
        }
        for slot in slots {
            self.set_place(*slot, slot_state::DECIDED, Slot(0))?;
        }
        Ok(())
    }

    pub(crate) fn place(&self, slot: Slot) -> SlotPlace {
        self.maps.slot_place.get(&slot.0, 0).unwrap_or_default()
    }

    fn set_place(&mut self, slot: Slot, state: u32, parent: Slot) -> Result<(), Error> {
        let place = SlotPlace {
            state,
            parent: parent.0,
        };
        self.maps
            .slot_place
            .set(slot.0, place, 0)
            .map_err(|source| Error::map("write", "SLOT_PLACE", source))
    }
}

/// As the kernel half writes it; `None` where that leaves it out.
fn path_key(path: &str) -> Option<PathKey> {
    let mut key = PathKey {
        path: [0; PATH_LEN],
    };
    let room = key.path.get_mut(..path.len())?;
    room.copy_from_slice(path.as_bytes());
    (path.len() < PATH_LEN - 1).then_some(key)
}
