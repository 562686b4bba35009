//! What was, in order, a chunk at a time: from the store, and from the bus what is not there yet.
//!
//! Memory stays flat however much is stored. A reader with a cursor is also told what is missing
//! between two events: what found no room, or was deleted.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    error::Error,
    query::Wanted,
    read::{Found, Reader},
    schema,
    unsaved::Hole,
};
use crate::{
    bus::{self, Snapshot},
    event::Event,
};

/// Events of one chunk.
const CHUNK: usize = 256;

/// Where a reader begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// After that id, 0 for all; what is missing is told.
    After(u64),
    /// With all that fits.
    All,
    /// With the last ones that fit.
    Last(usize),
}

/// One reading, up to what was when it began.
#[derive(Debug)]
pub(crate) struct Past {
    /// `None`: all there is is in memory.
    reader: Option<Reader>,
    memory: Vec<Arc<Event>>,
    holes: Vec<Hole>,
    wanted: Wanted,
    keys: Option<Vec<i64>>,
    /// Everything up to that id was told.
    cursor: u64,
    /// All up to that id was told or is told to be missing.
    accounted: u64,
    last: u64,
    /// After that id nothing that is stored is of the times that are wanted.
    last_stored: u64,
    tells_missing: bool,
}

impl Past {
    /// Blocking.
    pub(crate) fn new(
        reader: Option<Reader>,
        snapshot: Snapshot,
        wanted: Wanted,
        start: Start,
    ) -> Result<Self, Error> {
        let mut past = Self {
            reader,
            memory: snapshot.history,
            holes: snapshot.holes,
            wanted,
            keys: None,
            cursor: 0,
            accounted: 0,
            last: snapshot.last,
            last_stored: 0,
            tells_missing: matches!(start, Start::After(_)),
        };
        let mut first = past.memory.first().map_or(past.last, |event| event.id);
        if let Some(reader) = &past.reader {
            past.keys = reader.keys(&past.wanted)?;
            if let Some((first_stored, last_stored)) = reader.ids_of(&past.wanted)? {
                first = first.min(first_stored);
                past.last_stored = last_stored.min(past.last);
            }
        }
        past.cursor = match start {
            Start::After(id) => id,
            Start::All => first.saturating_sub(1),
            Start::Last(count) => past.before_last(count)?,
        };
        past.accounted = past.cursor;
        Ok(past)
    }

    fn before_last(&self, count: usize) -> Result<u64, Error> {
        let in_memory = self.memory.iter().filter(|event| self.wanted.wants(event));
        let mut ids: BTreeSet<u64> = in_memory.map(|event| event.id).collect();
        if let Some(reader) = &self.reader {
            ids.extend(reader.last_ids(&self.wanted, count)?);
        }
        // None at all is told of no count.
        let first = ids.iter().rev().take(count).next_back();
        Ok(first.map_or(self.last, |first| first - 1))
    }

    /// The next JSON lines, perhaps none; `None` when all was told. Blocking.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.cursor >= self.last {
            return Ok(None);
        }
        let mut lines = Vec::new();
        match self.reader.take() {
            Some(reader) => {
                let done = reader.at_once(|reader| self.chunk(Some(reader), &mut lines));
                self.reader = Some(reader);
                // What a chunk has told of is accounted for.
                if let (Err(error), true) = (done, lines.is_empty()) {
                    return Err(error);
                }
            }
            None => self.chunk(None, &mut lines)?,
        }
        Ok(Some(lines))
    }

    fn chunk(&mut self, reader: Option<&Reader>, lines: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(reader) = reader
            && !self.tells_missing
        {
            // What was deleted meanwhile is nothing to look for.
            let oldest = reader.oldest()?;
            let oldest = oldest.min(self.memory.first().map_or(oldest, |event| event.id));
            self.cursor = self.cursor.max(oldest.saturating_sub(1)).min(self.last);
        }
        let nothing = Found {
            ids: Vec::new(),
            looked_to: self.last,
        };
        let found = match reader {
            Some(reader) if self.cursor < self.last_stored => {
                let keys = self.keys.as_deref();
                reader.ids(&self.wanted, keys, self.cursor, self.last_stored, CHUNK)?
            }
            _ => nothing,
        };
        let (cursor, mut looked_to) = (self.cursor, found.looked_to);
        let begin = self.memory.partition_point(|event| event.id <= cursor);
        let in_memory = self.memory[begin..]
            .iter()
            .take_while(|event| event.id <= looked_to)
            .filter(|event| self.wanted.wants(event));
        let mut ids: Vec<u64> = in_memory.map(|event| event.id).take(CHUNK).collect();
        ids.extend(found.ids);
        ids.sort_unstable();
        ids.dedup();
        if ids.len() > CHUNK {
            ids.truncate(CHUNK);
        }
        if ids.len() == CHUNK {
            looked_to = ids.last().copied().unwrap_or(looked_to);
        }
        for id in ids {
            let line = match self.in_memory(id) {
                Some(event) => Some(schema::body(event)),
                None => match reader {
                    Some(reader) => reader.body(id)?,
                    None => None,
                },
            };
            // Deleted since: it is missing, then.
            let Some(line) = line else { continue };
            self.tell_missing(reader, id - 1, lines)?;
            self.accounted = id;
            lines.extend(line);
            lines.push(b'\n');
        }
        self.cursor = looked_to;
        if self.cursor >= self.last {
            self.tell_missing(reader, self.last, lines)?;
        }
        Ok(())
    }

    fn in_memory(&self, id: u64) -> Option<&Arc<Event>> {
        let place = self.memory.binary_search_by_key(&id, |event| event.id);
        self.memory.get(place.ok()?)
    }

    /// How many there were after what is accounted for and up to an id, which nobody can read.
    fn tell_missing(
        &mut self,
        reader: Option<&Reader>,
        to: u64,
        lines: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if !self.tells_missing || to <= self.accounted {
            return Ok(());
        }
        let from = self.accounted;
        self.accounted = to;
        let count = match reader {
            Some(reader) => self.missing(reader, from, to)?,
            None => to - from - self.held(from, to),
        };
        if count > 0 {
            lines.extend(schema::body(&bus::lost(count, to)));
            lines.push(b'\n');
        }
        Ok(())
    }

    fn missing(&self, reader: &Reader, from: u64, to: u64) -> Result<u64, Error> {
        let floor = reader.floor()?.clamp(from, to);
        let mut missing = 0;
        if floor > from {
            let mut only_stored = 0;
            reader.critical(from, floor, |id| {
                only_stored += u64::from(self.in_memory(id).is_none());
            })?;
            missing = floor - from - only_stored - self.held(from, floor);
        }
        let mut holes = reader.holes(floor, to)?;
        holes.extend_from_slice(&self.holes);
        holes.sort_unstable_by_key(|hole| hole.first);
        let mut done = floor;
        for hole in holes {
            // Known to the store since it was known to the bus.
            let begin = done.max(hole.first - 1);
            let end = hole.last.min(to);
            if end > begin {
                missing += end - begin - self.held(begin, end);
                done = end;
            }
        }
        Ok(missing)
    }

    /// So many after one id and up to another are in memory.
    fn held(&self, from: u64, to: u64) -> u64 {
        let place = |id: u64| self.memory.partition_point(|event| event.id <= id);
        u64::try_from(place(to) - place(from)).unwrap_or(0)
    }

    /// Goes on with what is in memory.
    pub(crate) fn leave_store(&mut self) {
        self.reader = None;
    }
}
