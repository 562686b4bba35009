//! What is mounted in a container, and the device nodes of its /dev.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{IdMaps, Joined};

/// One mount. Its target is made when missing and never leads out of the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of a mount, on or off"
)]
pub struct Mount {
    /// Absolute, inside.
    pub target: PathBuf,
    pub source: MountSource,
    /// `MOUNT_ATTR_*` bits to set and to clear.
    pub set: u64,
    pub clear: u64,
    /// The same for all that is mounted below a bind.
    pub recursive: bool,
    pub propagation: Propagation,
    /// Whether symlinks on the way, inside the root, are followed. /dev, /proc and /sys must
    /// be what they seem; a volume goes where its path leads.
    pub follow: bool,
    /// Left out where nothing is at its target, instead of making that.
    #[serde(default)]
    pub only_there: bool,
    /// Shows a bind's files with their owners taken through these maps; `None`: as on disk.
    #[serde(default)]
    pub id_maps: Option<IdMaps>,
    /// A bind's files become the program's user's, on disk.
    #[serde(default)]
    pub chown: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the host's, with what is mounted below it or without.
    Bind { path: PathBuf, recursive: bool },
    /// What is mounted there in another mount namespace, such as another container's /dev/shm.
    Of {
        mount_namespace: Joined,
        path: PathBuf,
    },
    /// A new file system, made by the child in its own namespaces; parameters as in mount(8)'s
    /// `-o`, a flag without a value.
    New {
        kind: String,
        parameters: Vec<(String, Option<String>)>,
    },
    /// A tmpfs with docker's nodes and links and the spec's devices.
    Dev {
        /// Bytes.
        size: u64,
    },
    /// A new instance of devpts, which has the container's terminal.
    Devpts,
    /// The host's hierarchies, rooted at the container's cgroup.
    Cgroups,
}

/// mount_namespaces(7). What a container mounts is never seen outside but where it is `Shared`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    #[default]
    Private,
    Slave,
    Shared,
    Unbindable,
}

/// A node in the container's /dev.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute, below /dev.
    pub path: PathBuf,
    /// `c`, `b` or `p`.
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Mount {
    /// One of the container's own file systems, at a path that no symlink may replace.
    pub fn fixed(target: &str, source: MountSource, set: u64) -> Self {
        Self {
            target: target.into(),
            source,
            set,
            clear: 0,
            recursive: false,
            propagation: Propagation::Private,
            follow: false,
            only_there: false,
            id_maps: None,
            chown: false,
        }
    }
}

impl MountSource {
    pub fn new(kind: &str) -> Self {
        Self::New {
            kind: kind.to_owned(),
            parameters: Vec::new(),
        }
    }
}
