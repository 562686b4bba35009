//! The thread that writes: takes what the bus has, stores it, deletes what is too much.
//!
//! What fails is tried again, ever less often, and told once until it works again; meanwhile the
//! bus holds what fits and counts the rest.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread::sleep,
    time::Duration,
};

use super::{
    Bounds, Stats,
    error::Error,
    file::{self, Opened},
    retention,
    write::{Batch, Table},
};
use crate::{
    bus::{Bus, Task},
    chain::chain,
};

/// The first pause after a failure, doubled each time.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How soon an agent that ends is noticed in such a pause.
const STEP: Duration = Duration::from_millis(50);
/// Steps of retention after one batch; each deletes as many as a third of the largest one.
const STEPS: usize = 6;

#[derive(Debug)]
pub(super) struct Writer {
    bus: Arc<Bus>,
    stats: Arc<Stats>,
    path: PathBuf,
    bounds: Bounds,
    opened: Option<Opened>,
    table: Table,
}

impl Writer {
    pub(super) fn new(
        bus: Arc<Bus>,
        stats: Arc<Stats>,
        path: PathBuf,
        bounds: Bounds,
        opened: Option<Opened>,
    ) -> Self {
        Self {
            bus,
            stats,
            path,
            bounds,
            opened,
            table: Table::default(),
        }
    }

    pub(super) fn run(mut self) {
        let mut more = true;
        loop {
            let idle = if more {
                Duration::ZERO
            } else {
                retention::IDLE
            };
            match self.bus.task(idle) {
                Task::Write {
                    events,
                    holes,
                    cursors,
                    next,
                } => {
                    let batch = Batch {
                        events: &events,
                        holes: &holes,
                        cursors: &cursors,
                        next,
                    };
                    let stored = self.store(&batch);
                    self.bus.written();
                    if !stored {
                        // Only at the end: until then it is tried again.
                        return;
                    }
                }
                Task::Nothing => {}
                Task::End => {
                    self.optimize();
                    return;
                }
            }
            more = self.trim();
        }
    }

    /// `false`: it could not be until the agent's end.
    fn store(&mut self, batch: &Batch<'_>) -> bool {
        let mut pause = PAUSE;
        loop {
            match self.try_store(batch) {
                Ok(stored) => {
                    let count = |number: usize| u64::try_from(number).unwrap_or(0);
                    self.stats
                        .stored
                        .fetch_add(count(stored), Ordering::Relaxed);
                    self.bus.count_dropped(count(batch.events.len() - stored));
                    if self.stats.failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("events are stored again in {}", self.path.display());
                    }
                    return true;
                }
                Err(error) => self.failed(&error),
            }
            if self.wait(pause) {
                return false;
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    fn try_store(&mut self, batch: &Batch<'_>) -> Result<usize, Error> {
        if self.opened.is_none() {
            let opened = file::open(&self.path, 0)?;
            // Ids that an earlier agent gave are not given again; those that were, meanwhile, are
            // known to nobody but the readers of this one.
            self.bus.skip_to(opened.next());
            self.opened = Some(opened);
            self.table = Table::default();
        }
        let Some(opened) = &mut self.opened else {
            return Ok(0);
        };
        self.table.write(&mut opened.connection, batch)
    }

    /// The first of a row is told.
    fn failed(&mut self, error: &Error) {
        self.stats.errors.fetch_add(1, Ordering::Relaxed);
        if !self.stats.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "events are kept in memory alone for now: {}: {}",
                self.path.display(),
                chain(error)
            );
        }
        if error.is_of_the_file()
            && let Some(opened) = self.opened.take()
        {
            drop(opened);
            let begun = file::put_aside(&self.path, error).and_then(|()| {
                let first = self.bus.first_unsaved();
                file::open(&self.path, first)
            });
            match begun {
                Ok(opened) => {
                    self.opened = Some(opened);
                    self.table = Table::default();
                }
                Err(error) => tracing::error!("{}", chain(&error)),
            }
        }
    }

    /// `true` when the agent ends.
    fn wait(&self, pause: Duration) -> bool {
        let mut left = pause;
        while !left.is_zero() {
            if self.bus.is_closing() {
                return true;
            }
            let step = left.min(STEP);
            sleep(step);
            left -= step;
        }
        false
    }

    /// `true` when there is more to trim.
    fn trim(&mut self) -> bool {
        let Some(opened) = &mut self.opened else {
            return false;
        };
        let mut more = true;
        for _ in 0..STEPS {
            match retention::step(&mut opened.connection, &mut self.table, self.bounds) {
                Ok(true) => {}
                Ok(false) => {
                    more = false;
                    break;
                }
                Err(error) => {
                    self.failed(&error);
                    return false;
                }
            }
        }
        if let Some(opened) = &self.opened
            && let Ok(used) = retention::used(&opened.connection)
        {
            self.stats.bytes.store(used, Ordering::Relaxed);
        }
        more
    }

    /// The log goes into the file, so that one file is left.
    fn optimize(&self) {
        if let Some(opened) = &self.opened
            && let Err(error) = opened
                .connection
                .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        {
            tracing::debug!("{error}");
        }
    }
}
