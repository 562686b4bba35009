//! Giving a volume's files to the container's user, when that was asked for.
//!
//! The tree may be anybody's, and changing while it is walked: every name is opened in its own
//! directory without following a link, and other mounts below are left alone. The kernel takes
//! setuid bits and file capabilities away with the owner.
#![forbid(unsafe_code)]

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
    unistd::{Gid, Uid, fchownat},
};

use super::Failure;

/// Deeper trees are nobody's work.
const DEEPEST: usize = 1000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// `source` only names what is to be given away; `shown` is its path for people.
pub(super) fn give(source: &OwnedFd, owner: Owner, shown: &Path) -> Result<(), Failure> {
    let fail = |errno| Failure::new("change owner", shown, errno);
    let stat = fstat(source).map_err(fail)?;
    own(source, c"", &stat, owner).map_err(fail)?;
    if is_directory(&stat) {
        walk(source, owner, 0).map_err(fail)?;
    }
    Ok(())
}

fn walk(directory: &OwnedFd, owner: Owner, depth: usize) -> nix::Result<()> {
    if depth > DEEPEST {
        return Err(Errno::ELOOP);
    }
    let listed = below(directory, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    for entry in Dir::from_fd(listed)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            other => other?,
        };
        if is_directory(&stat) {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            match below(directory, name, flags) {
                // Another mount, or gone or replaced meanwhile.
                Err(Errno::EXDEV | Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(errno) => return Err(errno),
                Ok(child) => {
                    own(&child, c"", &fstat(&child)?, owner)?;
                    walk(&child, owner, depth + 1)?;
                }
            }
        } else {
            match own(directory, name, &stat, owner) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

fn below(directory: &OwnedFd, name: &std::ffi::CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(Mode::empty())
        .resolve(resolve);
    openat2(directory, name, how)
}

/// An empty name is the descriptor's own file.
fn own(at: &OwnedFd, name: &std::ffi::CStr, stat: &FileStat, owner: Owner) -> nix::Result<()> {
    let Owner { uid, gid } = owner;
    if (stat.st_uid, stat.st_gid) == (uid, gid) {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
    fchownat(at.as_fd(), name, uid, gid, flags)
}

fn is_directory(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}
