//! Programs that hang in the kernel only while they are wanted: those that enforce while a policy
//! is in force, those that judge paths while one names some, those that guard while something is
//! guarded.
//!
//! A hook that ends at its first word still costs every open and every call on the machine the
//! way into it. These are loaded with the others, or later still (`late`); the first of each
//! capability is tried and let go, since the kernel takes its time over each. What stays of them
//! is the pinned program, which is attached when it is wanted.

use std::{path::Path, thread, time::Duration};

use aya::programs::{
    Lsm, ProgramError,
    links::{FdLink, PinnedLink},
};
use nix::errno::Errno;

use crate::{
    Error,
    ladder::{Capability, ENFORCE, GUARD, PATHS, QUESTION},
    load::errno,
    pins,
};

/// How long one that was let go may stay.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// Those of one capability. Links are pinned: they outlive the agent.
#[derive(Debug)]
pub(crate) struct OnDemand {
    belongs: fn(&str) -> bool,
    attached: Vec<(String, PinnedLink)>,
    /// All that there are.
    whole: bool,
    /// See [`once_only`]: what was wanted once hangs on.
    once: bool,
}

/// All that there are, by what they are for.
#[derive(Debug)]
pub(crate) struct Demanded {
    pub(crate) enforcing: OnDemand,
    pub(crate) judging_paths: OnDemand,
    pub(crate) guarding: OnDemand,
}

impl Demanded {
    pub(crate) const fn none() -> Self {
        Self {
            enforcing: OnDemand::none(enforces, false),
            judging_paths: OnDemand::none(judges_paths, false),
            guarding: OnDemand::none(guards, false),
        }
    }

    /// What a predecessor left attached.
    pub(crate) fn adopt(pin_dir: &Path, programs: &[String], once: bool) -> Result<Self, Error> {
        let adopt = |belongs| OnDemand::adopt(belongs, pin_dir, programs, once);
        Ok(Self {
            enforcing: adopt(enforces)?,
            judging_paths: adopt(judges_paths)?,
            guarding: adopt(guards)?,
        })
    }

    /// Those that a program is of.
    pub(crate) fn of(&mut self, program: &str) -> &mut OnDemand {
        if guards(program) {
            &mut self.guarding
        } else if judges_paths(program) {
            &mut self.judging_paths
        } else {
            &mut self.enforcing
        }
    }

    pub(crate) fn set_once(&mut self, once: bool) {
        for all in [
            &mut self.enforcing,
            &mut self.judging_paths,
            &mut self.guarding,
        ] {
            all.once = once;
        }
    }
}

/// Whether the kernel attaches a program once only, as before 5.13: one that hangs, or was let go,
/// it refuses with ENOENT. Others say EBUSY of one that hangs, as that of this pin does.
/// <https://github.com/torvalds/linux/commit/f3a95075549e0e5c36db922caf86847db7a35403>
pub(crate) fn once_only(hanging: &Path) -> bool {
    let again = Lsm::from_pin(hanging).and_then(|mut program| program.attach().map(drop));
    again.is_err_and(|error| errno(&error) == Some(Errno::ENOENT))
}

/// Whether a program is any's.
pub(crate) fn is(program: &str) -> bool {
    enforces(program) || guards(program) || judges_paths(program)
}

/// Whether a program hangs nowhere and is run by its pin.
pub(crate) fn is_called(program: &str) -> bool {
    is_of(&QUESTION, program)
}

/// Whether one hangs there by its pin.
pub(crate) fn hangs(pin_dir: &Path, program: &str) -> bool {
    pins::link_path(pin_dir, program).exists()
}

fn enforces(program: &str) -> bool {
    is_of(&ENFORCE, program)
}

pub(crate) fn judges_paths(program: &str) -> bool {
    is_of(&PATHS, program)
}

fn guards(program: &str) -> bool {
    is_of(&GUARD, program)
}

fn is_of(capability: &Capability, program: &str) -> bool {
    let mut hooks = capability.rungs.iter().flat_map(|rung| rung.hooks);
    hooks.any(|(name, _)| *name == program)
}

impl OnDemand {
    const fn none(belongs: fn(&str) -> bool, once: bool) -> Self {
        Self {
            belongs,
            attached: Vec::new(),
            whole: false,
            once,
        }
    }

    fn adopt(
        belongs: fn(&str) -> bool,
        pin_dir: &Path,
        programs: &[String],
        once: bool,
    ) -> Result<Self, Error> {
        let mut found = Self::none(belongs, once);
        for program in programs.iter().filter(|program| belongs(program)) {
            if hangs(pin_dir, program) {
                let path = pins::link_path(pin_dir, program);
                let link = PinnedLink::from_pin(&path);
                let link = link.map_err(|source| Error::link(&path, source))?;
                found.attached.push((program.clone(), link));
            }
        }
        Ok(found)
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Keeps one that was just attached and pinned.
    pub(crate) fn keep(&mut self, program: &str, link: PinnedLink) {
        self.attached.push((program.to_owned(), link));
    }

    /// All or none: those that were attached are detached where a later one fails.
    pub(crate) fn attach(&mut self, pin_dir: &Path, programs: &[String]) -> Result<(), Error> {
        if self.whole {
            return Ok(());
        }
        let is_there = |program: &str| self.attached.iter().any(|(one, _)| one == program);
        let missing = programs
            .iter()
            .filter(|program| (self.belongs)(program) && !is_there(program));
        let mut new = Self::none(self.belongs, self.once);
        for program in missing {
            match attach(pin_dir, program) {
                Ok(link) => new.keep(program, link),
                Err(error) => {
                    // What failed is told.
                    let _ = new.detach(pin_dir);
                    self.attached.append(&mut new.attached);
                    return Err(error);
                }
            }
        }
        self.attached.append(&mut new.attached);
        self.whole = true;
        Ok(())
    }

    pub(crate) fn detach(&mut self, pin_dir: &Path) -> Result<(), Error> {
        self.whole = false;
        if self.once {
            return Ok(());
        }
        for (program, link) in self.attached.drain(..) {
            drop(link);
            pins::remove_link(pin_dir, &program)?;
        }
        Ok(())
    }
}

fn attach(pin_dir: &Path, program: &str) -> Result<PinnedLink, Error> {
    let path = pins::program_path(pin_dir, program);
    let refused = |source: ProgramError| Error::Program {
        path: path.clone(),
        source: Box::new(source),
    };
    let mut lsm = Lsm::from_pin(&path).map_err(refused)?;
    let mut tries = 0;
    let id = loop {
        match lsm.attach() {
            Ok(id) => break id,
            // The kernel lets go of what hung there a moment ago from a work queue.
            Err(error) if tries < TRIES && errno(&error) == Some(Errno::EBUSY) => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            Err(error) => return Err(refused(error)),
        }
    };
    let link = FdLink::from(lsm.take_link(id).map_err(refused)?);
    let path = pins::link_path(pin_dir, program);
    link.pin(&path)
        .map_err(|source| Error::Pin { path, source })
}
