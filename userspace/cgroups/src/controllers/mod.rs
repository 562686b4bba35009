//! One controller a file: what its limits come to where it lives, and its readings.

pub(crate) mod blkio;
pub(crate) mod cpu;
pub(crate) mod cpuset;
pub(crate) mod devices;
pub(crate) mod freezer;
pub(crate) mod hugetlb;
pub(crate) mod keyed;
pub(crate) mod memory;
pub(crate) mod pids;
pub(crate) mod pressure;
pub(crate) mod unified;

use std::path::PathBuf;

use crate::{Error, discovery::Version, readable::Readable};

/// A cgroup's directory in the hierarchy that has the controller in question.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) version: Version,
}

/// A limit's name for people, its controller, and its file in each version that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) limit: &'static str,
    pub(crate) controller: &'static str,
    pub(crate) v1: Option<&'static str>,
    pub(crate) v2: Option<&'static str>,
}

impl Place {
    pub(crate) fn open(self) -> Result<Readable, Error> {
        Readable::open(self.dir, self.version)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The file for a limit, or why this host has none.
    pub(crate) fn offers(&self, offer: Offer) -> Result<PathBuf, Error> {
        let (own, other) = match self.version {
            Version::V1 => (offer.v1, Version::V2),
            Version::V2 => (offer.v2, Version::V1),
        };
        let refused = |reason| Error::NotOffered {
            limit: offer.limit,
            controller: offer.controller,
            version: self.version,
            reason,
        };
        let Some(name) = own else {
            return Err(refused(format!("has no such limit, cgroup {other} has")));
        };
        let path = self.file(name);
        if path.exists() {
            Ok(path)
        } else {
            Err(refused(format!("has no {name} on this kernel")))
        }
    }
}
