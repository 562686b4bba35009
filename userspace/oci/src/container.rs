//! A container's directory below `--root`: its lock, its record, the socket that starts it.
//!
//! Mode 0700. The record is written whole and renamed into place; whoever changes something
//! holds the lock. A runtime that was killed leaves a directory that `delete --force` takes
//! away with everything the record names.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::Signal,
};
use oci_spec::runtime::Spec;
use paddock_cgroups::{Cgroup, Hierarchies};
use paddock_runtime::direct::{self, Found};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{error::Error, id};

const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";
const LOCK: &str = "lock";
const START: &str = "start.sock";

/// What is known of a container between two calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// Seconds since the epoch, as RFC 3339.
    pub created: String,
    /// 0 until there is one.
    pub pid: i32,
    pub start_time: u64,
    /// The runtime that makes it, or made it.
    pub creator: (i32, u64),
    /// `create` has done its part.
    pub ready: bool,
    /// Relative, in every hierarchy. `None`: it has none and is in its callers', which are
    /// never to be touched.
    pub cgroup: Option<String>,
    /// Its parents are paddock's own, too.
    pub own_parents: bool,
    pub annotations: BTreeMap<String, String>,
    pub owner: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

/// A container whose lock is held.
#[derive(Debug)]
pub(crate) struct Container {
    pub directory: PathBuf,
    pub record: Record,
    _lock: Flock<File>,
}

impl Record {
    /// `None` where it has none.
    pub(crate) fn open_cgroup(&self) -> Result<Option<Cgroup>, Error> {
        let Some(path) = &self.cgroup else {
            return Ok(None);
        };
        Ok(Some(Cgroup::open(&Hierarchies::discover()?, path)?))
    }

    /// For what is done to a cgroup, and to nothing else.
    pub(crate) fn needed_cgroup(&self, verb: &'static str) -> Result<Cgroup, Error> {
        self.open_cgroup()?.ok_or_else(|| self.no_cgroup(verb))
    }

    /// Said before anything about its status is.
    pub(crate) fn check_cgroup(&self, verb: &'static str) -> Result<(), Error> {
        match self.cgroup {
            Some(_) => Ok(()),
            None => Err(self.no_cgroup(verb)),
        }
    }

    fn no_cgroup(&self, verb: &'static str) -> Error {
        Error::NoCgroup {
            verb,
            id: self.id.clone(),
        }
    }
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl Container {
    /// Makes the directory; an id that is there already is an error.
    pub(crate) fn create(root: &Path, record: Record, config: &[u8]) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(Error::io("create", root))?;
        let directory = root.join(&record.id);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists { id: record.id });
            }
            other => other.map_err(Error::io("create", &directory))?,
        }
        let made = || {
            let lock = lock(&directory, true)?;
            write(&directory, CONFIG, config)?;
            let container = Self {
                directory: directory.clone(),
                record,
                _lock: lock,
            };
            container.save()?;
            Ok(container)
        };
        made().inspect_err(|_: &Error| {
            let _ = fs::remove_dir_all(&directory);
        })
    }

    /// Waits for whoever holds the lock. A directory without a record is `None` here.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Self, Error> {
        let directory = directory(root, id)?;
        let lock = lock(&directory, false).map_err(|error| gone(error, id))?;
        let record = read(&directory).map_err(|error| gone(error, id))?;
        Ok(Self {
            directory,
            record,
            _lock: lock,
        })
    }

    pub(crate) fn save(&self) -> Result<(), Error> {
        let text = serde_json::to_vec(&self.record)
            .map_err(|error| Error::io("write", self.directory.join(RECORD))(error.into()))?;
        write(&self.directory, RECORD, &text)
    }

    pub(crate) fn config(&self) -> Result<Spec, Error> {
        Ok(crate::config::load(&self.directory.join(CONFIG))?.0)
    }

    pub(crate) fn start_socket(&self) -> PathBuf {
        self.directory.join(START)
    }

    pub(crate) fn process(&self) -> Option<Found> {
        process(&self.record)
    }

    pub(crate) fn status(&self) -> Status {
        status(&self.directory, &self.record)
    }

    /// Kills all in its cgroup and waits for that. Without one: the first process, with which
    /// all of a pid namespace of its own goes; nobody knows of others.
    pub(crate) fn end(&self) -> Result<(), Error> {
        if let Some(cgroup) = self.record.open_cgroup()? {
            return Ok(cgroup.kill()?);
        }
        let Record {
            pid, start_time, ..
        } = self.record;
        // Not by its state: a dead first thread looks like an ended process.
        let Some(first) = (pid > 0).then(|| direct::find(pid, start_time)).flatten() else {
            return Ok(());
        };
        let failed = |errno: Errno| Error::io("kill", format!("/proc/{pid}"))(errno.into());
        match first.signal(Signal::SIGKILL as i32) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(failed(errno)),
        }
        if first.ends_within(END).map_err(failed)? {
            Ok(())
        } else {
            Err(failed(Errno::ETIMEDOUT))
        }
    }

    /// Everything on disk.
    pub(crate) fn forget(self) -> Result<(), Error> {
        fs::remove_dir_all(&self.directory).map_err(Error::io("remove", &self.directory))
    }
}

/// A process in an uninterruptible wait dies only after it.
const END: Duration = Duration::from_secs(10);

