//! Import: a root file system, as a tar or a directory, becomes an image of one layer.
//!
//! A directory is packed into a tar first, so both come in the same checked way.

mod pack;

use std::{fs::File, os::fd::AsFd as _, path::Path};

use crate::{
    digest::Digest,
    error::Error,
    layer::{self, Budget, Expected, Limits},
    manifest::{self, ImageConfig, Layers, RunConfig},
    progress::{Cancel, Progress, Watched},
    pull::{Pulled, new_layer},
    reference::Reference,
    source::{Part, files},
    store::{New, Staging, Store, layer_dir, write_json},
};

/// All of it comes into the store, or nothing.
pub fn import(
    store: &Store,
    from: &Path,
    name: &Reference,
    limits: Limits,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Pulled, Error> {
    store.prepare()?;
    let _changes = store.lock_changes(progress, cancel)?;
    let staging = store.stage()?;
    let new = read(&staging, from, name, limits, progress, cancel).map_err(|error| {
        if cancel.is_set() {
            Error::Interrupted
        } else {
            error
        }
    })?;
    let id = store.publish(&staging, &new)?;
    Ok(Pulled { id, name: new.name })
}

fn read(
    staging: &Staging,
    from: &Path,
    name: &Reference,
    limits: Limits,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<New, Error> {
    let file = if from.is_dir() {
        packed(staging, from, limits, cancel)?
    } else {
        files::open(from)?
    };
    let part = Part::whole(file).map_err(Error::io("look at", from))?;
    progress.begin(0, Digest::of(b""), Some(part.length()));
    progress.unpacking(0);
    let watched = Watched {
        inner: part.reader(),
        layer: 0,
        progress,
        cancel,
    };
    let dir = layer_dir(staging.path(), 0);
    let root = new_layer(&dir)?;
    let expected = Expected {
        blob: None,
        diff_id: None,
    };
    let mut budget = Budget::new(limits);
    let unpacked = layer::unpack(watched, expected, root.as_fd(), &mut budget);
    let (diff_id, facts) = unpacked.map_err(|error| told(error, from))?;
    write_json(&dir.join("layer.json"), &facts)?;
    progress.done(0, false);
    let config = ImageConfig {
        architecture: manifest::architecture().to_owned(),
        os: "linux".to_owned(),
        created: None,
        config: Some(RunConfig::default()),
        rootfs: Layers {
            kind: "layers".to_owned(),
            diff_ids: vec![diff_id],
        },
    };
    let config = serde_json::to_vec(&config)
        .map_err(|error| Error::broken("the image's config", error.to_string()))?;
    Ok(New {
        name: name.to_string(),
        config,
        layers: vec![(diff_id, facts, Some(dir))],
    })
}

fn packed(staging: &Staging, from: &Path, limits: Limits, cancel: &Cancel) -> Result<File, Error> {
    let path = staging.path().join("packed");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(Error::io("make", &path))?;
    pack::pack(from, &file, limits.bytes, cancel)?;
    Ok(file)
}

/// A tar that came by path has no digest to be called by.
fn told(error: Error, from: &Path) -> Error {
    let what = from.display().to_string();
    match error {
        Error::Entry { entry, reason, .. } => {
            Error::broken(what, format!("entry '{entry}': {reason}"))
        }
        Error::Layer { reason, .. } => Error::broken(what, reason),
        other => other,
    }
}
