//! One controller a file: writes a limit where its controller lives and reads it back.

pub(crate) mod cpu;
pub(crate) mod cpuset;
pub(crate) mod freezer;
pub(crate) mod memory;
pub(crate) mod pids;

use std::path::PathBuf;

use crate::discovery::Version;

/// A cgroup's directory in the hierarchy that has the controller in question.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) version: Version,
}

impl Place {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}
