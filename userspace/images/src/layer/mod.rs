//! A layer: a tar, perhaps compressed, that becomes a directory for overlayfs.
//!
//! One pass over the blob: hash, decompress, hash again, parse, write. Whoever made the layer
//! chose every byte, so each entry is placed through the root's descriptor ([`tree`]), what it
//! may cost is counted ([`Limits`]), and what an honest layer never has ends it. All of it
//! happens in a thread that can change nothing else ([`confined`]).

mod decode;
mod entry;
mod tar;
mod tree;

use std::{
    io::{self, Read},
    os::fd::BorrowedFd,
};

use serde::{Deserialize, Serialize};

pub(crate) use self::decode::{Compression, decoder};
use self::{entry::Shape, tar::Entries, tree::Tree};
use crate::{
    confined::confined,
    digest::{Digest, Hashing},
    error::{Error, words},
};

/// How much an image may cost the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers, unpacked.
    pub bytes: u64,
    /// Files, directories and the like of all layers.
    pub entries: u64,
}

impl Default for Limits {
    /// Above the largest images of machine learning, below what fills a disk unseen.
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 4_000_000,
        }
    }
}

/// What is left of the limits, over an image's layers.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    bytes: u64,
    entries: u64,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: limits.bytes,
            entries: limits.entries,
        }
    }
}

/// What is known of an unpacked layer beside its files: `layer.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Of the layer's tar.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// The tar has an entry for the root itself.
    pub(crate) root: bool,
    /// Nothing of the layers below shows: overlayfs knows no opaque root.
    pub(crate) opaque: bool,
    /// Directories that only had to be there for what is in them; their attributes are those
    /// of the layers below.
    pub(crate) implicit: Vec<String>,
}

/// What a layer is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Of the blob, and its size; an archive by docker tells neither.
    pub(crate) blob: Option<(Digest, u64)>,
    /// Of the tar; a plain import has none before.
    pub(crate) diff_id: Option<Digest>,
}

/// Unpacks `blob` into the empty directory `root`. On an error its content is worth nothing.
pub(crate) fn unpack(
    blob: impl Read + Send,
    expected: Expected,
    root: BorrowedFd<'_>,
    budget: &mut Budget,
) -> Result<(Digest, Facts), Error> {
    let name = expected
        .diff_id
        .or(expected.blob.map(|(digest, _)| digest))
        .unwrap_or(Digest::of(b""));
    let work = |_| unpack_here(name, blob, expected, root, budget);
    confined(root, work).map_err(|error| Error::Layer {
        layer: name,
        reason: format!("its unpacking cannot be confined: {}", words(&error)),
    })?
}

fn unpack_here(
    name: Digest,
    blob: impl Read,
    expected: Expected,
    root: BorrowedFd<'_>,
    budget: &mut Budget,
) -> Result<(Digest, Facts), Error> {
    let failed = |reason: String| Error::Layer {
        layer: name,
        reason,
    };
    let mut blob = Hashing::new(blob);
    let limits = budget.limits;
    let (diff_id, facts) = {
        let plain = decoder(&mut blob).map_err(|error| failed(words(&error)))?;
        let counted = Bounded {
            inner: plain,
            left: &mut budget.bytes,
            most: limits.bytes,
        };
        let mut tar = Hashing::new(counted);
        let facts = entries(&mut tar, name, root, &mut budget.entries, limits, expected)?;
        // Padding after the end is part of what is hashed.
        io::copy(&mut tar, &mut io::sink()).map_err(|error| failed(words(&error)))?;
        let (diff_id, bytes) = tar.finish();
        (diff_id, Facts { bytes, ..facts })
    };
    if let Some((digest, size)) = expected.blob {
        io::copy(&mut blob, &mut io::sink()).map_err(|error| failed(words(&error)))?;
        let (is, count) = blob.finish();
        if count != size {
            return Err(failed(format!("{count} bytes came instead of {size}")));
        }
        if is != digest {
            return Err(failed(format!(
                "its content is {is}: not what was asked for"
            )));
        }
    }
    if let Some(wanted) = expected.diff_id
        && wanted != diff_id
    {
        return Err(failed(format!(
            "unpacked it is {diff_id}: not what the image's config says"
        )));
    }
    Ok((diff_id, facts))
}

fn entries(
    tar: &mut impl Read,
    name: Digest,
    root: BorrowedFd<'_>,
    left: &mut u64,
    limits: Limits,
    expected: Expected,
) -> Result<Facts, Error> {
    let mut tree = Tree::new(root).map_err(|error| Error::Layer {
        layer: name,
        reason: words(&error),
    })?;
    let mut entries = Entries::new(tar);
    let mut count = 0;
    loop {
        let broken = |reason: tar::Error| Error::Layer {
            layer: name,
            reason: reason.to_string(),
        };
        let Some(entry) = entries.next_entry().map_err(broken)? else {
            break;
        };
        let refused = |reason: String| Error::Entry {
            layer: name,
            entry: crate::error::shown(&entry.path),
            reason,
        };
        if *left == 0 {
            return Err(refused(format!(
                "more than {} entries: refused (see --max-entries)",
                limits.entries
            )));
        }
        *left -= 1;
        count += 1;
        let shape = Shape::of(&entry).map_err(|error| refused(error.to_string()))?;
        tree.place(&entry, shape, &mut entries)
            .map_err(|error| refused(error.to_string()))?;
    }
    if expected.diff_id.is_none() && !entries.ended() {
        return Err(Error::Layer {
            layer: name,
            reason: "truncated: the end of the archive is missing".to_owned(),
        });
    }
    let mut facts = tree.finish().map_err(|error| Error::Layer {
        layer: name,
        reason: words(&error),
    })?;
    facts.entries = count;
    Ok(facts)
}

/// Ends a reading that goes past what may be unpacked.
struct Bounded<'a, R> {
    inner: R,
    left: &'a mut u64,
    most: u64,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => *self.left = left,
            None => {
                return Err(io::Error::other(format!(
                    "unpacked the image is larger than {} bytes: refused (see --max-size)",
                    self.most
                )));
            }
        }
        Ok(read)
    }
}
