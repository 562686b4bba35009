//! The files of an image on disk: a directory, or a tar that is read in place.
//!
//! Nothing in a tar is unpacked here; its members are known by where they lie in the file. A
//! compressed one is decompressed into the staging directory first.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::{
    digest::Digest,
    error::{Error, words},
    layer::{Compression, decoder},
    manifest::{Descriptor, MOST_JSON},
    progress::Cancel,
};

/// Members of an archive; an image has some hundred at most.
const MOST_MEMBERS: usize = 100_000;

#[derive(Debug)]
pub(crate) struct Files {
    /// For messages.
    what: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Directory(OwnedFd),
    Archive {
        file: Arc<File>,
        members: BTreeMap<String, Member>,
    },
}

#[derive(Clone, Debug)]
enum Member {
    File {
        offset: u64,
        length: u64,
    },
    /// `docker save` of old writes a layer once and links to it.
    Link(String),
}

/// A file, or a piece of one.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl Files {
    pub(crate) fn directory(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| Error::io("open", path)(errno.into()))?;
        Ok(Self {
            what: path.display().to_string(),
            kind: Kind::Directory(fd),
        })
    }

    /// `scratch`: where a decompressed copy may be made, of at most `most` bytes.
    pub(crate) fn archive(
        path: &Path,
        scratch: &Path,
        most: u64,
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let what = path.display().to_string();
        let mut file = open(path)?;
        let mut start = [0; 4];
        let read = file
            .read_at(&mut start, 0)
            .map_err(Error::io("read", path))?;
        if Compression::of(&start[..read]) != Compression::None {
            file = decompress(&file, path, &scratch.join("archive"), most, cancel)?;
        }
        let members = members(&file).map_err(|error| Error::broken(&what, words(&error)))?;
        Ok(Self {
            what,
            kind: Kind::Archive {
                file: Arc::new(file),
                members,
            },
        })
    }

    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    pub(crate) fn part(&self, name: &str) -> Result<Part, Error> {
        let missing = || {
            Error::broken(
                &self.what,
                format!("has no {}", crate::error::shown(name.as_bytes())),
            )
        };
        match &self.kind {
            Kind::Directory(directory) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let fd = openat2(directory, name, flags, Mode::empty(), within);
                let path = PathBuf::from(&self.what).join(name);
                let file = match fd {
                    Ok(fd) => regular(Ok(File::from(fd)), &path)?,
                    Err(rustix::io::Errno::NOENT) => return Err(missing()),
                    Err(errno) => return Err(Error::io("open", path)(errno.into())),
                };
                let length = file.metadata().map_err(Error::io("look at", path))?.len();
                Ok(Part {
                    file: Arc::new(file),
                    offset: 0,
                    length,
                })
            }
            Kind::Archive { file, members } => {
                let mut name = normal(name);
                for _ in 0..4 {
                    match members.get(&name).ok_or_else(missing)? {
                        Member::File { offset, length } => {
                            return Ok(Part {
                                file: Arc::clone(file),
                                offset: *offset,
                                length: *length,
                            });
                        }
                        Member::Link(target) => name.clone_from(target),
                    }
                }
                Err(missing())
            }
        }
    }

    /// A small file.
    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        let part = self.part(name)?;
        if part.length > MOST_JSON {
            return Err(Error::broken(
                &self.what,
                format!(
                    "its {} is larger than {MOST_JSON} bytes",
                    crate::error::shown(name.as_bytes())
                ),
            ));
        }
        let mut bytes = Vec::new();
        part.reader()
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", &self.what))?;
        Ok(bytes)
    }

    /// A small blob, checked.
    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let bytes = self.bytes(&blob_path(&descriptor.digest))?;
        if Digest::of(&bytes) != descriptor.digest || bytes.len() as u64 != descriptor.size {
            return Err(Error::broken(
                &self.what,
                format!("{} is not what its name says", descriptor.digest),
            ));
        }
        Ok(bytes)
    }
}

/// Where an OCI layout keeps a blob.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Part {
    pub(crate) fn whole(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(file),
            offset: 0,
            length,
        })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn reader(&self) -> impl Read + use<> {
        PartReader(self.clone())
    }
}

struct PartReader(Part);

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = &mut self.0;
        let most = usize::try_from(part.length)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = part.file.read_at(&mut buffer[..most], part.offset)?;
        part.offset += read as u64;
        part.length -= read as u64;
        Ok(read)
    }
}

/// The operator's path, symlinks and all.
pub(crate) fn open(path: &Path) -> Result<File, Error> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    regular(
        File::options().read(true).custom_flags(flags).open(path),
        path,
    )
}

/// Not a pipe or a device, which could keep a reader waiting.
fn regular(opened: io::Result<File>, path: &Path) -> Result<File, Error> {
    let file = opened.map_err(Error::io("open", path))?;
    let found = file.metadata().map_err(Error::io("look at", path))?;
    if !found.is_file() {
        return Err(Error::broken(
            path.display().to_string(),
            "is no regular file",
        ));
    }
    Ok(file)
}

fn decompress(
    file: &File,
    path: &Path,
    to: &Path,
    most: u64,
    cancel: &Cancel,
) -> Result<File, Error> {
    let broken = |error: io::Error| Error::broken(path.display().to_string(), words(&error));
    let mut out = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(Error::io("make", to))?;
    let mut source = decoder(file).map_err(broken)?;
    let mut total = 0;
    loop {
        cancel.check()?;
        let chunk = io::copy(&mut (&mut source).take(1 << 20), &mut out).map_err(broken)?;
        total += chunk;
        if chunk == 0 {
            io::Seek::rewind(&mut out).map_err(Error::io("read", to))?;
            return Ok(out);
        }
        if total > most {
            return Err(Error::broken(
                path.display().to_string(),
                format!("unpacked it is larger than {most} bytes: refused (see --max-size)"),
            ));
        }
    }
}

/// Without `.` and doubled slashes. `..` stays, and names nothing.
fn normal(name: &str) -> String {
    let parts = name.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

fn members(file: &File) -> io::Result<BTreeMap<String, Member>> {
    let mut members = BTreeMap::new();
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(8 << 10, file));
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        // A name that is no text is no name of an image's file.
        let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else {
            continue;
        };
        let name = normal(&name);
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let member = Member::File {
                offset: entry.raw_file_position(),
                length: entry.size(),
            };
            members.insert(name, member);
        } else if kind.is_symlink() || kind.is_hard_link() {
            let link = entry.link_name_bytes().unwrap_or_default().into_owned();
            let link = String::from_utf8(link).unwrap_or_default();
            let target = if kind.is_symlink() {
                beside(&name, &link)
            } else {
                normal(&link)
            };
            members.insert(name, Member::Link(target));
        }
        if members.len() > MOST_MEMBERS {
            return Err(io::Error::other("has too many members"));
        }
    }
    Ok(members)
}

/// What a symlink at `name` leads to, by text alone.
fn beside(name: &str, link: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_inside_an_archive() {
        assert_eq!(beside("a/layer.tar", "../b/layer.tar"), "b/layer.tar");
        assert_eq!(beside("a", "../../x"), "x");
        assert_eq!(normal("./a//b/"), "a/b");
    }
}
