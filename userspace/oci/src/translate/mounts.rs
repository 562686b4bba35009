//! A bundle's mounts, in their order.
//!
//! /dev as a tmpfs is the launcher's own, with the devices the specification promises; devpts
//! is its own where the terminal comes from it. Without a cgroup namespace the container sees
//! its own cgroups by bind mounts, never the host's. Where it has none these are the caller's,
//! in a cgroup namespace too, and read-only whatever the bundle says: who may write there can
//! kill, freeze and limit the caller.

use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    libc,
};
use oci_spec::runtime as oci;
use paddock_cgroups::Hierarchies;
use paddock_runtime::spec::{Mount, MountSource, Namespaces, Propagation};

use super::options::{self, Options};
use crate::{config::shorten, error::Error};

/// What a mount's translation depends on.
#[derive(Debug)]
pub(super) struct Around<'a> {
    pub bundle: &'a Path,
    pub root: &'a File,
    pub terminal: bool,
    pub namespaces: &'a Namespaces,
    /// `None`: it is in the caller's.
    pub cgroup: Option<(&'a str, &'a Hierarchies)>,
}

/// File systems that a new instance of is made without a device.
const NEW: [&str; 9] = [
    "proc",
    "sysfs",
    "tmpfs",
    "mqueue",
    "devpts",
    "ramfs",
    "hugetlbfs",
    "overlay",
    "bpf",
];

/// Docker's size of /dev.
const DEV_SIZE: u64 = 64 << 20;

pub(super) fn translate(
    mounts: &mut Vec<Mount>,
    mount: &oci::Mount,
    around: &Around<'_>,
) -> Result<(), Error> {
    let wrong =
        |why: &str| Error::config(format!("mount {}: {why}", mount.destination().display()));
    if !mount.destination().is_absolute() {
        return Err(wrong("destination must be absolute"));
    }
    let maps = [mount.uid_mappings(), mount.gid_mappings()];
    if maps.into_iter().flatten().any(|maps| !maps.is_empty()) {
        return Err(wrong("id-mapped mounts are not supported"));
    }
    let mut options = options::parse(mount)?;
    if options.copy_up && !is_empty(around.root, mount.destination()) {
        return Err(wrong(
            "option tmpcopyup: the directory below is not empty, and copying it is not supported",
        ));
    }
    let kind = mount.typ().as_deref().unwrap_or("none");
    let target = mount.destination().clone();
    let recursive = options.bind;
    if kind == "bind" || recursive.is_some() {
        if !options.data.is_empty() {
            let words: Vec<_> = options.data.iter().map(|(key, _)| key.as_str()).collect();
            return Err(wrong(&format!(
                "unknown option {} of a bind mount",
                shorten(&words.join(","))
            )));
        }
        let source = mount
            .source()
            .as_ref()
            .ok_or_else(|| wrong("source is missing"))?;
        let path = around.bundle.join(source);
        let source = MountSource::Bind {
            path,
            recursive: recursive.unwrap_or(false),
        };
        mounts.push(place(target, source, &options));
        return Ok(());
    }
    let own = |path: &str| same(&target, path);
    match kind {
        "cgroup" | "cgroup2" => {
            if around.cgroup.is_none() {
                options.set |= libc::MOUNT_ATTR_RDONLY;
                options.clear &= !libc::MOUNT_ATTR_RDONLY;
            }
            if around.namespaces.cgroup.is_new() {
                mounts.push(fixed(target, MountSource::Cgroups, &options));
            } else {
                cgroups(mounts, &target, &options, around.cgroup)?;
            }
        }
        "tmpfs" if own("/dev") => {
            let size = options.data.iter().rev().find(|(key, _)| key == "size");
            let size = match size {
                Some((_, Some(text))) => {
                    size_of(text).ok_or_else(|| wrong("size: a number with k, m or g"))?
                }
                _ => DEV_SIZE,
            };
            // The launcher's /dev forbids programs; a bundle says so itself.
            if options.set & libc::MOUNT_ATTR_NOEXEC == 0 {
                options.clear |= libc::MOUNT_ATTR_NOEXEC;
            }
            mounts.push(fixed(target, MountSource::Dev { size }, &options));
        }
        "devpts" if own("/dev/pts") && around.terminal => {
            mounts.push(fixed(target, MountSource::Devpts, &options));
        }
        known if NEW.contains(&known) => {
            let source = MountSource::New {
                kind: known.to_owned(),
                parameters: options.data.clone(),
            };
            let follow = !["/dev", "/proc", "/sys"]
                .iter()
                .any(|top| target.starts_with(top));
            let mount = place(target, source, &options);
            mounts.push(Mount { follow, ..mount });
        }
        other => {
            return Err(wrong(&format!(
                "type {:?} is not supported; a bind mount of it is",
                shorten(other)
            )));
        }
    }
    Ok(())
}