/// Making a container takes milliseconds, and who asks for its state wants to hear the end of
/// that; but a hook asks in the middle of it and must get an answer.
const SETTLE: Duration = Duration::from_millis(300);

/// Without the lock: what it was a moment ago, also while it is being made.
pub(crate) fn peek(root: &Path, id: &str) -> Result<(Record, Status), Error> {
    let directory = directory(root, id)?;
    let deadline = Instant::now() + SETTLE;
    loop {
        let record = read(&directory).map_err(|error| gone(error, id))?;
        let status = status(&directory, &record);
        if status != Status::Creating || Instant::now() > deadline {
            return Ok((record, status));
        }
        sleep(SETTLE / 100);
    }
}

/// The ids below `root`, sorted.
pub(crate) fn ids(root: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(root) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("list", root))?,
    };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| id::check(name).is_ok())
        .collect();
    found.sort();
    Ok(found)
}

/// The state that the specification wants, as hooks and `state` get it.
pub(crate) fn state(record: &Record, status: Status) -> serde_json::Value {
    let stopped = status == Status::Stopped;
    json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "status": status.word(),
        "pid": if stopped { 0 } else { record.pid },
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": record.owner,
        "annotations": record.annotations,
    })
}

/// The directory of a container whose record is missing or nonsense.
pub(crate) fn broken(root: &Path, id: &str) -> Result<Option<PathBuf>, Error> {
    let directory = directory(root, id)?;
    Ok((directory.is_dir() && read(&directory).is_err()).then_some(directory))
}

fn directory(root: &Path, id: &str) -> Result<PathBuf, Error> {
    id::check(id)?;
    Ok(root.join(id))
}

fn gone(error: Error, id: &str) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Error::NotFound { id: id.to_owned() }
        }
        other => other,
    }
}

fn read(directory: &Path) -> Result<Record, Error> {
    Ok(crate::config::read(&directory.join(RECORD))?.0)
}

fn write(directory: &Path, name: &str, text: &[u8]) -> Result<(), Error> {
    let path = directory.join(name);
    let new = directory.join(format!(".{name}.new"));
    File::create(&new)
        .and_then(|mut file| file.write_all(text))
        .and_then(|()| fs::rename(&new, &path))
        .map_err(Error::io("write", &path))
}

/// A container that was deleted while this waited has taken its lock along.
fn lock(directory: &Path, create: bool) -> Result<Flock<File>, Error> {
    let path = directory.join(LOCK);
    let file = File::options()
        .write(true)
        .create(create)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    let mut file = file;
    let locked = loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(locked) => break locked,
            Err((back, Errno::EINTR)) => file = back,
            Err((_, errno)) => return Err(Error::io("lock", &path)(errno.into())),
        }
    };
    let same = |found: &fs::Metadata| {
        locked
            .metadata()
            .is_ok_and(|held| (held.dev(), held.ino()) == (found.dev(), found.ino()))
    };
    match fs::metadata(&path) {
        Ok(found) if same(&found) => Ok(locked),
        Ok(_) => Err(Error::io("open", &path)(io::ErrorKind::NotFound.into())),
        Err(source) => Err(Error::io("open", &path)(source)),
    }
}

fn process(record: &Record) -> Option<Found> {
    let found = (record.pid > 0).then(|| direct::find(record.pid, record.start_time))??;
    // A dead one that its parent has not waited for still has a number and a start time.
    let stat = fs::read_to_string(format!("/proc/{}/stat", record.pid)).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    (!matches!(state, 'Z' | 'X')).then_some(found)
}

fn status(directory: &Path, record: &Record) -> Status {
    let creator = || direct::find(record.creator.0, record.creator.1).is_some();
    if !record.ready && creator() {
        return Status::Creating;
    }
    if process(record).is_none() {
        return Status::Stopped;
    }
    if directory.join(START).exists() {
        return Status::Created;
    }
    let cgroup = record.open_cgroup().ok().flatten();
    if cgroup.is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false)) {
        Status::Paused
    } else {
        Status::Running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cgroup: &serde_json::Value) -> Record {
        serde_json::from_value(json!({
            "oci_version": "1.2.0", "id": "one", "bundle": "/b", "rootfs": "/b/rootfs",
            "created": "", "pid": 0, "start_time": 0, "creator": [0, 0], "ready": true,
            "cgroup": cgroup, "own_parents": false, "annotations": {}, "owner": "",
        }))
        .unwrap()
    }

    #[test]
    fn a_record_says_that_there_is_no_cgroup() {
        let without = record(&json!(null));
        assert!(without.open_cgroup().unwrap().is_none());
        let line = without.needed_cgroup("pause").unwrap_err().line();
        assert!(
            line.contains("\"one\"") && line.contains("disabled"),
            "{line}"
        );
        assert_eq!(without.check_cgroup("pause").unwrap_err().line(), line);
        let written = serde_json::to_value(&without).unwrap();
        assert_eq!(record(&written["cgroup"]), without);
        // As written by a release that knew no other.
        let with = record(&json!("paddock-oci/one"));
        assert_eq!(with.cgroup.as_deref(), Some("paddock-oci/one"));
        assert!(with.check_cgroup("pause").is_ok());
    }

    /// A record of somebody's making must not stand for the root, where everybody is.
    #[test]
    fn an_empty_path_is_no_cgroup() {
        for path in ["", "/", ".", "../x"] {
            assert!(record(&json!(path)).open_cgroup().is_err(), "{path:?}");
        }
    }
}
