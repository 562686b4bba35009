//! A directory as a tar: owners, modes, times, xattrs, hard links, devices; one file system.
//!
//! What is mounted inside is left out, and so are sockets, which mean nothing without their
//! process. Names come sorted, so the same directory gives the same image.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{OFlags, lgetxattr, llistxattr, major, minor};
use tar::{Builder, EntryType, Header};

use crate::{
    error::{Error, words},
    progress::Cancel,
};

/// The kernel's limit on one xattr and on a list of them.
const MOST_XATTR: usize = 64 << 10;

pub(super) fn pack(from: &Path, to: &File, most: u64, cancel: &Cancel) -> Result<(), Error> {
    let device = fs::metadata(from)
        .map_err(Error::io("look at", from))?
        .dev();
    let mut pack = Pack {
        tar: Builder::new(io::BufWriter::with_capacity(128 << 10, to)),
        linked: HashMap::new(),
        device,
        left: most,
        most,
        cancel,
    };
    let mut todo = vec![PathBuf::new()];
    while let Some(name) = todo.pop() {
        cancel.check()?;
        let path = if name.as_os_str().is_empty() {
            from.to_owned()
        } else {
            from.join(&name)
        };
        let failed = |error: io::Error| Error::io("pack", &path)(error);
        let found = if name.as_os_str().is_empty() {
            fs::metadata(&path)
        } else {
            fs::symlink_metadata(&path)
        };
        let found = found.map_err(failed)?;
        pack.entry(&name, &path, &found).map_err(failed)?;
        if found.is_dir() && found.dev() == device {
            let mut inside = fs::read_dir(&path)
                .and_then(|entries| {
                    entries
                        .map(|entry| Ok(name.join(entry?.file_name())))
                        .collect::<io::Result<Vec<_>>>()
                })
                .map_err(failed)?;
            // The last one is taken next.
            inside.sort_by(|a, b| b.cmp(a));
            todo.extend(inside);
        }
    }
    pack.tar
        .into_inner()
        .and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error))
        .map(drop)
        .map_err(|error| Error::broken(from.display().to_string(), words(&error)))
}

struct Pack<'a> {
    tar: Builder<io::BufWriter<&'a File>>,
    /// Where a file with several names was first.
    linked: HashMap<u64, PathBuf>,
    device: u64,
    left: u64,
    most: u64,
    cancel: &'a Cancel,
}

impl Pack<'_> {
    fn entry(&mut self, name: &Path, path: &Path, found: &Metadata) -> io::Result<()> {
        let kind = found.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_mode(found.mode() & 0o7777);
        header.set_uid(found.uid().into());
        header.set_gid(found.gid().into());
        header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
        header.set_size(0);
        let name = if name.as_os_str().is_empty() {
            Path::new("./")
        } else {
            name
        };
        self.attributes(path, found)?;
        if !kind.is_dir() && found.nlink() > 1 {
            if let Some(first) = self.linked.get(&found.ino()) {
                header.set_entry_type(EntryType::Link);
                return self.tar.append_link(&mut header, name, first);
            }
            self.linked.insert(found.ino(), name.to_owned());
        }
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            return self.tar.append_data(&mut header, name, io::empty());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            return self
                .tar
                .append_link(&mut header, name, fs::read_link(path)?);
        }
        if kind.is_file() {
            let file = File::options()
                .read(true)
                .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
                .open(path)?;
            let size = found.len();
            self.left = self.left.checked_sub(size).ok_or_else(|| {
                io::Error::other(format!(
                    "larger than {} bytes: refused (see --max-size)",
                    self.most
                ))
            })?;
            header.set_entry_type(EntryType::Regular);
            header.set_size(size);
            // A file that is being written to has the length that it had.
            let content = Cancelled(file.take(size).chain(io::repeat(0)).take(size), self.cancel);
            return self.tar.append_data(&mut header, name, content);
        }
        header.set_entry_type(if kind.is_char_device() {
            EntryType::Char
        } else if kind.is_block_device() {
            EntryType::Block
        } else {
            EntryType::Fifo
        });
        header.set_device_major(major(found.rdev()))?;
        header.set_device_minor(minor(found.rdev()))?;
        self.tar.append_data(&mut header, name, io::empty())
    }

    /// What a header has no field for.
    fn attributes(&mut self, path: &Path, found: &Metadata) -> io::Result<()> {
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        if found.mtime_nsec() != 0 && found.mtime() >= 0 {
            let time = format!("{}.{:09}", found.mtime(), found.mtime_nsec());
            records.push(("mtime".to_owned(), time.into_bytes()));
        }
        if found.dev() == self.device {
            for key in xattrs(path)? {
                // Overlayfs' own are of where it was, not of what it is.
                if key.starts_with("trusted.overlay.") || key.starts_with("user.overlay.") {
                    continue;
                }
                let mut value = vec![0; MOST_XATTR];
                let length = lgetxattr(path, key.as_str(), &mut value[..])?;
                value.truncate(length);
                records.push((format!("SCHILY.xattr.{key}"), value));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let borrowed = records
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()));
        self.tar.append_pax_extensions(borrowed)
    }
}

fn xattrs(path: &Path) -> io::Result<Vec<String>> {
    let mut list = vec![0; MOST_XATTR];
    let length = match llistxattr(path, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let keys = list[..length]
        .split(|&byte| byte == 0)
        .filter(|key| !key.is_empty());
    // The kernel's namespaces are text; what follows may be anything, and is left out then.
    Ok(keys
        .filter_map(|key| std::str::from_utf8(key).ok().map(str::to_owned))
        .collect())
}

struct Cancelled<'a, R>(R, &'a Cancel);

impl<R: Read> Read for Cancelled<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1.is_set() {
            return Err(io::Error::other("interrupted"));
        }
        self.0.read(buffer)
    }
}
