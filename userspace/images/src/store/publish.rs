//! From staging into the store, in the order that a crash can't hurt.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{Names, Record, Staging, Store, attributes::directories};
use crate::{digest::Digest, error::Error, layer::Facts};

/// An image, unpacked and checked.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) name: String,
    pub(crate) config: Vec<u8>,
    /// The lowest first. One that is staged lies in the path.
    pub(crate) layers: Vec<(Digest, Facts, Option<PathBuf>)>,
}

impl Store {
    /// Returns its id. Needs the right to change.
    pub(crate) fn publish(&self, staging: &Staging, new: &New) -> Result<Digest, Error> {
        let id = Digest::of(&new.config);
        let image = staging.path().join("image");
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&image)
            .map_err(Error::io("make", &image))?;
        write(&image.join("config.json"), &new.config)?;
        write_json(&image.join("image.json"), &self.record(new)?)?;
        let dir = File::open(staging.path()).map_err(Error::io("open", staging.path()))?;
        rustix::fs::syncfs(&dir)
            .map_err(|errno| Error::io("write back", &self.root)(errno.into()))?;

        let _lock = self.lock_exclusive()?;
        for (diff_id, _, staged) in &new.layers {
            if let Some(staged) = staged {
                settle(staged, &self.layer_dir(*diff_id))?;
            }
        }
        settle(&image, &self.image_dir(id))?;
        let mut names = self.names()?;
        names.insert(new.name.clone(), id);
        self.write_names(staging.path(), &names)?;
        Ok(id)
    }

    pub(super) fn write_names(&self, scratch: &Path, names: &Names) -> Result<(), Error> {
        let written = scratch.join("names.json");
        write_json(&written, names)?;
        let to = self.root.join("names.json");
        fs::rename(&written, &to).map_err(Error::io("replace", &to))?;
        sync_directory(&self.root)
    }

    fn record(&self, new: &New) -> Result<Record, Error> {
        let trees: Vec<_> = new
            .layers
            .iter()
            .map(|(diff_id, facts, staged)| {
                let dir = staged.clone().unwrap_or_else(|| self.layer_dir(*diff_id));
                (dir.join("fs"), facts)
            })
            .collect();
        let opaque = new
            .layers
            .iter()
            .rposition(|(_, facts, _)| facts.opaque)
            .unwrap_or(0);
        let layers: Vec<Digest> = new.layers.iter().map(|(diff_id, ..)| *diff_id).collect();
        let mut lower = Vec::new();
        for layer in layers[opaque..].iter().rev() {
            // Twice the same adds nothing, and overlayfs refuses it (ELOOP).
            if !lower.contains(layer) {
                lower.push(*layer);
            }
        }
        Ok(Record {
            pulled_at_ns: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|since| u64::try_from(since.as_nanos()).ok())
                .unwrap_or(0),
            size: new.layers.iter().map(|(_, facts, _)| facts.bytes).sum(),
            directories: directories(&trees[opaque..])?,
            lower,
            layers,
        })
    }
}

/// Renames; what is there already is the same by its digest.
fn settle(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::rename(from, to) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(Error::io("publish", to)(error)),
        Ok(()) => sync_directory(to.parent().unwrap_or(to)),
    }
}

fn sync_directory(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("write back", dir))
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::io("write", path)(io::Error::other(error)))?;
    write(path, &bytes)
}

/// To the disk.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(Error::io("write", path))
}
