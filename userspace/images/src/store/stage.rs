//! Where a pull works until all of it is right: `tmp/PID`, gone when it is dropped.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::Store;
use crate::{error::Error, remove};

#[derive(Debug)]
pub(crate) struct Staging {
    dir: PathBuf,
}

impl Store {
    /// Needs the right to change.
    pub(crate) fn stage(&self) -> Result<Staging, Error> {
        let dir = self.root.join("tmp").join(std::process::id().to_string());
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(Error::io("make", &dir))?;
        Ok(Staging { dir })
    }

    /// Removes what nobody works on any more. Needs the right to change.
    pub(super) fn sweep(&self) -> Result<(), Error> {
        let tmp = self.root.join("tmp");
        for entry in fs::read_dir(&tmp).map_err(Error::io("list", &tmp))? {
            let path = entry.map_err(Error::io("list", &tmp))?.path();
            remove::remove(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }
}

impl Staging {
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays is the next pull's to remove.
        let _ = remove::remove(&self.dir);
    }
}

/// `STAGING/layer-N`.
pub(crate) fn layer_dir(staging: &Path, layer: usize) -> PathBuf {
    staging.join(format!("layer-{layer}"))
}
