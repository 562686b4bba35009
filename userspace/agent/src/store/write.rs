//! One batch into the tables, in one transaction.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::{
    error::Error,
    file::{meta, set_meta},
    schema::{self, SPAN, signed, unsigned},
    unsaved::Hole,
};
use crate::{
    bus::is_critical,
    event::{Event, verdict_of},
};

/// Containers whose key is known without asking.
const KNOWN: usize = 4096;
/// What a row costs beside its body.
pub(super) const ROW: u64 = 128;

/// What one transaction stores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    pub(super) events: &'a [Arc<Event>],
    pub(super) holes: &'a [Hole],
    pub(super) cursors: &'a BTreeMap<&'static str, u64>,
    /// The id after the last one that was given.
    pub(super) next: u64,
}

/// In `meta`.
pub(super) fn cursor_name(receiver: &str) -> String {
    format!("cursor_{receiver}")
}

/// What the tables are known to hold.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By id and name.
    containers: HashMap<(String, String), i64>,
    span: Option<Span>,
}

/// The last row of `span`.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u64,
    last: u64,
    earliest: u64,
    latest: u64,
}

impl Table {
    /// Those that have none any more are asked for again.
    pub(super) fn forget_containers(&mut self) {
        self.containers.clear();
    }

    /// How many were stored. What has an id below `meta.next` was stored before, or another was.
    pub(super) fn write(
        &mut self,
        connection: &mut Connection,
        batch: &Batch<'_>,
    ) -> Result<usize, Error> {
        let written = (|| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let from = meta(&transaction, "next")?.max(1);
            let fresh = batch.events.iter().filter(|event| event.id >= from);
            let mut span = self.last_span(&transaction)?;
            let (mut stored, mut critical_bytes) = (0, 0);
            for event in fresh {
                let bytes = self.insert(&transaction, event)?;
                if is_critical(&event.kind) {
                    critical_bytes += bytes + ROW;
                }
                span = note(&transaction, span, event)?;
                stored += 1;
            }
            if let Some(span) = span {
                save(&transaction, span)?;
            }
            for hole in batch.holes {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO hole VALUES (?, ?)")?
                    .execute([signed(hole.first), signed(hole.last)])?;
            }
            for (name, id) in batch.cursors {
                set_meta(&transaction, &cursor_name(name), *id)?;
            }
            if critical_bytes > 0 {
                let before = meta(&transaction, "critical_bytes")?;
                set_meta(&transaction, "critical_bytes", before + critical_bytes)?;
            }
            set_meta(&transaction, "next", batch.next.max(from))?;
            transaction.commit()?;
            Ok((stored, span))
        })();
        match written {
            Ok((stored, span)) => {
                self.span = span;
                Ok(stored)
            }
            Err(source) => {
                // Keys that were made are not there.
                self.forget_containers();
                Err(Error::sql("write to")(source))
            }
        }
    }

    /// The length of its body.
    fn insert(&mut self, transaction: &Transaction<'_>, event: &Event) -> rusqlite::Result<u64> {
        let body = schema::body(event);
        let container = self.container(transaction, event)?;
        transaction
            .prepare_cached("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)")?
            .execute((
                signed(event.id),
                signed(event.time_ns),
                container,
                schema::kind_number(&event.kind),
                verdict_of(&event.kind).map(schema::verdict_number),
                is_critical(&event.kind),
                &body,
            ))?;
        Ok(u64::try_from(body.len()).unwrap_or(0))
    }

    fn container(
        &mut self,
        transaction: &Transaction<'_>,
        event: &Event,
    ) -> rusqlite::Result<Option<i64>> {
        if event.container.is_none() && event.container_id.is_none() {
            return Ok(None);
        }
        let pair = (
            event.container_id.clone().unwrap_or_default(),
            event.container.clone().unwrap_or_default(),
        );
        if let Some(key) = self.containers.get(&pair) {
            return Ok(Some(*key));
        }
        let known = transaction
            .prepare_cached("SELECT key FROM container WHERE id = ? AND name = ?")?
            .query_row((&pair.0, &pair.1), |row| row.get(0))
            .optional()?;
        let key = if let Some(key) = known {
            key
        } else {
            transaction
                .prepare_cached("INSERT INTO container (id, name) VALUES (?, ?)")?
                .execute((&pair.0, &pair.1))?;
            transaction.last_insert_rowid()
        };
        if self.containers.len() >= KNOWN {
            self.containers.clear();
        }
        self.containers.insert(pair, key);
        Ok(Some(key))
    }

    fn last_span(&self, transaction: &Transaction<'_>) -> rusqlite::Result<Option<Span>> {
        if self.span.is_some() {
            return Ok(self.span);
        }
        let sql = "SELECT first, last, earliest, latest FROM span ORDER BY first DESC LIMIT 1";
        transaction
            .prepare_cached(sql)?
            .query_row([], |row| {
                Ok(Span {
                    first: unsigned(row.get(0)?),
                    last: unsigned(row.get(1)?),
                    earliest: unsigned(row.get(2)?),
                    latest: unsigned(row.get(3)?),
                })
            })
            .optional()
    }
}

/// The span that the event is in now; a full one before it is written.
fn note(
    transaction: &Transaction<'_>,
    span: Option<Span>,
    event: &Event,
) -> rusqlite::Result<Option<Span>> {
    if let Some(span) = span
        && event.id < span.first + SPAN
    {
        return Ok(Some(Span {
            first: span.first,
            last: event.id,
            earliest: span.earliest.min(event.time_ns),
            latest: span.latest.max(event.time_ns),
        }));
    }
    if let Some(span) = span {
        save(transaction, span)?;
    }
    Ok(Some(Span {
        first: event.id,
        last: event.id,
        earliest: event.time_ns,
        latest: event.time_ns,
    }))
}

fn save(transaction: &Transaction<'_>, span: Span) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO span VALUES (?, ?, ?, ?)")?
        .execute([span.first, span.last, span.earliest, span.latest].map(signed))
        .map(drop)
}
