//! Events on disk: `DATA/events/INSTANCE.db`, SQLite, bounded by size and age.
//!
//! One thread writes what the bus hands it; publishing never waits for it. Readers have
//! connections of their own. Where the disk fails, the agent goes on with what it has in memory,
//! says so once, counts what is not stored, and the writer tries again. A file that is no store
//! or a broken one is put aside, and a new one begun. An ephemeral agent has none.

mod error;
mod file;
mod fill;
mod past;
mod query;
mod read;
mod retention;
mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod unsaved;
mod write;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use self::fill::fill;
pub(crate) use self::{
    error::Error,
    past::{Past, Start},
    query::{Wanted, Whose},
};
use self::{file::Opened, read::Reader, unsaved::Counter, writer::Writer};
use crate::{bus::Bus, chain::chain, event::Event};

/// How long an agent that ends waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of the database; 0: nothing is stored.
    pub max_bytes: u64,
    pub max_age: Duration,
}

/// The running store of an agent.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    stats: Arc<Stats>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// For the metrics.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    stored: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    /// The last write failed.
    failing: AtomicBool,
}

impl Stats {
    pub(crate) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    pub(crate) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

impl Store {
    /// The store of an instance and a bus that goes on where it ends. `counter`: where the next
    /// id is kept for a successor of an agent that was killed.
    pub(crate) fn open(
        data_dir: &Path,
        instance: &str,
        counter: &Path,
        bounds: Bounds,
    ) -> (Self, Arc<Bus>) {
        let stats = Arc::<Stats>::default();
        let path = file::path(data_dir, instance);
        let counter = Counter::open(counter);
        let opened = file::open(&path, counter.as_ref().map_or(0, Counter::next));
        let opened = match opened {
            Ok(opened) => Some(opened),
            Err(error) => {
                stats.errors.fetch_add(1, Ordering::Relaxed);
                stats.failing.store(true, Ordering::Relaxed);
                tracing::error!(
                    "events are kept in memory alone until it can be opened: {}",
                    chain(&error)
                );
                None
            }
        };
        let next = opened.as_ref().map_or(1, Opened::next);
        let recent = opened.as_ref().map_or_else(Vec::new, Opened::recent);
        let bus = Arc::new(Bus::stored(next, recent, counter));
        let writer = Writer::new(
            Arc::clone(&bus),
            Arc::clone(&stats),
            path.clone(),
            bounds,
            opened,
        );
        let thread = std::thread::Builder::new()
            .name("paddock-events".to_owned())
            .spawn(move || writer.run());
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::error!("events are not stored, no thread for it: {error}");
                None
            }
        };
        let store = Self {
            path,
            stats,
            thread: Mutex::new(thread),
        };
        (store, bus)
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// A reader of its own. Blocking, as all that reads is.
    pub(crate) fn reader(&self) -> Result<Reader, Error> {
        Reader::open(&self.path)
    }

    /// One that is stored.
    pub(crate) fn find(&self, id: u64) -> Option<Event> {
        let found = self.reader().and_then(|reader| reader.find(id));
        found.unwrap_or_else(|error| {
            tracing::warn!("event {id} cannot be read: {}", chain(&error));
            None
        })
    }

    /// What is stored of a container within `span` nanoseconds of a time.
    pub(crate) fn near(&self, container: &str, time_ns: u64, span: u64) -> Vec<Event> {
        let found = self
            .reader()
            .and_then(|reader| reader.near(container, time_ns, span));
        found.unwrap_or_default()
    }

    /// Writes what is left and ends the writer, unless a disk holds it up for too long. `true`
    /// where nothing is left unstored.
    pub(crate) fn close(&self, bus: &Bus) -> bool {
        bus.close();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = thread.take() else {
            return false;
        };
        let end = Instant::now() + PATIENCE;
        while !thread.is_finished() {
            if Instant::now() > end {
                tracing::warn!("{}: the disk does not answer", self.path.display());
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // A panic of it has told of itself.
        thread.join().is_ok() && !self.stats.failing()
    }
}
