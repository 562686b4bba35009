//! The directory that a layer becomes, changed only through its descriptor.
//!
//! Parents are resolved by openat2 with RESOLVE_IN_ROOT: a symlink of the layer's own leads
//! where it would lead in a container, never out, and never over a mount. The last part of a
//! name is never followed. Needs Linux 5.6.

use std::{
    ffi::{CStr, CString},
    io::{self, Read},
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
        chmodat, chownat, fchmod, fchown, linkat, makedev, mkdirat, mknodat, openat, openat2,
        setxattr, statat, symlinkat, utimensat,
    },
    io::Errno,
};

use super::{
    Facts,
    entry::{Name, Shape, Special},
    tar::{Entries, Entry},
};
use crate::{error::words, remove};

const OPAQUE: &CStr = c"trusted.overlay.opaque";
const CHUNK: usize = 256 << 10;
const TRIES: u32 = 1000;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}: {error}", error = words(&io::Error::from(*.1)))]
    Call(&'static str, Errno),
    #[error("{}", words(.0))]
    Read(io::Error),
    #[error("what it is a hard link to is not in this layer: refused")]
    NoTarget,
    #[error("its directory is no directory: refused")]
    Parent,
}

pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// The directory that was worked in last, since entries come sorted.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Set when all is in them.
    modified: Vec<(Vec<u8>, Timespec)>,
    facts: Facts,
    buffer: Vec<u8>,
}

