//! The kernel half guards itself: what it has to know for that, and what it counted.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
};

use aya::{
    maps::{Array, MapData, MapInfo},
    programs::{
        ProgramInfo,
        links::{FdLink, PinnedLink},
    },
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};
use paddock_abi::{
    guard::{Guard, ObjectKey, TAMPER_CELLS, TAMPERED_KINDS, Tampered, mode, tamper_cell},
    policy::Answers,
};

use crate::{
    Error, Probe,
    cgroup_links::{self, Hanging},
    maps::PINNED,
    on_demand, pins,
    slots::entries,
};

/// How paddock guards its own maps, programs, links and pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuardMode {
    #[default]
    Off,
    /// What would be refused is counted.
    Audit,
    Enforce,
    /// And signals to the agent are refused.
    Strict,
}

/// What of one kind others reached for: what was let through, and what was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    pub kind: Tampered,
    pub seen: u64,
    pub denied: u64,
}

/// What is not as it was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub kind: Tampered,
    /// A pin's path, or the word of a map.
    pub what: String,
    /// It is as it was again; else it stays so.
    pub restored: bool,
}

/// What this loader wrote and what it found its objects to be, to be compared.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) answers: BTreeMap<u32, Answers>,
    pub(crate) bound: BTreeMap<u32, u32>,
    pins: BTreeMap<PathBuf, (Tampered, u32)>,
    /// By the program's name.
    hanging: BTreeMap<String, Hanging>,
    /// Of the bpffs.
    device: u64,
}

impl Probe {
    /// From the next call on. What a dead predecessor had stays until then.
    pub fn guard(&mut self, mode: GuardMode) -> Result<(), Error> {
        let mode = match mode {
            GuardMode::Off => mode::OFF,
            GuardMode::Audit => mode::AUDIT,
            GuardMode::Enforce => mode::ENFORCE,
            GuardMode::Strict => mode::STRICT,
        };
        let before = self.demanded.guarding.is_whole();
        if mode != mode::OFF {
            self.demanded
                .guarding
                .attach(&self.pin_dir, &self.manifest.programs)?;
            // They have to have seen the agent before they refuse anybody.
            if !before {
                self.introduce()?;
            }
            return set(&mut self.maps.guard, Guard { mode, shower: 0 });
        }
        set(&mut self.maps.guard, Guard { mode, shower: 0 })?;
        self.demanded.guarding.detach(&self.pin_dir)?;
        self.introduce_links(before);
        Ok(())
    }

    /// Other links are there, or none.
    pub(crate) fn introduce_links(&mut self, changed: bool) {
        if changed && let Err(error) = self.introduce() {
            log::error!("not all of paddock's own is guarded: {error}");
        }
    }

    /// Since the programs were loaded, predecessors' time included.
    pub fn touched(&self) -> [Touched; TAMPERED_KINDS] {
        let mut cells = [0; TAMPER_CELLS];
        for (cell, index) in cells.iter_mut().zip(0..) {
            *cell = self.maps.tampered.get(&index, 0).unwrap_or(0);
        }
        Tampered::ALL.map(|kind| Touched {
            kind,
            seen: cells[tamper_cell(kind, false)],
            denied: cells[tamper_cell(kind, true)],
        })
    }

    /// Tells the kernel half which objects are its own, and shows it who the agent is.
    pub(crate) fn introduce(&mut self) -> Result<(), Error> {
        let hanging = cgroup_links::own(&self.program_names())
            .map_err(Error::io("list", Path::new("/proc/self/fdinfo")))?;
        // One that was detached since the last look is still to be told of.
        self.written.hanging.extend(hanging);
        let device = fs::metadata(&self.pin_dir).map(|found| found.dev());
        self.written.device = device.map_err(Error::io("look at", &self.pin_dir))?;
        let own = self.own_objects()?;
        let guarded = &mut self.maps.guarded;
        for key in own.keys() {
            guarded
                .insert(key, 1, 0)
                .map_err(|source| Error::map("write", "GUARDED", source))?;
        }
        for (key, _) in entries("GUARDED", guarded.iter())? {
            if !own.contains_key(&key) {
                // One that is gone is as good as forgotten.
                let _ = guarded.remove(&key);
            }
        }
        self.written.pins.clear();
        for (key, path) in own {
            if let Some(path) = path
                && let Some(kind) = Tampered::ALL
                    .into_iter()
                    .find(|kind| *kind as u32 == key.kind)
            {
                self.written.pins.insert(path, (kind, key.id));
            }
        }
        self.show()
    }

