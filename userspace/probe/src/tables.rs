//! Maps that hold what rulesets say, many entries each: which are whose, and how many fit.

use std::collections::BTreeMap;

use aya::maps::MapError;

use crate::{Error, swap};

/// Which entries of a map each ruleset has.
#[derive(Debug)]
pub(crate) struct Table<K> {
    map: &'static str,
    most: usize,
    full: fn(entries: usize, most: usize) -> Error,
    keys: BTreeMap<u32, Vec<K>>,
}

/// A map that one is kept in.
pub(crate) trait Entries<K, V> {
    fn put(&mut self, key: &K, value: &V) -> Result<(), MapError>;
    fn take(&mut self, key: &K) -> Result<(), MapError>;
}

impl<K: Copy> Table<K> {
    /// `keys`: what is there, a predecessor's too, with whose it is.
    pub(crate) fn known(
        map: &'static str,
        most: usize,
        full: fn(entries: usize, most: usize) -> Error,
        all: impl Iterator<Item = (u32, K)>,
    ) -> Self {
        let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (ruleset, key) in all {
            keys.entry(ruleset).or_default().push(key);
        }
        Self {
            map,
            most,
            full,
            keys,
        }
    }

    /// Puts `said` in the place of what was said under a ruleset's number; no slot may be bound
    /// to it meanwhile, nor to those that are `idle`: where there is no room, what those say is
    /// forgotten, which is what is returned. Fails whole.
    pub(crate) fn set<V>(
        &mut self,
        map: &mut impl Entries<K, V>,
        ruleset: u32,
        said: &[(K, V)],
        idle: &[u32],
    ) -> Result<bool, Error> {
        self.forget(map, ruleset)?;
        let full = self.entries() + said.len() > self.most;
        if full {
            // A program may still be at the word that was there before the last swap.
            swap::wait_for_running_programs();
            idle.iter().try_for_each(|one| self.forget(map, *one))?;
        }
        let entries = self.entries() + said.len();
        if entries > self.most {
            return Err((self.full)(entries, self.most));
        }
        for (key, value) in said {
            if let Err(source) = map.put(key, value) {
                // The first error is the one to tell.
                let _ = self.forget(map, ruleset);
                return Err(Error::map("write", self.map, source));
            }
            self.keys.entry(ruleset).or_default().push(*key);
        }
        Ok(full)
    }

    fn entries(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    fn forget<V>(&mut self, map: &mut impl Entries<K, V>, ruleset: u32) -> Result<(), Error> {
        for key in self.keys.remove(&ruleset).unwrap_or_default() {
            map.take(&key)
                .map_err(|source| Error::map("delete from", self.map, source))?;
        }
        Ok(())
    }
}
