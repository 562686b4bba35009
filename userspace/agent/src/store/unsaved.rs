//! What was published and is not on disk yet: bounded, and what finds no room leaves a hole.
//!
//! The next id is kept in a file of the state directory, which is in memory where it is
//! `/run`: an agent that was killed took ids with it that were told and not stored, and nobody
//! may get them again.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::Read as _,
    mem,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::fcntl::OFlag;

use crate::event::Event;

/// Events that may wait for the disk.
const ROOM: usize = 16_384;
/// More of those that matter.
const CRITICAL_ROOM: usize = 4096;
/// Of one transaction.
pub(super) const BATCH: usize = 4096;
/// What does not matter at once waits so long for others.
const DELAY: Duration = Duration::from_millis(250);
/// What does: a flood of them is to cost a transaction each hundredth of a second, not each.
const URGENT_DELAY: Duration = Duration::from_millis(10);

/// Ids that are not stored, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    waiting: VecDeque<Arc<Event>>,
    writing: Vec<Arc<Event>>,
    holes: Vec<Hole>,
    /// Those that are being written.
    written_holes: Vec<Hole>,
    counter: Option<Counter>,
    /// Up to where receivers have got events; what a kill takes of it is sent again.
    cursors: BTreeMap<&'static str, u64>,
    since: Option<Instant>,
    urgent: bool,
    pub(crate) closing: bool,
    dropped: u64,
}

/// What the writer is to do.
#[derive(Debug)]
pub(crate) enum Work {
    Write {
        events: Vec<Arc<Event>>,
        holes: Vec<Hole>,
        cursors: BTreeMap<&'static str, u64>,
        /// The id after the last one that was given.
        next: u64,
    },
    Wait(Duration),
    Nothing,
    End,
}

impl Unsaved {
    pub(crate) fn new(counter: Option<Counter>) -> Self {
        Self {
            counter,
            ..Self::default()
        }
    }

    /// Takes one more; `true` when the writer is to be woken.
    pub(crate) fn push(&mut self, event: &Arc<Event>, critical: bool, urgent: bool) -> bool {
        if let Some(counter) = &self.counter {
            counter.set(event.id + 1);
        }
        if self.held() >= ROOM + if critical { CRITICAL_ROOM } else { 0 } {
            self.dropped += 1;
            match self.holes.last_mut() {
                Some(hole) if hole.last + 1 == event.id => hole.last = event.id,
                _ => self.holes.push(Hole {
                    first: event.id,
                    last: event.id,
                }),
            }
            return false;
        }
        let first = self.waiting.is_empty();
        self.waiting.push_back(Arc::clone(event));
        if first {
            self.since = Some(Instant::now());
        }
        let urgent = urgent && !mem::replace(&mut self.urgent, true);
        first || urgent || self.waiting.len() == BATCH
    }

    /// How many are not yet stored.
    pub(crate) fn held(&self) -> usize {
        self.waiting.len() + self.writing.len()
    }

    /// What is next for the writer; `next` is the id after the last one.
    pub(crate) fn work(&mut self, next: u64) -> Work {
        let last_cursors = self.closing && !self.cursors.is_empty();
        if self.waiting.is_empty() && self.holes.is_empty() && !last_cursors {
            return if self.closing {
                Work::End
            } else {
                Work::Nothing
            };
        }
        let age = self.since.map_or(DELAY, |since| since.elapsed());
        let delay = if self.urgent { URGENT_DELAY } else { DELAY };
        if !self.closing && self.waiting.len() < BATCH && age < delay {
            return Work::Wait(delay.saturating_sub(age));
        }
        let count = self.waiting.len().min(BATCH);
        self.writing = self.waiting.drain(..count).collect();
        self.written_holes = mem::take(&mut self.holes);
        // Those that are left have waited for long enough.
        self.urgent = false;
        let next = self.waiting.front().map_or(next, |event| event.id);
        Work::Write {
            events: self.writing.clone(),
            holes: self.written_holes.clone(),
            cursors: mem::take(&mut self.cursors),
            next,
        }
    }

    /// What was taken last is on disk, or never will be.
    pub(crate) fn done(&mut self) {
        self.writing.clear();
        self.written_holes.clear();
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.writing.iter().chain(&self.waiting)
    }

    pub(crate) fn holes(&self) -> impl Iterator<Item = Hole> + '_ {
        self.written_holes.iter().chain(&self.holes).copied()
    }

    pub(crate) fn keep_cursor(&mut self, name: &'static str, id: u64) {
        self.cursors.insert(name, id);
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn count_dropped(&mut self, count: u64) {
        self.dropped += count;
    }
}

/// The next id, eight bytes in a file.
#[derive(Debug)]
pub(crate) struct Counter {
    file: File,
    next: u64,
}

impl Counter {
    /// `None` where it cannot be: then only what was stored says where ids go on.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path);
        let mut file = match file {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!("{}: {error}", path.display());
                return None;
            }
        };
        let mut bytes = [0; 8];
        // Empty when it is new.
        let _ = file.read_exact(&mut bytes);
        Some(Self {
            file,
            next: u64::from_le_bytes(bytes),
        })
    }

    /// As a predecessor left it; 0 where there was none.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    fn set(&self, next: u64) {
        // Only what a kill would lose needs it.
        let _ = self.file.write_all_at(&next.to_le_bytes(), 0);
    }
}
