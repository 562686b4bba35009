//! Idmapped mounts: a tree's owners on disk, shown as the host's numbers of a container's ids.
//!
//! mount_setattr(2) with a user namespace, from 5.12; which file systems take part is the
//! kernel's matter (ext4, xfs, btrfs at once, overlayfs 5.19, tmpfs 6.3). Nothing on disk
//! changes. Where it is refused so is the launch: changing owners is only done when asked for.
#![forbid(unsafe_code)]

use std::{
    fs::{self, File},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sched::CloneFlags,
    sys::wait::{Id, WaitPidFlag, waitid},
    unistd::{close, pipe2, read},
};

use super::{Failure, build::io_failure, mountinfo};
use crate::{
    spec::{IdMap, IdMaps},
    sys::{
        clone::{Side, clone3},
        exec::exit_now,
        mount::map_owners,
    },
};

/// The step's name, which [`crate::record::Failed::explain`] knows.
pub(crate) const STEP: &str = "map owners";

/// User namespaces made for it, one for each pair of maps.
#[derive(Debug, Default)]
pub(super) struct Owners {
    made: Vec<(IdMaps, OwnedFd)>,
}

impl Owners {
    /// Changes a detached copy of what is mounted at `source`, with what is below it when
    /// `recursive`. `shown` is its path for people.
    pub(super) fn map(
        &mut self,
        tree: &OwnedFd,
        maps: &IdMaps,
        recursive: bool,
        (source, shown): (BorrowedFd<'_>, &Path),
    ) -> Result<(), Failure> {
        let namespace = self.namespace(maps)?;
        map_owners(tree.as_fd(), namespace, recursive).map_err(|errno| {
            let kind = mountinfo::of(source).map_or_else(|| "?".to_owned(), |mount| mount.kind);
            let below = if recursive {
                " or a mount below it"
            } else {
                ""
            };
            refused(STEP, shown, &format!("{kind}{below}"), errno)
        })
    }

    fn namespace(&mut self, maps: &IdMaps) -> Result<BorrowedFd<'_>, Failure> {
        let known = self.made.iter().position(|(known, _)| known == maps);
        if known.is_none() {
            self.made.push((maps.clone(), user_namespace(maps)?));
        }
        let index = known.unwrap_or(self.made.len() - 1);
        Ok(self.made[index].1.as_fd())
    }
}

/// For people: file system and kernel decide.
pub(super) fn refused(step: &'static str, path: &Path, kind: &str, errno: Errno) -> Failure {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let what = format!("{} ({kind}, Linux {})", path.display(), kernel.trim());
    Failure::new(step, what, errno)
}

/// One line a range, as user_namespaces(7) wants it, in one write: the kernel takes a map whole
/// or not at all.
pub(crate) fn write_maps(pid: i32, maps: &IdMaps) -> Result<(), Failure> {
    for (file, map) in [("uid_map", &maps.uids), ("gid_map", &maps.gids)] {
        let path = format!("/proc/{pid}/{file}");
        fs::write(&path, lines(map)).map_err(|source| io_failure("write id map", path, &source))?;
    }
    Ok(())
}

fn lines(map: &[IdMap]) -> String {
    let line = |one: &IdMap| format!("{} {} {}\n", one.inside, one.outside, one.size);
    map.iter().map(line).collect::<Vec<_>>().concat()
}

/// A user namespace that lives as long as its descriptor. The process it takes to make one ends
/// with the pipe, and so with the monitor at the latest.
fn user_namespace(maps: &IdMaps) -> Result<OwnedFd, Failure> {
    let fail = |errno| Failure::without_path("make user namespace", errno);
    let (hold, release) = pipe2(OFlag::O_CLOEXEC).map_err(fail)?;
    match clone3(CloneFlags::CLONE_NEWUSER, None).map_err(fail)? {
        Side::Child => {
            let _ = close(release);
            while read(&hold, &mut [0]) == Err(Errno::EINTR) {}
            exit_now(0)
        }
        Side::Parent(process) => {
            let path = format!("/proc/{}/ns/user", process.pid);
            let namespace = write_maps(process.pid, maps).and_then(|()| {
                File::open(&path)
                    .map(OwnedFd::from)
                    .map_err(|source| io_failure("make user namespace", &path, &source))
            });
            drop(release);
            let end = || waitid(Id::PIDFd(process.pidfd.as_fd()), WaitPidFlag::WEXITED);
            while end() == Err(Errno::EINTR) {}
            namespace
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_a_line_a_range() {
        let one = |inside, outside, size| IdMap {
            inside,
            outside,
            size,
        };
        assert_eq!(
            lines(&[one(0, 165_536, 1000), one(1000, 5, 1)]),
            "0 165536 1000\n1000 5 1\n"
        );
    }
}
