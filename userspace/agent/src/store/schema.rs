//! Tables and their indices, and what is a number in them.
//!
//! `event.body` is the event's JSON line; all other columns are for finding it. `by_container`
//! and `by_kind` cover a search, so that only what fits is read from the table. `span` has for
//! each few thousand ids the times in them, so that a time becomes a range of ids: ids grow by
//! the order of publishing, which is nearly that of time. `hole` has ids that were given and are
//! not stored; up to `meta.floor` all but the critical ones may have been deleted.

use rusqlite::Connection;

use crate::event::{Event, KINDS, Kind, Verdict};

/// `pdev`.
pub(super) const APPLICATION_ID: i32 = 0x7064_6576;
pub(super) const VERSION: i32 = 1;

/// Events that one row of `span` is of.
pub(super) const SPAN: u64 = 4096;

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE container (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    name TEXT NOT NULL
);
CREATE UNIQUE INDEX container_id ON container (id, name);
CREATE INDEX container_name ON container (name);
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    container INTEGER,
    kind INTEGER NOT NULL,
    verdict INTEGER,
    critical INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX by_container ON event (container, id, time, kind, verdict) WHERE container IS NOT NULL;
CREATE INDEX by_kind ON event (kind, id, time, verdict);
CREATE INDEX by_critical ON event (id) WHERE critical = 1;
CREATE TABLE span (first INTEGER PRIMARY KEY, last INTEGER, earliest INTEGER, latest INTEGER);
CREATE TABLE hole (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);
";

/// A new, empty file.
pub(super) fn make(connection: &Connection) -> rusqlite::Result<()> {
    // Before the first table, or it has no effect.
    connection.pragma_update(None, "auto_vacuum", "incremental")?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.execute_batch(&format!(
        "BEGIN;{TABLES}PRAGMA user_version = {VERSION};COMMIT;"
    ))
}

/// For the connection that writes.
pub(super) fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    // What was committed survives a kill of the agent; of a power cut only what was
    // checkpointed, and neither breaks the file.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "journal_size_limit", 8 << 20)?;
    connection.pragma_update(None, "cache_size", -4096)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

pub(super) fn kind_number(kind: &Kind) -> i64 {
    word_number(kind.name())
}

/// Of one of [`KINDS`].
pub(super) fn word_number(word: &str) -> i64 {
    let place = KINDS.iter().position(|known| *known == word);
    place
        .and_then(|place| i64::try_from(place).ok())
        .unwrap_or(-1)
}

pub(super) const fn verdict_number(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::Benign => 0,
        Verdict::Notable => 1,
        Verdict::EscapeAttempt => 2,
        Verdict::Escape => 3,
    }
}

/// SQLite's integers are signed; times last until 2262.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The line as readers get it, without its end. Our own types always serialise.
pub(super) fn body(event: &Event) -> Vec<u8> {
    serde_json::to_vec(event).unwrap_or_default()
}
