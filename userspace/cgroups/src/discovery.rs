//! Where the host keeps its controllers.
//!
//! Read from mountinfo (each v1 mount lists its controllers), the v2 root's
//! `cgroup.controllers`, `/proc/cgroups` (a controller that exists but is switched off) and
//! `/proc/filesystems` (a kernel with no cgroups at all). Any kernel since 4.5. A mount that
//! something else covers is passed over; no mount left is an error that says what to do.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use procfs::{FromBufRead as _, process::MountInfos};

use crate::{Error, Layout, file, path};

const OWN: &str = "/proc/self/cgroup";

/// Controllers paddock limits, watches or will; enabled on the way down in v2.
pub(crate) const WANTED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl std::fmt::Display for Version {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    pub(crate) version: Version,
    /// v1: also `name=systemd` and the like, which limit nothing but are joined.
    pub(crate) controllers: BTreeSet<String>,
}

impl Hierarchy {
    /// What a line of `/proc/PID/cgroup` says of this one: `ID:CONTROLLERS:PATH`.
    fn own_path<'a>(&self, line: &'a str) -> Option<&'a str> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let same = match self.version {
            Version::V2 => controllers.is_empty(),
            Version::V1 => {
                let mut named = controllers.split(',');
                named.clone().count() == self.controllers.len()
                    && named.all(|name| self.controllers.contains(name))
            }
        };
        same.then_some(path)
    }
}

/// The host's cgroup hierarchies, as mounted. Every cgroup has them, so a clone is cheap.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    v1: Arc<[Hierarchy]>,
    v2: Option<Arc<Hierarchy>>,
    /// Known to the kernel, switched off on its command line.
    disabled: Arc<BTreeSet<String>>,
}

impl Hierarchies {
    /// Reads mountinfo and `/proc/cgroups` of the calling process.
    pub fn discover() -> Result<Self, Error> {
        let mountinfo = read_proc("/proc/self/mountinfo")?;
        // Neither file needs to exist: both only make errors clearer.
        let cgroups = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        Self::from_texts(&mountinfo, &cgroups, &filesystems, |path, version| {
            let magic = match version {
                Version::V1 => CGROUP_SUPER_MAGIC,
                Version::V2 => CGROUP2_SUPER_MAGIC,
            };
            statfs(path).is_ok_and(|found| found.filesystem_type() == magic)
        })
    }

    /// `visible` says whether a mount point still shows that mount.
    fn from_texts(
        mountinfo: &str,
        cgroups: &str,
        filesystems: &str,
        visible: impl Fn(&Path, Version) -> bool,
    ) -> Result<Self, Error> {
        let mounts = MountInfos::from_buf_read(mountinfo.as_bytes()).map_err(|_| Error::Parse {
            path: "/proc/self/mountinfo".into(),
            text: mountinfo.lines().next().unwrap_or_default().to_owned(),
            expected: "proc_pid_mountinfo(5)",
        })?;
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut v2: Option<Hierarchy> = None;
        // Whole hierarchies before bind mounts of a part; else in mount order.
        let mut mounts: Vec<_> = mounts.into_iter().collect();
        mounts.sort_by_key(|mount| mount.root != "/");
        for mount in mounts {
            let version = match mount.fs_type.as_str() {
                "cgroup" => Version::V1,
                "cgroup2" => Version::V2,
                _ => continue,
            };
            let path = unescape(&mount.mount_point);
            if !visible(&path, version) {
                continue;
            }
            if version == Version::V2 {
                if v2.is_none() {
                    let listed = file::read(&path.join("cgroup.controllers"))?;
                    v2 = Some(Hierarchy {
                        mount: path,
                        version,
                        controllers: listed.split_whitespace().map(str::to_owned).collect(),
                    });
                }
                continue;
            }
            let controllers: BTreeSet<String> = mount
                .super_options
                .iter()
                .filter_map(|(key, value)| v1_controller(key, value.as_deref()))
                .collect();
            if !controllers.is_empty() && v1.iter().all(|seen| seen.controllers != controllers) {
                v1.push(Hierarchy {
                    mount: path,
                    version,
                    controllers,
                });
            }
        }
        if v1.is_empty() && v2.is_none() {
            let known = filesystems.lines().any(|line| line.contains("cgroup"));
            return Err(if known {
                Error::NotMounted
            } else {
                Error::NotInKernel
            });
        }
        Ok(Self {
            v1: v1.into(),
            v2: v2.map(Arc::new),
            disabled: Arc::new(disabled(cgroups)),
        })
    }

    /// How the controllers are spread. A v2 mount beside v1 ones is hybrid, whoever has the controllers.
    pub fn layout(&self) -> Layout {
        match (&self.v2, self.v1.is_empty()) {
            (Some(_), true) => Layout::V2,
            (Some(_), false) => Layout::Hybrid,
            (None, _) => Layout::V1,
        }
    }

