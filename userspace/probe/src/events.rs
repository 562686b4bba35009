//! The async end of both rings.

use crate::{Error, Record};

/// Reads both rings, `CRITICAL` first.
#[derive(Debug)]
pub struct EventReader {}

/// What one wake-up brought.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub records: Vec<Record>,
    /// Records of no known kind or size: a bug, or a foreign object. They count as delivered.
    pub undecodable: u64,
}

impl EventReader {
    /// Waits until there is something, then hands over a batch (at most 1,024 records).
    /// Safe to drop at any await: nothing is lost, the rings keep what was not handed over.
    #[expect(clippy::unused_async, clippy::todo, reason = "not ready")]
    pub async fn next(&mut self) -> Result<Batch, Error> {
        todo!()
    }

    /// What is there now, without waiting; for the last look before leaving.
    #[expect(clippy::todo, reason = "not ready")]
    pub fn drain(&mut self) -> Batch {
        todo!()
    }

    /// Records handed over so far: `[CRITICAL, EVENTS]`.
    #[expect(clippy::todo, reason = "not ready")]
    pub fn delivered(&self) -> [u64; 2] {
        todo!()
    }
}