    /// Each with its pin, if it has one.
    fn own_objects(&self) -> Result<HashMap<ObjectKey, Option<PathBuf>>, Error> {
        let key = |kind: Tampered, id| ObjectKey {
            kind: kind as u32,
            id,
        };
        let mut own = HashMap::new();
        for name in &self.manifest.programs {
            let path = pins::program_path(&self.pin_dir, name);
            let info = ProgramInfo::from_pin(&path).map_err(|source| Error::Program {
                path: path.clone(),
                source: Box::new(source),
            })?;
            own.insert(key(Tampered::Program, info.id()), Some(path));
            // Those without a pin, too: constants.
            let maps = info.map_ids().ok().flatten().unwrap_or_default();
            own.extend(maps.into_iter().map(|id| (key(Tampered::Map, id), None)));
            if self.manifest.held.iter().any(|(held, _)| held == name) {
                continue;
            }
            let path = pins::link_path(&self.pin_dir, name);
            if on_demand::is_called(name) || (on_demand::is(name) && !path.exists()) {
                continue;
            }
            let link = PinnedLink::from_pin(&path)
                .map(FdLink::from)
                .and_then(|link| link.info());
            let link = link.map_err(|source| Error::Link {
                path: path.clone(),
                source: Box::new(source),
            })?;
            own.insert(key(Tampered::Link, link.id()), Some(path));
        }
        for name in PINNED {
            let path = pins::map_path(&self.pin_dir, name);
            let info = MapInfo::from_pin(&path)
                .map_err(|source| Error::map("open pinned", name, source))?;
            own.insert(key(Tampered::Map, info.id()), Some(path));
        }
        Ok(own)
    }

    /// Compares what there is with what was left, and puts right what can be. A change is told
    /// of once.
    pub fn changed(&mut self) -> Vec<Changed> {
        let mut found = self.changed_words();
        let device = fs::metadata(&self.pin_dir).map(|found| found.dev());
        if !self.written.pins.is_empty() && device.ok() != Some(self.written.device) {
            self.written.pins.clear();
            found.push(Changed {
                kind: Tampered::Mount,
                what: self.pin_dir.display().to_string(),
                restored: false,
            });
        }
        let gone = |path: &PathBuf, (kind, id): (Tampered, u32)| {
            let there = match kind {
                Tampered::Map => MapInfo::from_pin(path).map(|info| info.id()).ok(),
                Tampered::Program => ProgramInfo::from_pin(path).map(|info| info.id()).ok(),
                _ => PinnedLink::from_pin(path)
                    .map(FdLink::from)
                    .and_then(|link| link.info())
                    .map(|info| info.id())
                    .ok(),
            };
            there != Some(id)
        };
        found.extend(self.detached());
        self.written.pins.retain(|path, object| {
            let gone = gone(path, *object);
            if gone {
                found.push(Changed {
                    kind: Tampered::Pin,
                    what: path.display().to_string(),
                    restored: false,
                });
            }
            !gone
        });
        found
    }

    /// Links that hang at the root cgroup no more, or by another program.
    fn detached(&mut self) -> Vec<Changed> {
        let hanging = self.written.hanging.iter();
        let gone: Vec<String> = hanging
            .filter(|(_, link)| !link.is_there())
            .map(|(program, _)| program.clone())
            .collect();
        let mut found = Vec::new();
        for program in gone {
            self.written.hanging.remove(&program);
            let again = self.hang_again(&program);
            if let Err(error) = &again {
                log::error!("{program} cannot be attached again: {error}");
            }
            found.push(Changed {
                kind: Tampered::Link,
                what: pins::link_path(&self.pin_dir, &program)
                    .display()
                    .to_string(),
                restored: again.is_ok(),
            });
        }
        found
    }

    fn program_names(&self) -> BTreeMap<u32, String> {
        let names = self.manifest.programs.iter();
        names
            .filter_map(|name| {
                let info = ProgramInfo::from_pin(pins::program_path(&self.pin_dir, name)).ok()?;
                Some((info.id(), name.clone()))
            })
            .collect()
    }

    /// What policies say and for whom they hold: only the loader writes these.
    fn changed_words(&mut self) -> Vec<Changed> {
        let mut found = Vec::new();
        for (slot, ruleset) in &self.written.bound {
            let map = &mut self.maps.slot_ruleset;
            if map.get(slot, 0).is_ok_and(|there| there != *ruleset) {
                found.push(Changed {
                    kind: Tampered::Map,
                    what: format!("SLOT_RULESET[{slot}]"),
                    restored: map.set(*slot, *ruleset, 0).is_ok(),
                });
            }
        }
        for (ruleset, answers) in &self.written.answers {
            let map = &mut self.maps.answers;
            if map.get(ruleset, 0).is_ok_and(|there| there != *answers) {
                found.push(Changed {
                    kind: Tampered::Map,
                    what: format!("ANSWERS[{ruleset}]"),
                    restored: map.set(*ruleset, *answers, 0).is_ok(),
                });
            }
        }
        found
    }

    /// A call from a thread that stands in the bpffs: the kernel half reads the rest by itself.
    fn show(&mut self) -> Result<(), Error> {
        let pin_dir = &self.pin_dir;
        let map = &mut self.maps.guard;
        let before = map.get(&0, 0).unwrap_or_default();
        let shown = thread::scope(|scope| {
            let shower = scope.spawn(move || {
                unshare(CloneFlags::CLONE_FS).map_err(io::Error::from)?;
                env::set_current_dir(pin_dir)?;
                let shower = gettid().as_raw().cast_unsigned();
                let written = set(map, Guard { shower, ..before });
                let back = set(map, before);
                Ok(written.and(back))
            });
            let panicked = |_| Err(io::Error::other("the thread panicked"));
            shower.join().unwrap_or_else(panicked)
        });
        shown.map_err(Error::io("stand in", &self.pin_dir))?
    }
}

fn set(map: &mut Array<MapData, Guard>, guard: Guard) -> Result<(), Error> {
    map.set(0, guard, 0)
        .map_err(|source| Error::map("write", "GUARD", source))
}
