//! Removal of a tree that others filled, at any depth, with few descriptors and no recursion.
//!
//! A directory inside is first moved up to where the removal began, so that nothing is ever
//! more than two levels deep. Names are only looked at inside an open directory, and no
//! symlink is followed.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, Stat, mkdirat, openat, renameat,
        statat, unlinkat,
    },
    io::{Errno, Result},
};

/// What is at `path`, whatever it is; nothing there is fine.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let parent = match openat(CWD, parent, directory(), Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let name = CString::new(name.as_encoded_bytes()).map_err(|_| Errno::INVAL)?;
    Ok(remove_at(&parent, &name)?)
}

/// The same by an open directory.
pub(crate) fn remove_at(parent: impl AsFd, name: &CStr) -> Result<()> {
    match unlinkat(&parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) => return Ok(()),
        done => return done,
    }
    match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(Errno::NOENT) => return Ok(()),
        done => return done,
    }
    let top = openat(&parent, name, directory(), Mode::empty())?;
    let heap = heap(&top)?;
    let mut count: u64 = 0;
    // What was in the top goes onto the heap; what is in a heap's entry, beside it.
    empty(&top, &heap.fd, Some(&heap.name), &mut count)?;
    let mut done: u64 = 0;
    while done < count {
        let name = number(done);
        let fd = openat(&heap.fd, &name, directory(), Mode::empty())?;
        empty(&fd, &heap.fd, None, &mut count)?;
        unlinkat(&heap.fd, &name, AtFlags::REMOVEDIR)?;
        done += 1;
    }
    unlinkat(&top, &heap.name, AtFlags::REMOVEDIR)?;
    unlinkat(&parent, name, AtFlags::REMOVEDIR)
}

struct Heap {
    name: CString,
    fd: OwnedFd,
}

/// A directory of ours among what is there.
fn heap(top: &OwnedFd) -> Result<Heap> {
    for attempt in 0..u32::MAX {
        let name = CString::new(format!(".paddock-removed-{attempt}")).map_err(|_| Errno::INVAL)?;
        match mkdirat(top, &name, Mode::RWXU) {
            Ok(()) => {
                let fd = openat(top, &name, directory(), Mode::empty())?;
                return Ok(Heap { name, fd });
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

fn number(count: u64) -> CString {
    // Digits have no NUL.
    CString::new(count.to_string()).unwrap_or_default()
}

/// Unlinks all that is no directory and moves the others onto the heap.
fn empty(
    directory: &OwnedFd,
    heap: &OwnedFd,
    spared: Option<&CStr>,
    count: &mut u64,
) -> Result<()> {
    // Reading goes on while names go, which POSIX leaves open: again until nothing is there.
    loop {
        let mut any = false;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." || Some(name) == spared {
                continue;
            }
            any = true;
            let is_directory = match entry.file_type() {
                FileType::Unknown => {
                    kind(&statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?)
                        == FileType::Directory
                }
                kind => kind == FileType::Directory,
            };
            if is_directory {
                // An empty one need not move first.
                if unlinkat(directory, name, AtFlags::REMOVEDIR).is_err() {
                    renameat(directory, name, heap, number(*count))?;
                    *count += 1;
                }
            } else {
                unlinkat(directory, name, AtFlags::empty())?;
            }
        }
        if !any {
            return Ok(());
        }
    }
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode as RawMode)
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::fixture::TempDir;

    #[test]
    fn a_tree_of_any_depth_goes_and_nothing_beside_it() {
        let dir = TempDir::new();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        fs::create_dir(top.join(".paddock-removed-0")).unwrap();
        symlink(&outside, top.join("link")).unwrap();
        for wide in 0..50 {
            fs::create_dir_all(top.join(format!("{wide}/a/b"))).unwrap();
            fs::write(top.join(format!("{wide}/a/0")), "").unwrap();
        }
        let mut deep = openat(CWD, &top, directory(), Mode::empty()).unwrap();
        for _ in 0..5000 {
            mkdirat(&deep, c"d", Mode::RWXU).unwrap();
            deep = openat(&deep, c"d", directory(), Mode::empty()).unwrap();
        }
        drop(deep);
        remove(&top).unwrap();
        assert!(!top.exists() && outside.join("kept").exists());
        remove(&top).unwrap();
        remove(&outside.join("kept")).unwrap();
        assert!(!outside.join("kept").exists());
    }
}