    /// Mount point of the v2 hierarchy, with or without controllers.
    pub fn unified(&self) -> Option<&Path> {
        self.v2.as_ref().map(|found| found.mount.as_path())
    }

    /// Of every hierarchy, v2's first.
    pub fn mount_points(&self) -> Vec<PathBuf> {
        self.all().map(|one| one.mount.clone()).collect()
    }

    /// The calling process' own directory in each hierarchy, with its mount point, v2's first.
    /// One that is not below its mount (a cgroup namespace, a bind mount of a part) is an error.
    pub fn own_directories(&self) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
        self.directories_of(&read_proc(OWN)?)
    }

    /// By the text of `/proc/PID/cgroup`: see cgroups(7).
    fn directories_of(&self, text: &str) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
        let place = |one: &Hierarchy| {
            let path = text.lines().find_map(|line| one.own_path(line));
            let path = path.unwrap_or_default();
            let own = match path.strip_prefix('/') {
                Some("") => one.mount.clone(),
                Some(path) if path::components(path).is_ok() => one.mount.join(path),
                _ => {
                    return Err(Error::Parse {
                        path: OWN.into(),
                        text: path.to_owned(),
                        expected: "a path below a mounted cgroup hierarchy",
                    });
                }
            };
            if !own.is_dir() {
                return Err(Error::NotFound {
                    path: own.display().to_string(),
                });
            }
            Ok((one.mount.clone(), own))
        };
        self.all().map(place).collect()
    }

    /// Where a controller lives: layout as a word and the mount point. For `check`.
    pub fn locate(&self, controller: &str) -> Option<(Layout, &Path)> {
        self.of(controller).map(|found| {
            let layout = match found.version {
                Version::V1 => Layout::V1,
                Version::V2 => Layout::V2,
            };
            (layout, found.mount.as_path())
        })
    }

    /// Every controller found, sorted, with its layout and mount point. For `check`.
    pub fn controllers(&self) -> Vec<(String, Layout, PathBuf)> {
        let names: BTreeSet<&String> = self.all().flat_map(|one| &one.controllers).collect();
        names
            .into_iter()
            .filter_map(|name| {
                let (layout, path) = self.locate(name)?;
                Some((name.clone(), layout, path.to_owned()))
            })
            .collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Hierarchy> {
        self.v2.as_deref().into_iter().chain(&*self.v1)
    }

    /// v1 first: the kernel gives a controller to one hierarchy only.
    pub(crate) fn of(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1
            .iter()
            .chain(self.v2.as_deref())
            .find(|one| one.controllers.contains(controller))
    }

    pub(crate) fn require(&self, controller: &'static str) -> Result<&Hierarchy, Error> {
        self.of(controller).ok_or_else(|| Error::NoController {
            controller,
            hint: if self.disabled.contains(controller) {
                ": it is disabled on the kernel's command line"
            } else {
                ""
            },
        })
    }

    /// For tests: hierarchies over directories that stand for mounts.
    #[cfg(test)]
    pub(crate) fn fixture(v1: &[(&Path, &[&str])], v2: Option<(&Path, &[&str])>) -> Self {
        let one = |version, (mount, controllers): &(&Path, &[&str])| Hierarchy {
            mount: mount.to_path_buf(),
            version,
            controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
        };
        Self {
            v1: v1.iter().map(|item| one(Version::V1, item)).collect(),
            v2: v2.as_ref().map(|item| Arc::new(one(Version::V2, item))),
            disabled: Arc::default(),
        }
    }
}

fn read_proc(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Io {
        op: "read",
        path: path.into(),
        source,
    })
}

/// A v1 mount's super options are its controllers among flags; a named one is `name=systemd`.
fn v1_controller(key: &str, value: Option<&str>) -> Option<String> {
    const FLAGS: [&str; 9] = [
        "rw",
        "ro",
        "xattr",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
        "release_agent",
        "none",
        "favordynmods",
    ];
    match (key, value) {
        ("name", Some(name)) => Some(format!("name={name}")),
        (key, None) if !FLAGS.contains(&key) => Some(key.to_owned()),
        _ => None,
    }
}

/// Lines of `/proc/cgroups` whose last column is 0.
fn disabled(cgroups: &str) -> BTreeSet<String> {
    cgroups
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let name = columns.next()?;
            (columns.next_back() == Some("0")).then(|| name.to_owned())
        })
        .collect()
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescape(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = code {
            out.push(char::from(byte));
            rest = &rest[at + 4..];
        } else {
            out.push('\\');
            rest = &rest[at + 1..];
        }
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
