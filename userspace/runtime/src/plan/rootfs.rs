//! The container's root as a detached mount, made by the monitor with full privilege.
//!
//! A directory is bound with what is mounted below it. `host` is an overlay: the host's root
//! read-only below, a throwaway tmpfs above, whose pages are charged to who writes them, the
//! container. overlayfs insists (until 6.15) that its layers belong to the caller's mount
//! namespace, and refuses (EINVAL) the locked mounts of a user namespace's: so the monitor
//! makes it in a mount namespace of its own, which it leaves again at once and which takes the
//! tmpfs' visible mount with it. Nothing of it is ever in the host's mount table.
#![forbid(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    fs::File,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::stat::{Mode, mkdirat},
    unistd::{Gid, Uid, chroot, fchdir, fchownat},
};

use super::{Failure, build::io_failure, idmap::Owners, layers};
use crate::{
    spec::{IdMaps, Joined, Rootfs},
    sys::mount::{NODEV, NOSUID, Param, attach, clone_tree, new_filesystem},
};

/// `scratch` is any directory that exists: it is mounted over where nobody sees it.
pub(super) fn open(
    rootfs: &Rootfs,
    maps: Option<&IdMaps>,
    owners: &mut Owners,
    scratch: &Path,
) -> Result<OwnedFd, Failure> {
    match (rootfs, maps) {
        (Rootfs::Directory(path), maps) => directory(path, maps, owners),
        (Rootfs::Host, None) => host(scratch, None),
        (Rootfs::Host, Some(maps)) => {
            let lower = tree(Path::new("/"), false, Some(maps), owners)?;
            host(scratch, Some((lower, maps)))
        }
        (Rootfs::Layers(image), maps) => layers::image(image, maps, owners, scratch),
    }
}

fn directory(path: &Path, maps: Option<&IdMaps>, owners: &mut Owners) -> Result<OwnedFd, Failure> {
    tree(path, true, maps, owners)
}

/// A detached copy of what is mounted at a directory, its owners mapped when there are maps.
fn tree(
    path: &Path,
    recursive: bool,
    maps: Option<&IdMaps>,
    owners: &mut Owners,
) -> Result<OwnedFd, Failure> {
    let directory =
        open_path(path, libc::O_DIRECTORY).map_err(|source| io_failure("rootfs", path, &source))?;
    let tree = clone_tree(directory.as_fd(), c"", recursive)
        .map_err(|errno| Failure::new("rootfs", path, errno))?;
    if let Some(maps) = maps {
        owners.map(&tree, maps, recursive, (directory.as_fd(), path))?;
    }
    Ok(tree)
}

/// `lower` in place of the host's root as it is.
fn host(scratch: &Path, lower: Option<(OwnedFd, &IdMaps)>) -> Result<OwnedFd, Failure> {
    in_private_namespace(|| overlay(scratch, lower))
}

/// A mount that is made there and cloned or detached lives on; what was made around it goes.
pub(super) fn in_private_namespace(
    make: impl FnOnce() -> Result<OwnedFd, Failure>,
) -> Result<OwnedFd, Failure> {
    elsewhere(|| {
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|errno| Failure::without_path("private mount namespace", errno))?;
        make()
    })
}

pub(super) fn make_private() -> nix::Result<()> {
    let none = None::<&CStr>;
    mount(
        none,
        c"/",
        none,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        none,
    )
}

/// A copy of the mount at `path` in another mount namespace, whose root may be hostile: no
/// symlink is followed.
pub(super) fn mounted_in(mount_namespace: &Joined, path: &Path) -> Result<OwnedFd, Failure> {
    const STEP: &str = "mount of another container";
    let fail = |errno| Failure::new(STEP, path, errno);
    let other = open_namespace(STEP, mount_namespace)?;
    elsewhere(|| {
        setns(&other, CloneFlags::CLONE_NEWNS).map_err(fail)?;
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        let found = openat2(AT_FDCWD, path, how).map_err(fail)?;
        clone_tree(found.as_fd(), c"", false).map_err(fail)
    })
}

/// The namespace that was meant, or ESRCH: another has its path by now.
pub(super) fn open_namespace(step: &'static str, joined: &Joined) -> Result<OwnedFd, Failure> {
    let fail = |source: std::io::Error| io_failure(step, &joined.path, &source);
    let file = File::open(&joined.path).map_err(fail)?;
    let inode = file.metadata().map_err(fail)?.ino();
    if joined
        .inode
        .is_some_and(|wanted| u64::from(wanted) != inode)
    {
        return Err(Failure::new(step, &joined.path, Errno::ESRCH));
    }
    Ok(file.into())
}

/// Does something in another mount namespace and comes back, also into the agent's root if
/// that was not the namespace's: setns resets it.
fn elsewhere<T>(act: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let fail = |source: std::io::Error| io_failure("rootfs", "/", &source);
    let home = File::open("/proc/self/ns/mnt").map_err(fail)?;
    let root = open_path(Path::new("/"), libc::O_DIRECTORY).map_err(fail)?;
    let done = act();
    setns(&home, CloneFlags::CLONE_NEWNS)
        .and_then(|()| fchdir(&root))
        .and_then(|()| chroot(c"."))
        .map_err(|errno| Failure::without_path("return to the host's mounts", errno))?;
    done
}

fn overlay(scratch: &Path, lower: Option<(OwnedFd, &IdMaps)>) -> Result<OwnedFd, Failure> {
    let at = |errno| Failure::new("rootfs layers", scratch, errno);
    make_private().map_err(at)?;
    let params = [Param::String(c"mode", c"0755")];
    let tmpfs = new_filesystem(c"tmpfs", &params, NOSUID | NODEV).map_err(at)?;
    let target = open_path(scratch, libc::O_DIRECTORY)
        .map_err(|source| io_failure("rootfs layers", scratch, &source))?;
    attach(tmpfs.as_fd(), target.as_fd()).map_err(at)?;
    let root = lower
        .as_ref()
        .and_then(|(_, maps)| Some((maps.host_uid(0)?, maps.host_gid(0)?)));
    let layers = [c"upper", c"work", c"lower"];
    for layer in &layers[..2 + usize::from(lower.is_some())] {
        let layer = *layer;
        mkdirat(&tmpfs, layer, Mode::from_bits_truncate(0o755)).map_err(at)?;
        if let Some((uid, gid)) = root {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fchownat(&tmpfs, layer, uid, gid, AtFlags::empty()).map_err(at)?;
        }
    }
    let layer = |name: &str| -> Result<CString, Failure> {
        CString::new(format!("/proc/self/fd/{}/{name}", tmpfs.as_raw_fd()))
            .map_err(|_| at(Errno::EINVAL))
    };
    let lowerdir = match lower {
        Some((mount, _)) => {
            let below = openat(
                &tmpfs,
                c"lower",
                OFlag::O_PATH | OFlag::O_CLOEXEC,
                Mode::empty(),
            )
            .map_err(at)?;
            attach(mount.as_fd(), below.as_fd()).map_err(at)?;
            layer("lower")?
        }
        None => c"/".to_owned(),
    };
    let params = [
        Param::String(c"lowerdir".to_owned(), lowerdir),
        Param::String(c"upperdir".to_owned(), layer("upper")?),
        Param::String(c"workdir".to_owned(), layer("work")?),
    ];
    new_filesystem(c"overlay", &params, 0).map_err(|errno| Failure::new("overlay", "/", errno))
}

/// A descriptor that only names; symlinks are followed, it is the operator's path.
pub(super) fn open_path(path: &Path, flags: libc::c_int) -> std::io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC | flags)
        .open(path)
}
