//! Attributes that overlayfs would take from the wrong layer.
//!
//! A layer that holds `tmp/x` need not hold `tmp`; unpacked alone it gets a plain `tmp`, which
//! would hide the mode of the one below. And a merged root has the attributes of the upper
//! directory alone. So a container's upper directory is made with what these directories are
//! to have; they are found once, when the image comes.

use std::{collections::BTreeSet, os::fd::OwnedFd, path::PathBuf};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, openat, openat2,
        statat,
    },
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{error::Error, layer::Facts, remove::kind};

/// A directory to be made in the upper one; an empty path is the upper one itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Attributes {
    fn new(path: &str, stat: Option<Stat>) -> Self {
        Self {
            path: path.to_owned(),
            mode: stat.map_or(0o755, |stat| stat.st_mode & 0o7777),
            uid: stat.map_or(0, |stat| stat.st_uid),
            gid: stat.map_or(0, |stat| stat.st_gid),
        }
    }
}

/// What one layer says of a path.
enum Seen {
    /// It has the directory by an entry of its own.
    Directory(Stat),
    /// It has something else there, or hides what is below.
    Other,
    /// It has the directory only for what is in it, and hides what is below.
    Bottom,
    Nothing,
}

struct Layer<'a> {
    fs: OwnedFd,
    facts: &'a Facts,
}

/// Of a stack of layers, the lowest first; parents come before what is in them.
pub(super) fn directories<'a>(layers: &[(PathBuf, &'a Facts)]) -> Result<Vec<Attributes>, Error> {
    let open = |(path, facts): &(PathBuf, &'a Facts)| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fs = openat(CWD, path, flags, Mode::empty());
        let fs = fs.map_err(|errno| Error::io("open", path)(errno.into()))?;
        Ok(Layer { fs, facts })
    };
    let layers: Vec<Layer<'_>> = layers.iter().map(open).collect::<Result<_, Error>>()?;
    let root = layers.iter().rev().find(|layer| layer.facts.root);
    let root = root.map(|layer| statat(&layer.fs, c"", AtFlags::EMPTY_PATH));
    let root = root
        .transpose()
        .map_err(|errno| Error::io("look at", "a layer")(errno.into()))?;
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    for path in layers.iter().flat_map(|layer| &layer.facts.implicit) {
        if is_wanted(&layers, path) {
            let ends = path.match_indices('/').map(|(at, _)| at);
            wanted.extend(ends.map(|end| &path[..end]));
            wanted.insert(path);
        }
    }
    let found = wanted
        .into_iter()
        .map(|path| Attributes::new(path, topmost(&layers, path)));
    Ok([Attributes::new("", root)]
        .into_iter()
        .chain(found)
        .collect())
}

/// It shows as a directory, and the topmost layer that has it does not say how.
fn is_wanted(layers: &[Layer<'_>], path: &str) -> bool {
    let mut implicit = false;
    for layer in layers.iter().rev() {
        match layer.see(path) {
            Seen::Directory(_) => return implicit,
            Seen::Other | Seen::Bottom => return false,
            Seen::Nothing => implicit |= layer.facts.implicit.iter().any(|one| one == path),
        }
    }
    false
}

fn topmost(layers: &[Layer<'_>], path: &str) -> Option<Stat> {
    for layer in layers.iter().rev() {
        match layer.see(path) {
            Seen::Directory(stat) => return Some(stat),
            Seen::Other | Seen::Bottom => return None,
            Seen::Nothing => {}
        }
    }
    None
}

impl Layer<'_> {
    fn see(&self, path: &str) -> Seen {
        let implicit = self.facts.implicit.iter().any(|one| one == path);
        let ends = path
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        let mut last = None;
        let mut opaque = false;
        for end in ends {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            match openat2(&self.fs, &path[..end], flags, Mode::empty(), within) {
                Ok(fd) => {
                    let mut value = [0; 4];
                    opaque |= fgetxattr(&fd, c"trusted.overlay.opaque", &mut value) == Ok(1);
                    last = Some(fd);
                }
                Err(Errno::NOENT) if opaque => return Seen::Other,
                Err(Errno::NOENT) => return Seen::Nothing,
                Err(_) => return Seen::Other,
            }
        }
        let stat = last.and_then(|fd| rustix::fs::fstat(&fd).ok());
        match stat {
            Some(stat) if !implicit && kind(&stat) == FileType::Directory => Seen::Directory(stat),
            Some(_) if implicit && opaque => Seen::Bottom,
            Some(_) if implicit => Seen::Nothing,
            _ => Seen::Other,
        }
    }
}
