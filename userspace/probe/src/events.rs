//! The async end of both rings.

use std::fmt;

use aya::maps::{MapData, RingBuf};
use paddock_abi::counters::Ring;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{Error, Record, decode::decode};

/// Records in a batch at most.
pub const BATCH: usize = 1024;

type RingFd = AsyncFd<RingBuf<MapData>>;

/// Reads both rings, `CRITICAL` first.
pub struct EventReader {
    critical: RingFd,
    events: RingFd,
    delivered: [u64; 2],
}

/// What one wake-up brought.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub records: Vec<Record>,
    /// Records of no known kind or size: a bug, or a foreign object. They count as delivered.
    pub undecodable: u64,
}

impl EventReader {
    #[expect(
        deprecated,
        reason = "its successor is unsafe; a RingBuf owns its one descriptor and never swaps it"
    )]
    pub(crate) fn new([critical, events]: [RingBuf<MapData>; 2]) -> Result<Self, Error> {
        let register = |ring| {
            AsyncFd::with_interest(ring, Interest::READABLE)
                .map_err(|source| Error::Wait { source })
        };
        Ok(Self {
            critical: register(critical)?,
            events: register(events)?,
            delivered: [0; 2],
        })
    }

    /// Waits until there is something, then hands over a batch (at most 1,024 records).
    /// Safe to drop at any await: nothing is lost, the rings keep what was not handed over.
    pub async fn next(&mut self) -> Result<Batch, Error> {
        loop {
            let batch = self.drain();
            if !batch.records.is_empty() || batch.undecodable > 0 {
                return Ok(batch);
            }
            // The rings were empty after the last look; readiness that came since is kept by epoll.
            let (critical, events) = (&mut self.critical, &mut self.events);
            tokio::select! {
                biased;
                ready = critical.readable_mut() => wait_on(ready)?,
                ready = events.readable_mut() => wait_on(ready)?,
            }
        }
    }

    /// What is there now, without waiting; for the last look before leaving.
    pub fn drain(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut room = BATCH;
        let rings = [
            (Ring::Critical, &mut self.critical),
            (Ring::Events, &mut self.events),
        ];
        for (ring, fd) in rings {
            let buffer = fd.get_mut();
            while room > 0 {
                let Some(item) = buffer.next() else { break };
                room -= 1;
                self.delivered[ring as usize] += 1;
                match decode(ring, &item) {
                    Some(record) => batch.records.push(record),
                    None => batch.undecodable += 1,
                }
            }
        }
        batch
    }

    /// Records handed over so far: `[CRITICAL, EVENTS]`.
    pub fn delivered(&self) -> [u64; 2] {
        self.delivered
    }
}

/// Forgets the readiness; the caller looks at the rings before it waits again.
fn wait_on<T: std::os::fd::AsRawFd>(
    ready: std::io::Result<tokio::io::unix::AsyncFdReadyMutGuard<'_, T>>,
) -> Result<(), Error> {
    ready
        .map(|mut guard| guard.clear_ready())
        .map_err(|source| Error::Wait { source })
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader")
            .field("delivered", &self.delivered)
            .finish_non_exhaustive()
    }
}
