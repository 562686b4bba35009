//! Stop and continue every task of a cgroup: v1 `freezer.state`, v2 `cgroup.freeze` (5.2).
//!
//! Both are asynchronous: the file is polled until the kernel says it has happened.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{Error, discovery::Version, file};

use super::Place;

const TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) fn set(place: &Place, name: &str, frozen: bool) -> Result<(), Error> {
    let wanted = if frozen { "frozen" } else { "thawed" };
    let deadline = Instant::now() + TIMEOUT;
    write(place, frozen)?;
    while is_frozen(place)? != frozen {
        if Instant::now() > deadline {
            return Err(Error::FreezeTimeout {
                path: name.to_owned(),
                wanted,
                seconds: TIMEOUT.as_secs(),
            });
        }
        sleep(PAUSE);
        // v1 can hang in FREEZING when a task forks meanwhile; the write again picks it up.
        write(place, frozen)?;
    }
    Ok(())
}

fn write(place: &Place, frozen: bool) -> Result<(), Error> {
    let (name, value) = match (place.version, frozen) {
        (Version::V1, true) => ("freezer.state", "FROZEN"),
        (Version::V1, false) => ("freezer.state", "THAWED"),
        (Version::V2, true) => ("cgroup.freeze", "1"),
        (Version::V2, false) => ("cgroup.freeze", "0"),
    };
    match file::write(&place.file(name), value) {
        // A killed one can end, and its cgroup go, before it is thawed.
        Err(error) if !frozen && error.is_gone() => Ok(()),
        other => other,
    }
}

/// One that is gone is not.
pub(crate) fn is_frozen(place: &Place) -> Result<bool, Error> {
    let name = match place.version {
        Version::V1 => "freezer.state",
        Version::V2 => "cgroup.events",
    };
    let text = file::read_optional(&place.file(name))?.unwrap_or_default();
    Ok(match place.version {
        Version::V1 => text == "FROZEN",
        Version::V2 => file::flat_key(&text, "frozen") == Some(1),
    })
}
