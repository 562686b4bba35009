//! What a container writes over its image: `DATA/containers/INSTANCE/ID/{upper,work}`.
//!
//! `use.json` beside them says which image it stands on, so that nobody removes that. Instances
//! share a data directory and know only their own containers.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    error::Error,
    remove,
    store::{Attributes, Image, Store, private},
};

/// Of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writable {
    dir: PathBuf,
}

/// `use.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Use {
    image: Digest,
    /// The container's own directory: one that is gone uses nothing.
    container: PathBuf,
}

impl Writable {
    /// That of container `id`, made or not.
    pub fn of(data: &Path, instance: &str, id: &str) -> Self {
        Self {
            dir: data.join("containers").join(instance).join(id),
        }
    }

    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Makes it, and looks its image up meanwhile, so that both are there or nothing is.
    /// `container`: the directory that stays as long as the container does.
    pub fn create(&self, store: &Store, image: Digest, container: &Path) -> Result<Image, Error> {
        let missing = || Error::NotFound {
            name: image.to_string(),
        };
        let _lock = store.lock_shared()?.ok_or_else(missing)?;
        if !store.has_image(image) {
            return Err(missing());
        }
        let image = store.image(image)?;
        let result = self.make(store, &image, container);
        if result.is_err() {
            // The first error tells.
            let _ = self.remove();
        }
        result.map(|()| image)
    }

    fn make(&self, store: &Store, image: &Image, container: &Path) -> Result<(), Error> {
        self.make_private(store)?;
        let used = Use {
            image: image.id,
            container: container.to_owned(),
        };
        crate::store::write_json(&self.dir.join("use.json"), &used)?;
        for dir in [self.upper(), self.work()] {
            fs::DirBuilder::new()
                .mode(0o755)
                .create(&dir)
                .map_err(Error::io("make", &dir))?;
        }
        self.directories(image, Attributes::clone)
    }

    /// Before the first run of a container whose ids are others outside: gives what `create`
    /// made to the host's numbers, by `uid` and `gid`. Where there is none it is the host's
    /// root's and nobody's to write, as the kernel has it with a layer's files.
    pub fn give(
        &self,
        store: &Store,
        image: Digest,
        uid: impl Fn(u32) -> Option<u32>,
        gid: impl Fn(u32) -> Option<u32>,
    ) -> Result<(), Error> {
        let _lock = store.lock_shared()?;
        self.directories(&store.image(image)?, |attributes| {
            match uid(attributes.uid).zip(gid(attributes.gid)) {
                Some((uid, gid)) => Attributes {
                    uid,
                    gid,
                    ..attributes.clone()
                },
                None => Attributes {
                    uid: 0,
                    gid: 0,
                    mode: attributes.mode & 0o755,
                    ..attributes.clone()
                },
            }
        })
    }

    fn directories(
        &self,
        image: &Image,
        change: impl Fn(&Attributes) -> Attributes,
    ) -> Result<(), Error> {
        let upper = self.upper();
        for attributes in image.directories.iter().map(change) {
            directory(&upper, &attributes)
                .map_err(|errno| Error::io("make", upper.join(&attributes.path))(errno.into()))?;
        }
        Ok(())
    }

    /// Its directory with the parents, which the last of other containers takes away as it goes.
    fn make_private(&self, store: &Store) -> Result<(), Error> {
        const TRIES: usize = 100;
        let instance = self.dir.parent().unwrap_or(&self.dir);
        private(store.data())?;
        let once = || {
            private(&store.data().join("containers"))?;
            private(instance)?;
            private(&self.dir)
        };
        let gone = |result: &Result<(), Error>| matches!(result, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound);
        let mut made = once();
        for _ in 1..TRIES {
            if !gone(&made) {
                break;
            }
            made = once();
        }
        made
    }

    /// Removes all of it; nothing there is fine.
    pub fn remove(&self) -> Result<(), Error> {
        remove::remove(&self.dir).map_err(Error::io("remove", &self.dir))?;
        // The last one's directories go with it.
        for parent in self.dir.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

/// Removes an instance's that `keep` does not know; what of theirs can't be removed is returned.
pub fn sweep(data: &Path, instance: &str, keep: impl Fn(&str) -> bool) -> Vec<Error> {
    let dir = data.join("containers").join(instance);
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    let mut failed = Vec::new();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !keep(&name) {
            failed.extend(Writable::of(data, instance, &name).remove().err());
        }
    }
    failed
}

/// A container that stands on the image.
pub(crate) fn user_of(data: &Path, image: Digest) -> Result<Option<String>, Error> {
    let dir = data.join("containers");
    let instances = match fs::read_dir(&dir) {
        Ok(instances) => instances,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let containers = instances
        .flatten()
        .filter_map(|entry| fs::read_dir(entry.path()).ok());
    for entry in containers.flat_map(Iterator::flatten) {
        let bytes = fs::read(entry.path().join("use.json")).unwrap_or_default();
        let Ok(used) = serde_json::from_slice::<Use>(&bytes) else {
            continue;
        };
        if used.image == image && used.container.exists() {
            let name = entry.file_name().to_string_lossy().into_owned();
            return Ok(Some(name.chars().take(12).collect()));
        }
    }
    Ok(None)
}

/// One of the upper directory's own; those above it were made before.
fn directory(upper: &Path, attributes: &Attributes) -> Result<(), rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut fd = openat(CWD, upper, flags, Mode::empty())?;
    for part in attributes.path.split('/').filter(|part| !part.is_empty()) {
        match mkdirat(&fd, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        fd = openat(&fd, part, flags, Mode::empty())?;
    }
    fchown(
        &fd,
        Some(Uid::from_raw(attributes.uid)),
        Some(Gid::from_raw(attributes.gid)),
    )?;
    fchmod(&fd, Mode::from_raw_mode(attributes.mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::TempDir;

    #[test]
    fn one_is_made_while_the_last_other_goes() {
        let scratch = TempDir::new();
        let data = scratch.path().join("data");
        let store = Store::at(&data);
        let make_and_remove = |id: &str| {
            for _ in 0..500 {
                let one = Writable::of(&data, "i", id);
                one.make_private(&store).expect("make");
                one.remove().expect("remove");
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| make_and_remove("a"));
            scope.spawn(|| make_and_remove("b"));
        });
        assert!(!data.join("containers").exists());
    }
}
