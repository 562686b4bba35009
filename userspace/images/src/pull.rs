//! Pull an image: find it, fetch what is missing, unpack it in staging, publish it whole.

use std::{
    fs::{self, File},
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use crate::{
    digest::Digest,
    error::Error,
    layer::{self, Budget, Facts, Limits},
    progress::{Cancel, Progress, Watched},
    reference::Reference,
    source::{
        Blob, Files, Part, Place, docker, layout,
        registry::{Registry, Wanted, blob_file},
    },
    store::{New, Staging, Store, layer_dir, write_json},
};

/// How registries are spoken to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registries {
    /// HTTP without TLS also to other machines.
    pub plain_http: bool,
}

/// An image that is in the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    pub id: Digest,
    /// Canonical.
    pub name: String,
}

/// All of it comes into the store, or nothing.
pub fn pull(
    store: &Store,
    reference: &Reference,
    registries: Registries,
    limits: Limits,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Pulled, Error> {
    store.prepare()?;
    let _changes = store.lock_changes(progress, cancel)?;
    let staging = store.stage()?;
    let archive = |file| Files::archive(file, staging.path(), limits.bytes, cancel);
    let (found, registry) = match reference {
        Reference::Oci { dir, tag } => {
            (layout::find(&Files::directory(dir)?, tag.as_deref())?, None)
        }
        Reference::OciArchive { file, tag } => {
            (layout::find(&archive(file)?, tag.as_deref())?, None)
        }
        Reference::DockerArchive { file, name } => {
            (docker::find(&archive(file)?, name.as_deref())?, None)
        }
        Reference::Registry(name) => {
            let registry = Registry::open(name, registries.plain_http, cancel)?;
            (registry.find()?, Some(registry))
        }
    };
    let mut work = Work {
        store,
        staging: &staging,
        progress,
        cancel,
        budget: Budget::new(limits),
        layers: Vec::new(),
    };
    work.unpack(&found.layers, registry.as_ref())
        // The reader that ended it says so in words; this is what was meant.
        .map_err(|error| {
            if cancel.is_set() {
                Error::Interrupted
            } else {
                error
            }
        })?;
    let new = New {
        name: reference.to_string(),
        config: found.config,
        layers: work.layers,
    };
    let is_new = new.layers.iter().any(|(.., staged)| staged.is_some());
    let id = Digest::of(&new.config);
    // As it was, with nothing to write to the disk.
    if is_new || !store.is_named(&new.name, id)? {
        store.publish(&staging, &new)?;
    }
    Ok(Pulled { id, name: new.name })
}

struct Work<'a> {
    store: &'a Store,
    staging: &'a Staging,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    budget: Budget,
    layers: Vec<(Digest, Facts, Option<PathBuf>)>,
}

impl Work<'_> {
    fn unpack(&mut self, blobs: &[Blob], registry: Option<&Registry<'_>>) -> Result<(), Error> {
        let is_present: Vec<bool> = blobs
            .iter()
            .map(|blob| self.present(blob).is_some())
            .collect();
        let mut fetched = self.fetch(blobs, &is_present, registry)?.into_iter();
        for (index, blob) in blobs.iter().enumerate() {
            if let Some((diff_id, facts)) = self.present(blob) {
                let digest = blob.expected.blob.map_or(diff_id, |(digest, _)| digest);
                self.progress.begin(index, digest, None);
                self.progress.done(index, true);
                self.layers.push((diff_id, facts, None));
                continue;
            }
            let part = match &blob.place {
                Place::Here(part) => {
                    let digest = blob.expected.blob.map(|(digest, _)| digest);
                    let name = digest.or(blob.expected.diff_id).unwrap_or(Digest::of(b""));
                    self.progress.begin(index, name, Some(part.length()));
                    self.progress.unpacking(index);
                    part.clone()
                }
                Place::Remote => fetched
                    .next()
                    .ok_or_else(|| Error::broken("registry", "a layer was not fetched"))?,
            };
            let unpacked = self.layer(index, blob, &part)?;
            self.layers.push(unpacked);
            // Room for the next one.
            let _ = fs::remove_file(blob_file(self.staging.path(), index));
            self.progress.done(index, false);
        }
        Ok(())
    }

    /// In the store, or come with a layer before.
    fn present(&self, blob: &Blob) -> Option<(Digest, Facts)> {
        let diff_id = blob.expected.diff_id?;
        let before = self.layers.iter().find(|(before, ..)| *before == diff_id);
        let facts = before
            .map(|(_, facts, _)| facts.clone())
            .or_else(|| self.store.layer(diff_id))?;
        Some((diff_id, facts))
    }

    fn fetch(
        &self,
        blobs: &[Blob],
        is_present: &[bool],
        registry: Option<&Registry<'_>>,
    ) -> Result<Vec<Part>, Error> {
        let Some(registry) = registry else {
            return Ok(Vec::new());
        };
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut seen = Vec::new();
        for (index, blob) in blobs.iter().enumerate() {
            // Twice the same layer is fetched once.
            if is_present[index] || seen.contains(&blob.expected.diff_id) {
                continue;
            }
            seen.push(blob.expected.diff_id);
            wanted.extend(blob.expected.blob.map(|(digest, size)| Wanted {
                layer: index,
                digest,
                size,
                to: blob_file(self.staging.path(), index),
            }));
        }
        registry.fetch(&wanted, self.progress)
    }

    fn layer(
        &mut self,
        index: usize,
        blob: &Blob,
        part: &Part,
    ) -> Result<(Digest, Facts, Option<PathBuf>), Error> {
        let watched = Watched {
            inner: part.reader(),
            layer: index,
            progress: self.progress,
            cancel: self.cancel,
        };
        let dir = layer_dir(self.staging.path(), index);
        let root = new_layer(&dir)?;
        let (diff_id, facts) =
            layer::unpack(watched, blob.expected, root.as_fd(), &mut self.budget)?;
        write_json(&dir.join("layer.json"), &facts)?;
        Ok((diff_id, facts, Some(dir)))
    }
}

/// Makes a layer's directory and its empty root.
pub(crate) fn new_layer(dir: &Path) -> Result<File, Error> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(dir)
        .map_err(Error::io("make", dir))?;
    let root = dir.join("fs");
    fs::create_dir(&root)
        .and_then(|()| fs::set_permissions(&root, fs::Permissions::from_mode(0o755)))
        .and_then(|()| File::open(&root))
        .map_err(Error::io("make", &root))
}
