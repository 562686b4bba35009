//! Have limits again that somebody else has changed: systemd's reload, an operator's echo.
//!
//! What was asked for is planned anew and compared with what the files say; only what differs
//! is written. Unlike an update this is not all or nothing: a limit that the kernel will not
//! have again is told, and the others are restored. A hard memory limit below the present use
//! is not restored where the kernel cannot reclaim down to it, since it would kill.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    Cgroup, Error, Limits,
    change::{self, Change},
    controllers::memory,
    discovery::Version,
};

/// The kernel's own period, which a quota without one was written with.
const PERIOD: u64 = 100_000;

/// One file that says again what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub path: PathBuf,
    /// What somebody had written.
    pub found: String,
    pub value: String,
}

/// What a look at a container's limits came to; empty where all is as it should be.
#[derive(Debug, Default)]
pub struct Repair {
    pub restored: Vec<Restored>,
    /// By file, or by cgroup where none could be looked at.
    pub failed: Vec<(PathBuf, Error)>,
}

impl Cgroup {
    /// Writes these limits where a file says something else. [`Error::NotFound`] when the
    /// cgroup is gone.
    pub fn restore(&self, limits: &Limits) -> Result<Repair, Error> {
        let planned = self.plan(&self.in_full(limits));
        if !self.dirs().any(|dir| dir.is_dir()) {
            return Err(Error::NotFound {
                path: self.path.clone(),
            });
        }
        let mut changes = match planned {
            Ok(changes) => changes,
            // Its end comes between the hierarchies.
            Err(error) if error.is_gone() => return Ok(Repair::default()),
            Err(error) => {
                return Ok(Repair {
                    restored: Vec::new(),
                    failed: vec![(PathBuf::from(&self.path), error)],
                });
            }
        };
        changes.retain(|change| !change.is_so());
        let mut repair = Repair::default();
        self.restore_memory(limits, &mut changes, &mut repair);
        repair.write(changes);
        repair.failed.retain(|(_, error)| !error.is_gone());
        if let Some(place) = self.place("memory") {
            let failed = repair.failed.into_iter();
            repair.failed = failed
                .map(|(path, error)| (path, memory::below_use(&place, error)))
                .collect();
        }
        Ok(repair)
    }

    /// The directories whose files these limits are in.
    pub fn limited_dirs(&self, limits: &Limits) -> Result<BTreeSet<PathBuf>, Error> {
        let changes = self.plan(limits)?;
        let dirs = changes.iter().filter_map(|change| change.path.parent());
        Ok(dirs.map(Path::to_owned).collect())
    }

    /// v2 has quota and period in one file, and what is not given stays what it is: for once
    /// that could be somebody else's.
    fn in_full(&self, limits: &Limits) -> Limits {
        let mut limits = limits.clone();
        let cpu = &mut limits.cpu;
        let one_file = self
            .place("cpu")
            .is_some_and(|place| place.version == Version::V2);
        if one_file && (cpu.quota.is_some() || cpu.period.is_some()) {
            cpu.quota.get_or_insert(-1);
            cpu.period.get_or_insert(PERIOD);
        }
        limits
    }

    /// v2's hard limit, for which there must be room first.
    fn restore_memory(&self, limits: &Limits, changes: &mut Vec<Change>, repair: &mut Repair) {
        let Some(place) = self.place("memory") else {
            return;
        };
        let path = place.file("memory.max");
        let Some(at) = changes.iter().position(|change| change.path == path) else {
            return;
        };
        let change = changes.remove(at);
        match memory::make_room(&place, &limits.memory) {
            Ok(room) => {
                repair.write(vec![change]);
                if let Some(room) = room
                    && let Err(error) = room.leave()
                {
                    repair.failed.push((place.file("memory.high"), error));
                }
            }
            Err(error) => repair.failed.push((path, error)),
        }
    }
}

impl Repair {
    fn write(&mut self, changes: Vec<Change>) {
        let (done, failed) = change::repair(changes);
        self.restored
            .extend(done.into_iter().map(|change| Restored {
                path: change.path,
                found: change.shown,
                value: change.value,
            }));
        self.failed.extend(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hierarchies, fixture::Dir};

    #[test]
    fn what_somebody_changed_is_written_again_and_nothing_else() {
        let dir = Dir::new();
        dir.file("cgroup.subtree_control", "cpu memory pids\n");
        for (name, text) in [
            ("cpu.max", "max 50000\n"),
            ("memory.max", "67108864\n"),
            ("memory.current", "4096\n"),
            ("memory.swap.max", "max\n"),
            ("pids.max", "max\n"),
        ] {
            dir.file(&format!("a/{name}"), text);
        }
        let hierarchies = Hierarchies::fixture(&[], Some((dir.path(), &["cpu", "memory", "pids"])));
        let cgroup = Cgroup::open(&hierarchies, "a").unwrap();
        let mut limits = Limits {
            pids: Some(7),
            ..Limits::default()
        };
        limits.cpu.quota = Some(20_000);
        limits.memory.limit = Some(64 << 20);
        let repair = cgroup.restore(&limits).unwrap();
        assert!(repair.failed.is_empty(), "{repair:?}");
        let mut found: Vec<_> = repair
            .restored
            .iter()
            .map(|one| (one.found.as_str(), one.value.as_str()))
            .collect();
        found.sort_unstable();
        assert_eq!(found, [("max", "7"), ("max 50000", "20000 100000")]);
        assert_eq!(dir.read("a/pids.max"), "7");
        let again = cgroup.restore(&limits).unwrap();
        assert!(again.restored.is_empty(), "{again:?}");
    }

    #[test]
    fn a_cgroup_that_is_gone_is_no_failure_to_restore() {
        let dir = Dir::new();
        dir.file("a/pids.max", "max\n");
        let hierarchies = Hierarchies::fixture(&[(dir.path(), &["pids"])], None);
        let cgroup = Cgroup::open(&hierarchies, "a").unwrap();
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        let limits = Limits {
            pids: Some(7),
            ..Limits::default()
        };
        assert!(matches!(
            cgroup.restore(&limits),
            Err(Error::NotFound { .. })
        ));
    }
}
