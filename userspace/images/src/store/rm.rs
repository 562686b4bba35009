//! Removal of an image: its name, then it, then the layers that no other image has.

use std::{collections::BTreeSet, fs};

use super::{Record, Staging, Store, read};
use crate::{
    digest::Digest,
    error::Error,
    progress::{Cancel, Progress},
    reference::Reference,
    writable,
};

impl Store {
    /// By name, of which it may have others and then stays; or by id, with all its names.
    pub fn remove(
        &self,
        name: &str,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let missing = || Error::NotFound {
            name: crate::error::shown(name.as_bytes()),
        };
        if !self.root.join("tmp").exists() {
            return Err(missing());
        }
        let _changes = self.lock_changes(progress, cancel)?;
        let staging = self.stage()?;
        let _lock = self.lock_exclusive()?;
        let id = self.resolve(name)?.ok_or_else(missing)?;
        let mut names = self.names()?;
        let canonical = name.parse::<Reference>().map(|name| name.to_string());
        let others = names.iter().any(|(other, named)| {
            *named == id && canonical.as_ref().is_ok_and(|canonical| other != canonical)
        });
        let removed = canonical.is_ok_and(|canonical| names.remove(&canonical).is_some());
        if removed && others {
            return self.write_names(staging.path(), &names);
        }
        if let Some(container) = writable::user_of(self.data(), id)? {
            return Err(Error::InUse {
                image: Reference::familiar(name).to_owned(),
                container,
            });
        }
        names.retain(|_, named| *named != id);
        self.write_names(staging.path(), &names)?;
        let dir = self.image_dir(id);
        fs::rename(&dir, staging.path().join("image")).map_err(Error::io("remove", &dir))?;
        self.drop_layers(&staging)
    }

    /// Moves layers without an image into `staging`, which removes them. Needs both locks.
    fn drop_layers(&self, staging: &Staging) -> Result<(), Error> {
        let mut used: BTreeSet<Digest> = BTreeSet::new();
        for id in self.ids()? {
            let record: Record = read(&self.image_dir(id).join("image.json"))?;
            used.extend(record.layers);
        }
        for layer in super::digests(&self.root.join("layer"))? {
            if !used.contains(&layer) {
                let dir = self.layer_dir(layer);
                let to = staging.path().join(layer.hex());
                fs::rename(&dir, to).map_err(Error::io("remove", &dir))?;
            }
        }
        Ok(())
    }
}
