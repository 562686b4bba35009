//! What policies say, as the kernel half looks it up.

use paddock_abi::policy::{Answers, HitKey, RULESETS};

use crate::{Error, Probe, Slot, on_demand::Demanded};

impl Probe {
    /// Writes what a ruleset says, 1 to [`RULESETS`] - 1; no slot may be bound to it meanwhile.
    pub fn set_answers(&mut self, ruleset: u32, answers: &Answers) -> Result<(), Error> {
        debug_assert!(ruleset > 0 && (ruleset as usize) < RULESETS);
        self.maps
            .answers
            .set(ruleset, *answers, 0)
            .map_err(|source| Error::map("write", "ANSWERS", source))?;
        self.written.answers.insert(ruleset, *answers);
        Ok(())
    }

    /// From the next act on this ruleset holds for a container; 0 is none. One word: at each
    /// moment the old or the new holds.
    pub fn bind(&mut self, slot: Slot, ruleset: u32) -> Result<(), Error> {
        self.maps
            .slot_ruleset
            .set(slot.0, ruleset, 0)
            .map_err(|source| Error::map("write", "SLOT_RULESET", source))?;
        self.written.bound.insert(slot.0, ruleset);
        Ok(())
    }

    /// Whether any ruleset holds for anybody; without, no hook of enforcement hangs.
    pub fn any_bound(&mut self, any: bool) -> Result<(), Error> {
        let Self {
            maps,
            demanded: Demanded { enforcing, .. },
            pin_dir,
            manifest,
            written,
            ..
        } = self;
        let before = enforcing.is_whole();
        if any {
            enforcing.attach(pin_dir, &manifest.programs)?;
        }
        maps.slot_ruleset
            .set(0, u32::from(any), 0)
            .map_err(|source| Error::map("write", "SLOT_RULESET", source))?;
        written.bound.insert(0, u32::from(any));
        if !any {
            enforcing.detach(pin_dir)?;
        }
        let changed = before != enforcing.is_whole();
        self.introduce_links(changed);
        Ok(())
    }

    /// Whether any ruleset says something of paths; without, no hook of theirs hangs. What is
    /// [`late`](Self::late) is to be there.
    pub fn any_paths(&mut self, any: bool) -> Result<(), Error> {
        let Self {
            demanded: Demanded { judging_paths, .. },
            pin_dir,
            manifest,
            ..
        } = self;
        let before = judging_paths.is_whole();
        if any {
            judging_paths.attach(pin_dir, &manifest.programs)?;
        } else {
            judging_paths.detach(pin_dir)?;
        }
        let changed = before != judging_paths.is_whole();
        self.introduce_links(changed);
        Ok(())
    }

    /// The ruleset that holds for a container, also one that a dead predecessor bound.
    pub fn bound(&self, slot: Slot) -> u32 {
        self.maps.slot_ruleset.get(&slot.0, 0).unwrap_or(0)
    }

    /// Attempts so far.
    pub fn hits(&self) -> Vec<(HitKey, u64)> {
        self.maps.hits.iter().filter_map(Result::ok).collect()
    }

    /// Attempts that were stopped or let through and found no room among the counts.
    pub fn hits_lost(&self) -> u64 {
        self.maps.hits_lost.get(&0, 0).unwrap_or(0)
    }

    /// A slot's or a ruleset's counts are not wanted any more.
    pub fn forget_hits(&mut self, which: impl Fn(&HitKey) -> bool) -> Result<(), Error> {
        let keys: Vec<HitKey> = self.maps.hits.keys().filter_map(Result::ok).collect();
        for key in keys.iter().filter(|key| which(key)) {
            self.maps
                .hits
                .remove(key)
                .map_err(|source| Error::map("delete from", "HITS", source))?;
        }
        Ok(())
    }
}