fn call(op: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Call(op, errno)
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> io::Result<Self> {
        fchmod(root, Mode::from_raw_mode(0o755))?;
        Ok(Self {
            root,
            last: None,
            modified: Vec::new(),
            facts: Facts::default(),
            buffer: vec![0; CHUNK],
        })
    }

    /// Puts one entry where it belongs; of two with one name the second counts.
    pub(super) fn place<R: Read>(
        &mut self,
        entry: &Entry,
        shape: Shape,
        content: &mut Entries<R>,
    ) -> Result<(), Error> {
        match shape {
            Shape::Ignored => Ok(()),
            Shape::Root => {
                self.facts.root = true;
                fchown(self.root, owner(entry), group(entry)).map_err(call("chown"))?;
                fchmod(self.root, mode(entry)).map_err(call("chmod"))?;
                self.modified.push((Vec::new(), time(entry)));
                set_xattrs(self.root, entry)
            }
            Shape::Opaque { parent } if parent.is_empty() => {
                self.facts.opaque = true;
                Ok(())
            }
            Shape::Opaque { parent } => {
                self.enter(&parent)?;
                hide_below(self.parent())
            }
            Shape::Whiteout(name) => {
                self.enter(&name.parent)?;
                whiteout(self.parent(), &name.last)
            }
            Shape::Directory(name) => self.directory(entry, &name),
            Shape::File(name) => self.file(entry, &name, content),
            Shape::Symlink(name, target) => {
                self.vacate(&name)?;
                symlinkat(&target, self.parent(), &name.last).map_err(call("make symlink"))?;
                self.attributes(entry, &name)
            }
            Shape::HardLink(name, target) => self.hard_link(&name, &target),
            Shape::Device(name, special) => {
                self.vacate(&name)?;
                let kind = match special {
                    Special::Character => FileType::CharacterDevice,
                    Special::Block => FileType::BlockDevice,
                    Special::Fifo => FileType::Fifo,
                };
                let device = match special {
                    Special::Fifo => 0,
                    _ => makedev(entry.device.0, entry.device.1),
                };
                mknodat(self.parent(), &name.last, kind, Mode::RUSR, device)
                    .map_err(call("make device"))?;
                self.attributes(entry, &name)
            }
        }
    }

    /// Times of directories, now that nothing comes into them any more.
    pub(super) fn finish(mut self) -> io::Result<Facts> {
        for (path, time) in self.modified.iter().rev() {
            let directory = match self.resolve(path, ResolveFlags::NO_SYMLINKS) {
                Ok(directory) => directory,
                // Another entry took its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(errno.into()),
            };
            rustix::fs::futimens(directory, &stamps(*time))?;
        }
        self.facts.implicit.sort();
        self.facts.implicit.dedup();
        Ok(self.facts)
    }

    fn directory(&mut self, entry: &Entry, name: &Name) -> Result<(), Error> {
        self.enter(&name.parent)?;
        let found = self.kind(&name.last)?;
        if found != Some(FileType::Directory) {
            self.vacate(name)?;
            mkdirat(self.parent(), &name.last, Mode::RWXU).map_err(call("make directory"))?;
            if found == Some(FileType::CharacterDevice) {
                // It was a whiteout: what comes in its place is all there is.
                let fd =
                    open_directory(self.parent(), &name.last).map_err(call("open directory"))?;
                hide_below(&fd)?;
            }
        }
        if let Ok(path) = String::from_utf8(name.path()) {
            self.facts.implicit.retain(|implicit| *implicit != path);
        }
        self.modified.push((name.path(), time(entry)));
        self.attributes(entry, name)
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        name: &Name,
        content: &mut Entries<R>,
    ) -> Result<(), Error> {
        self.vacate(name)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(self.parent(), &name.last, flags, Mode::RUSR | Mode::WUSR)
            .map_err(call("make file"))?;
        loop {
            let read = content.read(&mut self.buffer).map_err(Error::Read)?;
            if read == 0 {
                break;
            }
            let mut rest = &self.buffer[..read];
            while !rest.is_empty() {
                let written = rustix::io::write(&file, rest).map_err(call("write"))?;
                rest = &rest[written..];
            }
        }
        self.attributes(entry, name)
    }

    fn hard_link(&mut self, name: &Name, target: &Name) -> Result<(), Error> {
        let Ok(from) = self.resolve(&target.parent, ResolveFlags::empty()) else {
            return Err(Error::NoTarget);
        };
        match statat(&from, &target.last, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if remove::kind(&found) != FileType::Directory => {}
            _ => return Err(Error::NoTarget),
        }
        self.enter(&name.parent)?;
        // Onto itself it would remove what it is to link to.
        if name == target {
            return Ok(());
        }
        self.vacate(name)?;
        linkat(
            &from,
            &target.last,
            self.parent(),
            &name.last,
            AtFlags::empty(),
        )
        .map_err(|errno| match errno {
            // The target lay in what had to make place.
            Errno::NOENT => Error::NoTarget,
            errno => Error::Call("link", errno),
        })
    }

    /// Enters the parent and makes sure that nothing has the name.
    fn vacate(&mut self, name: &Name) -> Result<(), Error> {
        self.enter(&name.parent)?;
        match self.kind(&name.last)? {
            None => return Ok(()),
            Some(FileType::Directory) => {
                remove::remove_at(self.parent(), &name.last).map_err(call("replace"))?;
            }
            Some(_) => {
                rustix::fs::unlinkat(self.parent(), &name.last, AtFlags::empty())
                    .map_err(call("replace"))?;
            }
        }
        // What was removed may have been on the way to here.
        let parent = name.parent.clone();
        self.last = None;
        self.enter(&parent)
    }

    fn kind(&self, name: &CStr) -> Result<Option<FileType>, Error> {
        match statat(self.parent(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(remove::kind(&found))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::Call("look up", errno)),
        }
    }

    /// The directory that was entered last.
    fn parent(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        self.last.as_ref().map_or(self.root, |(_, fd)| fd.as_fd())
    }

    /// Opens a directory, and makes it with those above it where they are missing.
    fn enter(&mut self, path: &[u8]) -> Result<(), Error> {
        if self.last.as_ref().is_some_and(|(last, _)| last == path) {
            return Ok(());
        }
        let fd = match self.resolve(path, ResolveFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => self.make(path)?,
            Err(Errno::NOTDIR) => {
                // A whiteout of this layer hides what it now has directories below.
                self.make(path)?
            }
            Err(errno) => return Err(Error::Call("open its directory", errno)),
        };
        self.last = Some((path.to_vec(), fd));
        Ok(())
    }

    fn make(&mut self, path: &[u8]) -> Result<OwnedFd, Error> {
        let mut parent = self
            .resolve(b"", ResolveFlags::empty())
            .map_err(call("open root"))?;
        let mut end = 0;
        for part in path.split(|&byte| byte == b'/') {
            end += part.len() + usize::from(end > 0);
            let prefix = &path[..end];
            let name = CString::new(part).map_err(|_| Error::Parent)?;
            parent = match self.resolve(prefix, ResolveFlags::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let hidden = is_whiteout(&parent, &name);
                    if hidden {
                        rustix::fs::unlinkat(&parent, &name, AtFlags::empty())
                            .map_err(call("replace"))?;
                    }
                    match mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
                        Ok(()) => {}
                        // A file, or a symlink to nothing.
                        Err(Errno::EXIST) => return Err(Error::Parent),
                        Err(errno) => return Err(Error::Call("make its directory", errno)),
                    }
                    if let Ok(text) = std::str::from_utf8(prefix) {
                        self.facts.implicit.push(text.to_owned());
                    }
                    let fd = open_directory(&parent, &name).map_err(call("open its directory"))?;
                    fchmod(&fd, Mode::from_raw_mode(0o755)).map_err(call("chmod"))?;
                    if hidden {
                        hide_below(&fd)?;
                    }
                    fd
                }
                Err(errno) => return Err(Error::Call("open its directory", errno)),
            };
        }
        Ok(parent)
    }

    fn resolve(&self, path: &[u8], more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let within =
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV | more;
        let mut tries = 0;
        loop {
            match openat2(self.root, path, flags, Mode::empty(), within) {
                // A link with `..` in it, and a rename or mount anywhere meanwhile: the kernel
                // cannot tell whether it stayed inside.
                Err(Errno::AGAIN) if tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    /// Owner before mode and xattrs: changing it takes setuid and file capabilities away.
    fn attributes(&self, entry: &Entry, name: &Name) -> Result<(), Error> {
        let (parent, last) = (self.parent(), name.last.as_c_str());
        chownat(
            parent,
            last,
            owner(entry),
            group(entry),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(call("chown"))?;
        if entry.kind != b'2' {
            // Just made, so it is no symlink.
            chmodat(parent, last, mode(entry), AtFlags::empty()).map_err(call("chmod"))?;
        }
        if !entry.xattrs.is_empty() {
            let fd = openat(
                parent,
                last,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(call("open"))?;
            set_xattrs(&fd, entry)?;
        }
        utimensat(
            parent,
            last,
            &stamps(time(entry)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(call("set time"))
    }
}

fn open_directory(parent: impl std::os::fd::AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Overlayfs' whiteout: a character device 0:0.
fn whiteout(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Error> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        // This layer has the name, too: what it has is not hidden, but all below is.
        Ok(found) if remove::kind(&found) == FileType::Directory => {
            hide_below(&open_directory(parent, name).map_err(call("open directory"))?)
        }
        Ok(_) => Ok(()),
        Err(Errno::NOENT) => mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(call("make whiteout")),
        Err(errno) => Err(Error::Call("look up", errno)),
    }
}

fn is_whiteout(parent: &OwnedFd, name: &CStr) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| remove::kind(&found) == FileType::CharacterDevice && found.st_rdev == 0)
}

fn hide_below(directory: impl std::os::fd::AsFd) -> Result<(), Error> {
    rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty()).map_err(call("make opaque"))
}

/// Through procfs, since a symlink or a device can be opened by O_PATH alone.
fn set_xattrs(fd: impl std::os::fd::AsFd, entry: &Entry) -> Result<(), Error> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    for (key, value) in &entry.xattrs {
        let key =
            CString::new(key.as_slice()).map_err(|_| Error::Call("set xattr", Errno::INVAL))?;
        match setxattr(&path, &key, value, XattrFlags::empty()) {
            Ok(()) => {}
            // A file system without this kind loses a note, as with docker; a program that
            // was to have capabilities would lose its purpose.
            Err(Errno::OPNOTSUPP) if key.as_c_str() != c"security.capability" => {}
            Err(errno) => return Err(Error::Call("set xattr", errno)),
        }
    }
    Ok(())
}

fn owner(entry: &Entry) -> Option<Uid> {
    u32::try_from(entry.uid).ok().map(Uid::from_raw)
}

fn group(entry: &Entry) -> Option<Gid> {
    u32::try_from(entry.gid).ok().map(Gid::from_raw)
}

fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o7777)
}

fn time(entry: &Entry) -> Timespec {
    Timespec {
        tv_sec: entry.modified.0,
        tv_nsec: entry.modified.1.into(),
    }
}

fn stamps(modified: Timespec) -> Timestamps {
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}
