//! `linux.namespaces`, id mappings and time offsets.

use std::{fs::File, os::fd::AsRawFd as _, path::Path};

use nix::sys::statfs::{self, FsType};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};
use paddock_runtime::spec::{IdMap, IdMaps, Joined, Namespace, Namespaces};

use crate::{config::shorten, error::Error};

/// linux/magic.h
const NSFS: FsType = FsType(0x6e73_6673);

pub(super) fn translate(linux: &Linux) -> Result<(Namespaces, IdMaps), Error> {
    let mut seen = Vec::new();
    let mut mount = Namespace::Host;
    let mut all = Namespaces {
        cgroup: Namespace::Host,
        ipc: Namespace::Host,
        net: Namespace::Host,
        pid: Namespace::Host,
        time: Namespace::Host,
        user: Namespace::Host,
        uts: Namespace::Host,
    };
    for namespace in linux.namespaces().iter().flatten() {
        let kind = namespace.typ();
        if seen.contains(&kind) {
            return Err(Error::config(format!(
                "linux.namespaces: {kind} is there twice"
            )));
        }
        seen.push(kind);
        let wanted = match namespace.path().as_deref() {
            None => Namespace::New,
            Some(path) if path.as_os_str().is_empty() => Namespace::New,
            Some(path) => Namespace::Join(Joined {
                path: path.to_owned(),
                inode: None,
            }),
        };
        *match kind {
            LinuxNamespaceType::Mount => &mut mount,
            LinuxNamespaceType::Cgroup => &mut all.cgroup,
            LinuxNamespaceType::Uts => &mut all.uts,
            LinuxNamespaceType::Ipc => &mut all.ipc,
            LinuxNamespaceType::User => &mut all.user,
            LinuxNamespaceType::Pid => &mut all.pid,
            LinuxNamespaceType::Network => &mut all.net,
            LinuxNamespaceType::Time => &mut all.time,
        } = wanted;
    }
    if !mount.is_new() {
        return Err(Error::config(
            "linux.namespaces: a container has a mount namespace of its own; add {\"type\": \"mount\"} without a path",
        ));
    }
    let id_maps = id_maps(linux, &all.user)?;
    Ok((all, id_maps))
}

fn id_maps(linux: &Linux, user: &Namespace) -> Result<IdMaps, Error> {
    let maps = |maps: &Option<Vec<LinuxIdMapping>>| -> Vec<IdMap> {
        let one = |map: &LinuxIdMapping| IdMap {
            inside: map.container_id(),
            outside: map.host_id(),
            size: map.size(),
        };
        maps.iter().flatten().map(one).collect()
    };
    let found = IdMaps {
        uids: maps(linux.uid_mappings()),
        gids: maps(linux.gid_mappings()),
    };
    let empty = found.uids.is_empty() || found.gids.is_empty();
    match user {
        Namespace::New if empty => Err(Error::config(
            "linux.uidMappings and linux.gidMappings: a new user namespace needs both",
        )),
        Namespace::Host if !(found.uids.is_empty() && found.gids.is_empty()) => Err(Error::config(
            "linux.uidMappings: there is no user namespace in linux.namespaces",
        )),
        Namespace::Join(_) if empty => Ok(IdMaps::identity()),
        _ => Ok(found),
    }
}

pub(super) fn time_offsets(linux: &Linux) -> Result<Vec<(String, i64, u32)>, Error> {
    let mut offsets: Vec<_> = linux
        .time_offsets()
        .iter()
        .flatten()
        .map(|(clock, offset)| {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(Error::config(format!(
                    "linux.timeOffsets {:?}: clocks are monotonic and boottime",
                    shorten(clock)
                )));
            }
            Ok((
                clock.clone(),
                offset.secs().unwrap_or(0),
                offset.nanosecs().unwrap_or(0),
            ))
        })
        .collect::<Result<_, _>>()?;
    offsets.sort();
    let own = linux
        .namespaces()
        .iter()
        .flatten()
        .any(|one| one.typ() == LinuxNamespaceType::Time && one.path().is_none());
    if !offsets.is_empty() && !own {
        return Err(Error::config(
            "linux.timeOffsets: there is no new time namespace in linux.namespaces",
        ));
    }
    Ok(offsets)
}

/// A path that is no namespace is told before anything is made.
pub(crate) fn check_paths(namespaces: &Namespaces) -> Result<(), Error> {
    let all = [
        &namespaces.cgroup,
        &namespaces.ipc,
        &namespaces.net,
        &namespaces.pid,
        &namespaces.time,
        &namespaces.user,
        &namespaces.uts,
    ];
    for namespace in all {
        if let Namespace::Join(joined) = namespace {
            check(&joined.path)?;
        }
    }
    Ok(())
}

fn check(path: &Path) -> Result<(), Error> {
    let file = File::open(path).map_err(Error::io("open namespace", path))?;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let found = statfs::fstatfs(&file).map_err(|errno| Error::io("read", link)(errno.into()))?;
    if found.filesystem_type() == NSFS {
        return Ok(());
    }
    Err(Error::config(format!(
        "linux.namespaces {}: is no namespace",
        path.display()
    )))
}