fn place(target: PathBuf, source: MountSource, options: &Options) -> Mount {
    Mount {
        target,
        source,
        set: options.set,
        clear: options.clear,
        recursive: options.recursive,
        propagation: options.propagation.unwrap_or_default(),
        follow: true,
        only_there: false,
        id_maps: None,
        chown: false,
    }
}

/// At a path that no symlink may replace.
fn fixed(target: PathBuf, source: MountSource, options: &Options) -> Mount {
    Mount {
        follow: false,
        ..place(target, source, options)
    }
}

/// By components: `/dev/` and `/dev/.` are /dev.
pub(super) fn same(path: &Path, other: &str) -> bool {
    path.components().eq(Path::new(other).components())
}

/// Each hierarchy's own directory, under the host's name for the hierarchy.
fn cgroups(
    mounts: &mut Vec<Mount>,
    target: &Path,
    options: &Options,
    cgroup: Option<(&str, &Hierarchies)>,
) -> Result<(), Error> {
    let bind = |target: PathBuf, path: PathBuf| {
        let source = MountSource::Bind {
            path,
            recursive: false,
        };
        Mount {
            propagation: Propagation::Private,
            ..fixed(target, source, options)
        }
    };
    let directories = match cgroup {
        Some((path, hierarchies)) => {
            let points = hierarchies.mount_points().into_iter();
            points
                .map(|point| (point.clone(), point.join(path)))
                .collect()
        }
        None => Hierarchies::discover()?.own_directories()?,
    };
    if let [(_, only)] = directories.as_slice() {
        mounts.push(bind(target.to_owned(), only.clone()));
        return Ok(());
    }
    let source = MountSource::New {
        kind: "tmpfs".to_owned(),
        parameters: vec![("mode".to_owned(), Some("755".to_owned()))],
    };
    // Writable until its directories are made; it is the container's alone.
    let writable = Options {
        set: options.set & !libc::MOUNT_ATTR_RDONLY,
        ..options.clone()
    };
    mounts.push(fixed(target.to_owned(), source, &writable));
    for (point, directory) in directories {
        if let Some(name) = point.file_name() {
            mounts.push(bind(target.join(name), directory));
        }
    }
    Ok(())
}

/// Nothing is there to copy up.
fn is_empty(root: &File, path: &Path) -> bool {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(root, path, how) {
        Ok(directory) => fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))
            .is_ok_and(|mut entries| entries.next().is_none()),
        Err(errno) => errno == Errno::ENOENT,
    }
}

/// As tmpfs takes it, without its percent.
fn size_of(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let of = |text| size_of(text);
        assert_eq!(
            (of("65536k"), of("7"), of("1G")),
            (Some(64 << 20), Some(7), Some(1 << 30))
        );
        assert_eq!(
            (of("10%"), of(""), of("kk"), of("-1")),
            (None, None, None, None)
        );
    }

    #[test]
    fn one_directory_has_many_names() {
        assert!(same(Path::new("/dev/"), "/dev") && same(Path::new("//dev/."), "/dev"));
        assert!(!same(Path::new("/dev/pts"), "/dev"));
    }
}
