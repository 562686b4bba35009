//! Kill everything in a cgroup and wait until it is empty.
//!
//! `cgroup.kill` (5.14) takes forks that race with it along. Without it, or for processes
//! that are only in v1 hierarchies: freeze, SIGKILL all, thaw, again until none is left,
//! since nothing frozen can fork away.

use std::{
    collections::BTreeSet,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Cgroup, Error, file, tree};

/// A process in an uninterruptible wait dies only after it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What `cgroup.kill` gets before the loop helps.
const PATIENCE: Duration = Duration::from_millis(200);
const SHORTEST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

impl Cgroup {
    /// Whether nobody is in it or below, by one hierarchy: v2's, where it is mounted. Somebody
    /// may have taken a process out of that one alone; then removal fails, and is for [`Self::kill`].
    pub fn seems_empty(&self) -> bool {
        if let Some(dir) = self.unified_dir() {
            let events = file::read(&dir.join("cgroup.events"));
            return events.is_ok_and(|text| file::flat_key(&text, "populated") == Some(0));
        }
        let mut pids = BTreeSet::new();
        self.dirs()
            .next()
            .is_some_and(|dir| tree::pids(&dir, &mut pids).is_ok() && pids.is_empty())
    }

    /// Kills everything in it, by `cgroup.kill` where it is, else freeze, SIGKILL, thaw; waits until it is empty.
    pub fn kill(&self) -> Result<(), Error> {
        let start = Instant::now();
        let mut loop_from = start;
        if let Some(path) = self.unified_dir().map(|dir| dir.join("cgroup.kill"))
            && path.exists()
        {
            match file::write(&path, "1") {
                Ok(()) => {
                    loop_from += PATIENCE;
                    // The killed die when they run: those that v1's freezer holds do not.
                    if self.is_frozen().unwrap_or(false) {
                        self.thaw()?;
                    }
                }
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        let mut pause = SHORTEST_PAUSE;
        loop {
            let left = self.pids()?;
            if left.is_empty() {
                return Ok(());
            }
            let now = Instant::now();
            if now > start + TIMEOUT {
                return Err(Error::Unkillable {
                    path: self.path.clone(),
                    pids: left,
                    seconds: TIMEOUT.as_secs(),
                });
            }
            if now >= loop_from {
                self.kill_frozen()?;
            }
            sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn kill_frozen(&self) -> Result<(), Error> {
        // A host without any freezer still gets the loop; one that does not freeze in time too.
        let frozen = self.freezer_place().is_ok() && self.freeze().is_ok();
        let pids = self.pids();
        for pid in pids.iter().flatten() {
            // Gone already is what was wanted.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if frozen {
            match self.thaw() {
                Err(error) if !error.is_gone() => return Err(error),
                _ => {}
            }
        }
        pids.map(drop)
    }
}
