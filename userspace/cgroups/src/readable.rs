//! A cgroup's directory, opened once for all that is read in it: on the way to a file kernfs
//! takes a lock for each name of its path.

use std::{fs, io, os::fd::OwnedFd, path::PathBuf};

use nix::{
    fcntl::{OFlag, open, openat},
    sys::stat::Mode,
};

use crate::{Error, Version, file};

#[derive(Debug)]
pub(crate) struct Readable {
    dir: PathBuf,
    pub(crate) version: Version,
    /// None where there is no such directory.
    at: Option<OwnedFd>,
}

impl Readable {
    pub(crate) fn open(dir: PathBuf, version: Version) -> Result<Self, Error> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let at = open(&dir, flags, Mode::empty()).map_err(|errno| Error::Io {
            op: "open",
            path: dir.clone(),
            source: errno.into(),
        });
        let at = match at {
            Ok(at) => Some(at),
            Err(error) if error.is_gone() => None,
            Err(error) => return Err(error),
        };
        Ok(Self { dir, version, at })
    }

    pub(crate) fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// `None` where this kernel or this cgroup has no such file.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(at) = &self.at else { return Ok(None) };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(at, name, flags, Mode::empty()).map(fs::File::from);
        let text = opened.map_err(io::Error::from).and_then(file::contents);
        file::optional(text.map_err(|source| Error::Io {
            op: "read",
            path: self.dir.join(name),
            source,
        }))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        file::number(&self.dir.join(name), text).map(Some)
    }
}
