//! The store: `DATA/images`, root's alone.
//!
//! ```text
//! lock            held for moments: shared to read, exclusive to change what is below
//! pull.lock       held by the one that pulls, imports or removes
//! names.json      canonical name → image id
//! image/HEX/      config.json as it came, image.json of ours; HEX is the config's digest
//! layer/HEX/      fs/, the layer unpacked, and layer.json; HEX is the diff_id
//! tmp/            staging; whoever gets pull.lock empties it
//! ```
//!
//! Layers come by rename before the image that needs them, and the image before its name: a
//! crash at any point leaves at most a layer or an image that nothing names.

mod attributes;
mod publish;
mod rm;
mod stage;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use self::{
    attributes::Attributes,
    publish::{New, write_json},
    stage::{Staging, layer_dir},
};
use crate::{
    digest::Digest,
    error::Error,
    layer::Facts,
    manifest::{ImageConfig, RunConfig},
    progress::{Cancel, Progress},
    reference::Reference,
};

#[derive(Clone, Debug)]
pub struct Store {
    data: PathBuf,
    root: PathBuf,
}

/// An image that a container can start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub id: Digest,
    pub config: RunConfig,
    /// Directories for overlayfs, the topmost first.
    pub lower: Vec<PathBuf>,
    pub(crate) directories: Vec<Attributes>,
}

/// A row of `images ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub id: Digest,
    /// Canonical; none when its name went to another image.
    pub names: Vec<String>,
    pub created: Option<String>,
    pub pulled_at_ns: u64,
    /// Bytes of its layers' tars; shared ones count for each image.
    pub size: u64,
    pub layers: Vec<Digest>,
}

/// `image.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) pulled_at_ns: u64,
    pub(crate) size: u64,
    /// All, the lowest first.
    pub(crate) layers: Vec<Digest>,
    /// What shows, the topmost first.
    pub(crate) lower: Vec<Digest>,
    pub(crate) directories: Vec<Attributes>,
}

type Names = BTreeMap<String, Digest>;

