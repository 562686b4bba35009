//! Reading: a connection of its own, in short transactions, so that the writer's log stays small.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::{
    error::Error,
    file::{self, meta},
    query::{Wanted, Whose},
    schema::{signed, unsigned},
    unsaved::Hole,
    write::cursor_name,
};
use crate::event::Event;

/// Ids that one query looks at: what it takes is bounded also where next to nothing fits.
const WINDOW: u64 = 1 << 20;
/// Containers that an id's beginning may mean.
const KEYS: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Reader {
    connection: Connection,
}

/// Ids that fit, in order, and up to which there are no others.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) ids: Vec<u64>,
    pub(super) looked_to: u64,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            op: "resolve",
            path: path.to_owned(),
            source,
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let directory = std::fs::canonicalize(directory).map_err(failed)?;
        let path = directory.join(path.file_name().unwrap_or_default());
        let connection = file::connect(&path, false)?;
        connection
            .pragma_update(None, "cache_size", -512)
            .map_err(Error::sql("set up"))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { connection })
    }

    /// All that `act` reads is of one moment.
    pub(super) fn at_once<T>(
        &self,
        act: impl FnOnce(&Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let transaction = self
            .connection
            .unchecked_transaction()
            .map_err(Error::sql("read"))?;
        let done = act(self)?;
        transaction.finish().map_err(Error::sql("read"))?;
        Ok(done)
    }

    pub(super) fn find(&self, id: u64) -> Result<Option<Event>, Error> {
        let body = self.body(id)?;
        Ok(body.and_then(|body| serde_json::from_slice(&body).ok()))
    }

    /// The JSON line, without its end.
    pub(super) fn body(&self, id: u64) -> Result<Option<Vec<u8>>, Error> {
        let read = || {
            self.connection
                .prepare_cached("SELECT body FROM event WHERE id = ?")?
                .query_row([signed(id)], |row| row.get(0))
                .optional()
        };
        read().map_err(Error::sql("read"))
    }

    pub(super) fn near(
        &self,
        container: &str,
        time_ns: u64,
        span: u64,
    ) -> Result<Vec<Event>, Error> {
        let wanted = Wanted {
            whose: Whose::Id(container.to_owned()),
            since_ns: time_ns.saturating_sub(span),
            until_ns: Some(time_ns.saturating_add(span)),
            ..Wanted::default()
        };
        self.at_once(|reader| {
            let Some((first, last)) = reader.ids_of(&wanted)? else {
                return Ok(Vec::new());
            };
            let keys = reader.keys(&wanted)?;
            let found = reader.ids(&wanted, keys.as_deref(), first - 1, last, 4096)?;
            let mut events = Vec::new();
            for id in found.ids {
                events.extend(reader.find(id)?);
            }
            Ok(events)
        })
    }

    /// The first and the last id that can be of the times that are wanted; `None`: there is none.
    pub(super) fn ids_of(&self, wanted: &Wanted) -> Result<Option<(u64, u64)>, Error> {
        let sql = "SELECT min(first), max(last) FROM span WHERE latest >= ? AND earliest <= ?";
        let read = || {
            self.connection.prepare_cached(sql)?.query_row(
                [
                    signed(wanted.since_ns),
                    wanted.until_ns.map_or(i64::MAX, signed),
                ],
                |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)),
            )
        };
        let (first, last) = read().map_err(Error::sql("read"))?;
        Ok(first
            .zip(last)
            .map(|(first, last)| (unsigned(first), unsigned(last))))
    }

    /// Of the containers that are meant; `None`: of all.
    pub(super) fn keys(&self, wanted: &Wanted) -> Result<Option<Vec<i64>>, Error> {
        let read = |sql: &str, words: &[&str]| -> rusqlite::Result<Vec<i64>> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let words = rusqlite::params_from_iter(words);
            statement.query_map(words, |row| row.get(0))?.collect()
        };
        let keys = match &wanted.whose {
            Whose::All => return Ok(None),
            Whose::Id(id) => read("SELECT key FROM container WHERE id = ?", &[id]),
            Whose::Reference(reference) => {
                let sql = format!(
                    "SELECT key FROM container WHERE name = ?1 UNION \
                     SELECT key FROM container WHERE id >= ?1 AND id < ?2 LIMIT {KEYS}"
                );
                let end = format!("{reference}\u{10ffff}");
                read(&sql, &[reference, &end])
            }
        };
        keys.map(Some).map_err(Error::sql("read"))
    }

    /// Those that fit after one id and up to another.
    pub(super) fn ids(
        &self,
        wanted: &Wanted,
        keys: Option<&[i64]>,
        after: u64,
        to: u64,
        limit: usize,
    ) -> Result<Found, Error> {
        let end = to.min(after.saturating_add(WINDOW));
        let mut ids = Vec::new();
        for select in wanted.selects(keys, false, limit) {
            ids.extend(self.numbers(&select, after, end)?);
        }
        ids.sort_unstable();
        let looked_to = if ids.len() >= limit {
            ids.truncate(limit);
            ids.last().copied().unwrap_or(end)
        } else {
            end
        };
        Ok(Found { ids, looked_to })
    }

    /// The last ones that fit, the newest first.
    pub(super) fn last_ids(&self, wanted: &Wanted, limit: usize) -> Result<Vec<u64>, Error> {
        let keys = self.keys(wanted)?;
        let Some((first, last)) = self.ids_of(wanted)? else {
            return Ok(Vec::new());
        };
        let mut ids = Vec::new();
        for select in wanted.selects(keys.as_deref(), true, limit) {
            ids.extend(self.numbers(&select, first.saturating_sub(1), last)?);
        }
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        ids.truncate(limit);
        Ok(ids)
    }

    fn numbers(&self, select: &str, after: u64, to: u64) -> Result<Vec<u64>, Error> {
        let read = || -> rusqlite::Result<Vec<u64>> {
            let mut statement = self.connection.prepare_cached(select)?;
            let ids =
                statement.query_map([signed(after), signed(to)], |row| row.get(0).map(unsigned))?;
            ids.collect()
        };
        read().map_err(Error::sql("read"))
    }

    /// The id of the oldest that is stored, or will be.
    pub(super) fn oldest(&self) -> Result<u64, Error> {
        let read = || {
            let sql = "SELECT coalesce((SELECT min(id) FROM event), (SELECT value FROM meta WHERE name = 'next'), 1)";
            self.connection
                .prepare_cached(sql)?
                .query_row([], |row| row.get(0).map(unsigned))
        };
        read().map_err(Error::sql("read"))
    }

    /// Up to where a receiver has got events.
    pub(crate) fn cursor(&self, receiver: &str) -> Result<Option<u64>, Error> {
        let id = meta(&self.connection, &cursor_name(receiver)).map_err(Error::sql("read"))?;
        Ok((id > 0).then_some(id))
    }

    /// Up to which id only critical ones may be left.
    pub(super) fn floor(&self) -> Result<u64, Error> {
        meta(&self.connection, "floor").map_err(Error::sql("read"))
    }

    /// Ids of critical ones after one and up to another, in order, handed to `each`.
    pub(super) fn critical(
        &self,
        after: u64,
        to: u64,
        mut each: impl FnMut(u64),
    ) -> Result<(), Error> {
        let sql = "SELECT id FROM event INDEXED BY by_critical \
                   WHERE critical = 1 AND id > ? AND id <= ?";
        let mut read = || -> rusqlite::Result<()> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let mut rows = statement.query([signed(after), signed(to)])?;
            while let Some(row) = rows.next()? {
                each(row.get(0).map(unsigned)?);
            }
            Ok(())
        };
        read().map_err(Error::sql("read"))
    }

    /// What touches the ids after one and up to another, in order.
    pub(super) fn holes(&self, after: u64, to: u64) -> Result<Vec<Hole>, Error> {
        let sql = "SELECT first, last FROM hole WHERE last > ? AND first <= ? ORDER BY first";
        let read = || -> rusqlite::Result<Vec<Hole>> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let holes = statement.query_map([signed(after), signed(to)], |row| {
                Ok(Hole {
                    first: unsigned(row.get(0)?),
                    last: unsigned(row.get(1)?),
                })
            })?;
            holes.collect()
        };
        read().map_err(Error::sql("read"))
    }
}
