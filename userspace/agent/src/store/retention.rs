//! What is too old or too much goes, oldest first, a thousand at a time: the writer goes on
//! between two steps, and readers never wait.
//!
//! By size the critical ones (escapes, OOM kills, lives) stay until they alone take half of it,
//! so that a container cannot push its escape out by a flood of execs. Pages are used again; the
//! file becomes smaller only where much is free.

use std::{collections::BTreeSet, time::Duration};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{
    Bounds,
    error::Error,
    file::{meta, set_meta},
    schema::{signed, unsigned},
    write::{ROW, Table},
};
use crate::clock;

/// Events that one step deletes.
const STEP: u64 = 1024;
/// Pages that one step gives back.
const PAGES: u32 = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oldest {
    /// All but the critical ones.
    Usual,
    /// With an id up to that one, if there is one.
    Any(Option<u64>),
}

/// One step. `true`: there is more to do.
pub(super) fn step(
    connection: &mut Connection,
    table: &mut Table,
    bounds: Bounds,
) -> Result<bool, Error> {
    let failed = Error::sql("trim");
    let age = u64::try_from(bounds.max_age.as_nanos()).unwrap_or(u64::MAX);
    let before = clock::now_ns().saturating_sub(age);
    let old = too_old(connection, before).map_err(&failed)?;
    let which = if old.is_some() {
        Oldest::Any(old)
    } else if used(connection).map_err(&failed)? > bounds.max_bytes {
        let critical = meta(connection, "critical_bytes").map_err(&failed)?;
        if critical > bounds.max_bytes / 2 {
            Oldest::Any(None)
        } else {
            Oldest::Usual
        }
    } else {
        return give_back(connection, bounds).map_err(&failed);
    };
    let mut deleted = delete(connection, table, which).map_err(&failed)?;
    if deleted == 0 && which == Oldest::Usual {
        deleted = delete(connection, table, Oldest::Any(None)).map_err(&failed)?;
    }
    Ok(deleted > 0)
}

/// Bytes of pages that hold something.
pub(super) fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |name: &str| -> rusqlite::Result<u64> {
        connection
            .pragma_query_value(None, name, |row| row.get(0))
            .map(unsigned)
    };
    let pages = number("page_count")?.saturating_sub(number("freelist_count")?);
    Ok(pages * number("page_size")?)
}

/// Up to which id all is older.
fn too_old(connection: &Connection, before: u64) -> rusqlite::Result<Option<u64>> {
    // Those before the first span that is not.
    let sql = "SELECT max(last) FROM span WHERE last < \
               coalesce((SELECT min(first) FROM span WHERE latest >= ?1), 0x7fffffffffffffff)";
    let last: Option<i64> = connection
        .prepare_cached(sql)?
        .query_row([signed(before)], |row| row.get(0))?;
    Ok(last.map(unsigned))
}

fn delete(
    connection: &mut Connection,
    table: &mut Table,
    which: Oldest,
) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let floor = meta(&transaction, "floor")?;
    let (sql, from, to) = match which {
        Oldest::Usual => ("AND critical = 0", floor + 1, None),
        Oldest::Any(to) => ("", 0, to),
    };
    let to = to.unwrap_or(i64::MAX.unsigned_abs());
    let ids = {
        let sql =
            format!("SELECT id FROM event WHERE id BETWEEN ? AND ? {sql} ORDER BY id LIMIT {STEP}");
        let mut statement = transaction.prepare_cached(&sql)?;
        let ids = statement.query_map([signed(from), signed(to)], |row| row.get::<_, i64>(0))?;
        ids.collect::<rusqlite::Result<Vec<_>>>()?
    };
    let (mut containers, mut critical_bytes) = (BTreeSet::new(), 0);
    for id in &ids {
        let (container, critical, length): (Option<i64>, bool, i64) = transaction
            .prepare_cached(
                "DELETE FROM event WHERE id = ? RETURNING container, critical, length(body)",
            )?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        containers.extend(container);
        if critical {
            critical_bytes += unsigned(length) + ROW;
        }
    }
    let left = u64::try_from(ids.len()).unwrap_or(0) < STEP;
    let last = ids.last().map(|id| unsigned(*id));
    // All of a step up to `to` was there: what is not, was deleted before.
    let last = if left && to != i64::MAX.unsigned_abs() {
        Some(to)
    } else {
        last
    };
    if let Some(last) = last.filter(|last| *last > floor) {
        set_meta(&transaction, "floor", last)?;
        rise(&transaction, last)?;
    }
    if let (Oldest::Any(_), Some(last)) = (which, last) {
        transaction
            .prepare_cached("DELETE FROM span WHERE last <= ?")?
            .execute([signed(last)])?;
    }
    if critical_bytes > 0 {
        let before = meta(&transaction, "critical_bytes")?;
        set_meta(
            &transaction,
            "critical_bytes",
            before.saturating_sub(critical_bytes),
        )?;
    }
    let mut gone = 0;
    for container in containers {
        gone += transaction
            .prepare_cached(
                "DELETE FROM container WHERE key = ?1 \
                 AND NOT EXISTS (SELECT 1 FROM event WHERE container = ?1)",
            )?
            .execute([container])?;
    }
    transaction.commit()?;
    if gone > 0 {
        table.forget_containers();
    }
    Ok(ids
        .len()
        .max(usize::from(last.is_some_and(|last| last > floor))))
}

/// Holes up to the floor are part of what is gone.
fn rise(transaction: &Transaction<'_>, floor: u64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM hole WHERE last <= ?")?
        .execute([signed(floor)])
        .map(drop)
}

/// Where more is free than an eighth of all there may be.
fn give_back(connection: &Connection, bounds: Bounds) -> rusqlite::Result<bool> {
    let free: u64 = connection
        .pragma_query_value(None, "freelist_count", |row| row.get(0))
        .map(unsigned)?;
    let much = |free: u64| free * 4096 > (bounds.max_bytes / 8).max(1 << 20);
    if !much(free) {
        return Ok(false);
    }
    connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    Ok(much(free.saturating_sub(u64::from(PAGES))))
}

/// How often age is looked at where nothing happens.
pub(super) const IDLE: Duration = Duration::from_mins(1);