/// Freed when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Store {
    /// The store of a data directory, which need not be there yet.
    pub fn at(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            root: data.join("images"),
        }
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// By name or by the beginning of its id. `None`: not here.
    pub fn find(&self, name: &str) -> Result<Option<Image>, Error> {
        let Some(_lock) = self.lock_shared()? else {
            return Ok(None);
        };
        match self.resolve(name)? {
            Some(id) => self.image(id).map(Some),
            None => Ok(None),
        }
    }

    /// All images, the newest first.
    pub fn list(&self) -> Result<Vec<Summary>, Error> {
        let Some(_lock) = self.lock_shared()? else {
            return Ok(Vec::new());
        };
        let names = self.names()?;
        let mut all = Vec::new();
        for id in self.ids()? {
            let record: Record = read(&self.image_dir(id).join("image.json"))?;
            let config: ImageConfig = read(&self.image_dir(id).join("config.json"))?;
            let is_of = |(name, named): (&String, &Digest)| (*named == id).then(|| name.clone());
            all.push(Summary {
                id,
                names: names.iter().filter_map(is_of).collect(),
                created: config.created,
                pulled_at_ns: record.pulled_at_ns,
                size: record.size,
                layers: record.layers,
            });
        }
        all.sort_by_key(|image| std::cmp::Reverse(image.pulled_at_ns));
        Ok(all)
    }

    /// Needs a lock.
    pub(crate) fn image(&self, id: Digest) -> Result<Image, Error> {
        let dir = self.image_dir(id);
        let record: Record = read(&dir.join("image.json"))?;
        let config: ImageConfig = read(&dir.join("config.json"))?;
        Ok(Image {
            id,
            config: config.config.unwrap_or_default(),
            lower: record
                .lower
                .iter()
                .map(|layer| self.layer_dir(*layer).join("fs"))
                .collect(),
            directories: record.directories,
        })
    }

    /// Needs a lock.
    pub(crate) fn has_image(&self, id: Digest) -> bool {
        self.image_dir(id).join("image.json").exists()
    }

    /// It is here by that name.
    pub(crate) fn is_named(&self, name: &str, id: Digest) -> Result<bool, Error> {
        let _lock = self.lock_shared()?;
        Ok(self.names()?.get(name) == Some(&id) && self.has_image(id))
    }

    /// Needs a lock.
    pub(crate) fn layer(&self, diff_id: Digest) -> Option<Facts> {
        read(&self.layer_dir(diff_id).join("layer.json")).ok()
    }

    pub(crate) fn layer_dir(&self, diff_id: Digest) -> PathBuf {
        self.root.join("layer").join(diff_id.hex())
    }

    fn image_dir(&self, id: Digest) -> PathBuf {
        self.root.join("image").join(id.hex())
    }

    fn names(&self) -> Result<Names, Error> {
        let path = self.root.join("names.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Error::io("understand", path)(io::Error::other(error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Names::new()),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    fn ids(&self) -> Result<Vec<Digest>, Error> {
        digests(&self.root.join("image"))
    }

    /// docker's order: a name first, then an id.
    fn resolve(&self, name: &str) -> Result<Option<Digest>, Error> {
        let names = self.names()?;
        if let Ok(reference) = name.parse::<Reference>()
            && let Some(id) = names.get(&reference.to_string())
        {
            return Ok(Some(*id));
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let is_id = (4..=64).contains(&hex.len()) && hex.bytes().all(|c| c.is_ascii_hexdigit());
        if !is_id {
            return Ok(None);
        }
        let mut fitting = self
            .ids()?
            .into_iter()
            .filter(|id| id.hex().starts_with(hex));
        match (fitting.next(), fitting.next()) {
            (Some(_), Some(_)) => Err(Error::Ambiguous {
                prefix: hex.to_owned(),
            }),
            (one, _) => Ok(one),
        }
    }

    /// Makes what is missing, and refuses a directory that others could have filled.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        if let Some(parent) = self.data.parent()
            && !parent.exists()
        {
            fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
        }
        private(&self.data)?;
        private(&self.root)?;
        for name in ["image", "layer", "tmp"] {
            private(&self.root.join(name))?;
        }
        Ok(())
    }

    /// `None`: there is no store.
    pub(crate) fn lock_shared(&self) -> Result<Option<Lock>, Error> {
        let path = self.root.join("lock");
        match File::options().read(true).open(&path) {
            Ok(file) => lock(file, &path, FlockOperation::LockShared).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    fn lock_exclusive(&self) -> Result<Lock, Error> {
        let path = self.root.join("lock");
        lock(open_lock(&path)?, &path, FlockOperation::LockExclusive)
    }

    /// The right to change the store. What an interrupted predecessor left goes.
    pub(crate) fn lock_changes(
        &self,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Lock, Error> {
        const STEP: Duration = Duration::from_millis(50);
        let path = self.root.join("pull.lock");
        let file = open_lock(&path)?;
        let mut told = false;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    if !std::mem::replace(&mut told, true) {
                        progress.waiting();
                    }
                    cancel.check()?;
                    std::thread::sleep(STEP);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::io("lock", path)(errno.into())),
            }
        }
        self.sweep()?;
        Ok(Lock { _file: file })
    }
}

fn open_lock(path: &Path) -> Result<File, Error> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(Error::io("open", path))
}

fn lock(file: File, path: &Path, how: FlockOperation) -> Result<Lock, Error> {
    loop {
        match flock(&file, how) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::io("lock", path)(errno.into())),
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::io("understand", path)(io::Error::other(error)))
}

/// Names of a directory that are digests.
fn digests(dir: &Path) -> Result<Vec<Digest>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let mut digests = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        digests.extend(format!("sha256:{name}").parse::<Digest>());
    }
    Ok(digests)
}

/// Made 0700, or there, root's and closed to others.
pub(crate) fn private(dir: &Path) -> Result<(), Error> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("make", dir)(error)),
    }
    let found = fs::symlink_metadata(dir).map_err(Error::io("look at", dir))?;
    let unsafe_because = |reason: String| {
        Err(Error::Unsafe {
            path: dir.to_owned(),
            reason,
        })
    };
    if found.is_symlink() {
        // Followed once, for the directory itself; below it nobody else could put one.
        let target = fs::canonicalize(dir).map_err(Error::io("resolve", dir))?;
        return private(&target);
    }
    if !found.is_dir() {
        return unsafe_because("is not a directory".to_owned());
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return unsafe_because("belongs to another user".to_owned());
    }
    if found.mode() & 0o077 != 0 {
        return unsafe_because(format!("is open to others: chmod 700 {}", dir.display()));
    }
    Ok(())
}
