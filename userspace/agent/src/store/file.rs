//! The file: made with care, opened, recognised, or put aside.
//!
//! `DATA` and `DATA/events` are root's alone, so that nobody else can put a link in the way;
//! SQLite itself opens by name, and is told to follow none.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::OFlag;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::{
    error::Error,
    schema::{self, APPLICATION_ID, VERSION, signed, unsigned},
};
use crate::{bus::HISTORY, chain::chain, event::Event};

/// What a reader that reads a chunk may hold the writer up, and the other way.
const BUSY: Duration = Duration::from_secs(2);

/// A store that can be written.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    next: u64,
}

pub(super) fn path(data_dir: &Path, instance: &str) -> PathBuf {
    data_dir.join("events").join(format!("{instance}.db"))
}

/// Opens or makes it; what is no store is put aside first. `next` is an id that was not given
/// yet, as far as is known otherwise.
pub(super) fn open(path: &Path, next: u64) -> Result<Opened, Error> {
    let path = prepare(path)?;
    match open_as_it_is(&path, next) {
        Err(error) if error.is_of_the_file() => {
            put_aside(&path, &error)?;
            open_as_it_is(&path, next)
        }
        opened => opened,
    }
}

/// Directory and file are there, and safe; the path without links.
fn prepare(path: &Path) -> Result<PathBuf, Error> {
    let failed = |op| {
        move |source| Error::Io {
            op,
            path: path.to_owned(),
            source,
        }
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    if let Some(data) = directory.parent() {
        if let Some(parent) = data.parent() {
            fs::create_dir_all(parent).map_err(failed("make the directory of"))?;
        }
        private(data, true)?;
    }
    private(directory, false)?;
    let directory = fs::canonicalize(directory).map_err(failed("resolve the directory of"))?;
    let path = directory.join(path.file_name().unwrap_or_default());
    // SQLite gives its other files the mode of this one.
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(&path)
        .map_err(failed("open"))?;
    let found = file.metadata().map_err(failed("look at"))?;
    if !found.is_file() || found.uid() != nix::unistd::geteuid().as_raw() || found.nlink() != 1 {
        return Err(Error::Unsafe {
            path,
            reason: "is not a file of paddock's own: move it away",
        });
    }
    Ok(path)
}

fn private(directory: &Path, follow: bool) -> Result<(), Error> {
    let failed = |op| {
        move |source| Error::Io {
            op,
            path: directory.to_owned(),
            source,
        }
    };
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make")(error));
        }
        _ => {}
    }
    let found = if follow {
        fs::metadata(directory)
    } else {
        fs::symlink_metadata(directory)
    };
    let found = found.map_err(failed("look at"))?;
    let reason = if !found.is_dir() {
        "is not a directory"
    } else if found.uid() != nix::unistd::geteuid().as_raw() {
        "belongs to another user"
    } else if found.mode() & 0o022 != 0 {
        "can be written by others: chmod 700 it"
    } else {
        return Ok(());
    };
    Err(Error::Unsafe {
        path: directory.to_owned(),
        reason,
    })
}

/// A connection to a prepared file.
pub(super) fn connect(path: &Path, write: bool) -> Result<Connection, Error> {
    let mode = if write {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    } else {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    };
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags).map_err(Error::sql("open"))?;
    connection
        .busy_timeout(BUSY)
        .map_err(Error::sql("set up"))?;
    Ok(connection)
}

fn open_as_it_is(path: &Path, next: u64) -> Result<Opened, Error> {
    let connection = connect(path, true)?;
    let number = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .map_err(Error::sql("recognise"))
    };
    let (application, version) = (number("application_id")?, number("user_version")?);
    let foreign = |reason: String| Error::Foreign {
        path: path.to_owned(),
        reason,
    };
    if number("schema_version")? == 0 {
        schema::make(&connection).map_err(Error::sql("make"))?;
    } else if application != APPLICATION_ID {
        return Err(foreign("is a database of something else".to_owned()));
    } else if version != VERSION {
        return Err(foreign(format!("has version {version}, not {VERSION}")));
    }
    schema::tune(&connection).map_err(Error::sql("set up"))?;
    let next = go_on(&connection, next).map_err(Error::sql("read"))?;
    Ok(Opened { connection, next })
}

/// The next id. What was given since the last one that is stored is a hole.
fn go_on(connection: &Connection, known: u64) -> rusqlite::Result<u64> {
    let stored = meta(connection, "next")?.max(1);
    let next = stored.max(known);
    let any = meta(connection, "floor")? > 0 || stored > 1;
    if next > stored {
        let sql = if any {
            "INSERT OR REPLACE INTO hole VALUES (?1, ?2)"
        } else {
            // Begun anew: all that was before is gone.
            "INSERT OR REPLACE INTO meta SELECT 'floor', ?2 WHERE ?1 > 0"
        };
        connection.execute(sql, [signed(stored), signed(next - 1)])?;
        set_meta(connection, "next", next)?;
    }
    Ok(next)
}

/// 0 where there is none.
pub(super) fn meta(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE name = ?")?;
    let value = statement.query_row([name], |row| row.get(0)).optional()?;
    Ok(value.map_or(0, unsigned))
}

pub(super) fn set_meta(connection: &Connection, name: &str, value: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta VALUES (?, ?)")?
        .execute((name, signed(value)))
        .map(drop)
}

impl Opened {
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The last ones of each class, for the bus.
    pub(super) fn recent(&self) -> Vec<Event> {
        let read = |critical: u8| -> rusqlite::Result<Vec<Event>> {
            let sql = format!(
                "SELECT body FROM event WHERE critical = {critical} ORDER BY id DESC LIMIT {HISTORY}"
            );
            let mut statement = self.connection.prepare(&sql)?;
            let bodies = statement.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
            let mut events = Vec::new();
            for body in bodies {
                // One of another build may not be understood.
                events.extend(serde_json::from_slice::<Event>(&body?).ok());
            }
            Ok(events)
        };
        let mut all = Vec::new();
        for critical in [0, 1] {
            match read(critical) {
                Ok(events) => all.extend(events),
                Err(error) => tracing::warn!("stored events cannot be read: {}", chain(&error)),
            }
        }
        all.sort_unstable_by_key(|event| event.id);
        all
    }
}

/// Out of the way, where somebody can look at it; the one before goes.
pub(super) fn put_aside(path: &Path, why: &Error) -> Result<(), Error> {
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = beside(".bad");
    tracing::error!(
        "events are begun anew, the former store is now {}: {}",
        aside.display(),
        chain(why)
    );
    fs::rename(path, &aside).map_err(|source| Error::Io {
        op: "put aside",
        path: path.to_owned(),
        source,
    })?;
    for end in ["-wal", "-shm"] {
        // A log that is not of the next file would be taken for its.
        match fs::remove_file(beside(end)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io {
                    op: "remove",
                    path: beside(end),
                    source,
                });
            }
            _ => {}
        }
    }
    let path = prepare(path)?;
    debug_assert!(path.exists(), "made anew");
    Ok(())
}
