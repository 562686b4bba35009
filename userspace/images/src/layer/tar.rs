//! Entries of a tar, one after the other: ustar, GNU's long names, PAX.
//!
//! The tar crate reads a header's fields; walking from header to header is done here, since
//! its own iterator reads a long name of any length into memory.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::error::words;

const BLOCK: usize = 512;
/// Long names, links and PAX records: far above what they hold, far below what would hurt.
const MOST_EXTENSION: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{}", words(.0))]
    Read(#[from] io::Error),
    #[error("no tar: {0}")]
    Malformed(&'static str),
}

/// One entry as its headers have it; nothing is checked yet.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    /// The header's type flag.
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, u32),
    pub(super) size: u64,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: bool,
}

/// Reads as the content of the entry that came last.
pub(super) struct Entries<R> {
    reader: R,
    /// Of the content, and then of the padding after it.
    left: u64,
    padding: u64,
    ended: bool,
}

/// What came in front of an entry for it.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Entries<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            left: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The archive's own end came, not only the file's.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = field(header.entry_size(), &header.as_old().size)?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(self.name(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.name(size)?),
                EntryType::XHeader => extensions.pax = records(&self.extension(size)?)?,
                // Defaults for all that follows, which writers of layers do not use.
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                _ => return self.entry(&header, size, extensions).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry, Error> {
        let raw = header.as_old();
        let device = |value: io::Result<Option<u32>>| value.map(Option::unwrap_or_default);
        let mut entry = Entry {
            path: header.path_bytes().into_owned(),
            link: header.link_name_bytes().unwrap_or_default().into_owned(),
            kind: header.entry_type().as_byte(),
            mode: field(header.mode(), &raw.mode)?,
            uid: field(header.uid(), &raw.uid)?,
            gid: field(header.gid(), &raw.gid)?,
            modified: (
                i64::try_from(field(header.mtime(), &raw.mtime)?).unwrap_or(0),
                0,
            ),
            size,
            // Of other types these may be anything.
            device: (
                device(header.device_major()).unwrap_or_default(),
                device(header.device_minor()).unwrap_or_default(),
            ),
            xattrs: Vec::new(),
            sparse: header.entry_type() == EntryType::GNUSparse,
        };
        if let Some(path) = extensions.path {
            entry.path = path;
        }
        if let Some(link) = extensions.link {
            entry.link = link;
        }
        for (key, value) in extensions.pax {
            entry.apply(&key, value)?;
        }
        // Only these have content; a size elsewhere is a link's target's.
        let content = matches!(
            header.entry_type(),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
        ) || header.entry_type().as_byte() == 0;
        self.begin(if content { entry.size } else { 0 })?;
        Ok(entry)
    }

    fn begin(&mut self, size: u64) -> Result<(), Error> {
        self.left = size;
        let block = BLOCK as u64;
        self.padding = (block - size % block) % block;
        size.checked_add(self.padding)
            .map(drop)
            .ok_or(Error::Malformed("an entry's size is out of range"))
    }

    /// Over what is left of the entry before.
    fn skip(&mut self) -> Result<(), Error> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.reader).take(rest), &mut io::sink())?;
        if skipped < rest {
            return Err(truncated());
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// `None` at the end: a block of zeros, or no block at all.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(truncated()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if block.iter().all(|&byte| byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let sum = block
            .iter()
            .enumerate()
            .map(|(at, &byte)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(byte)
                }
            })
            .sum::<u32>();
        if header.cksum().ok() != Some(sum) {
            return Err(Error::Malformed("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > MOST_EXTENSION {
            return Err(Error::Malformed("a name or its attributes are too long"));
        }
        self.begin(size)?;
        let mut bytes = Vec::new();
        let read = self.read_to_end(&mut bytes)?;
        if (read as u64) < size {
            return Err(truncated());
        }
        Ok(bytes)
    }

    fn name(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let mut name = self.extension(size)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.reader.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "truncated"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl Entry {
    fn apply(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), Error> {
        const XATTR: &[u8] = b"SCHILY.xattr.";
        match key {
            b"path" => self.path = value,
            b"linkpath" => self.link = value,
            b"size" => self.size = number(&value)?,
            b"uid" => self.uid = number(&value)?,
            b"gid" => self.gid = number(&value)?,
            b"mtime" => self.modified = time(&value)?,
            key if key.starts_with(XATTR) => {
                self.xattrs.push((key[XATTR.len()..].to_vec(), value));
            }
            key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {}
        }
        Ok(())
    }
}

/// A number of the header's; blank is 0.
fn field<T: Default>(value: io::Result<T>, raw: &[u8]) -> Result<T, Error> {
    match value {
        Ok(value) => Ok(value),
        Err(_) if raw.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(T::default()),
        Err(_) => Err(Error::Malformed("a field of a header is no number")),
    }
}

fn truncated() -> Error {
    Error::Malformed("truncated")
}

fn number(text: &[u8]) -> Result<u64, Error> {
    let text = std::str::from_utf8(text).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or(Error::Malformed("a PAX record's value is no number"))
}

/// `-1.5` is half a second after -2.
fn time(text: &[u8]) -> Result<(i64, u32), Error> {
    const WRONG: Error = Error::Malformed("a PAX record's time is none");
    let text = std::str::from_utf8(text).map_err(|_| WRONG)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| WRONG)?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(WRONG);
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().map_err(|_| WRONG)?;
    Ok(match (whole.starts_with('-'), nanos) {
        (false, nanos) => (seconds, nanos),
        (true, 0) => (seconds, 0),
        (true, nanos) => (seconds.saturating_sub(1), 1_000_000_000 - nanos),
    })
}

/// Key and value.
type Record = (Vec<u8>, Vec<u8>);

/// `LENGTH KEY=VALUE\n`, LENGTH being that of the whole.
fn records(mut bytes: &[u8]) -> Result<Vec<Record>, Error> {
    const WRONG: Error = Error::Malformed("a PAX record is malformed");
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|&byte| byte == b' ').ok_or(WRONG)?;
        let length = std::str::from_utf8(&bytes[..space])
            .ok()
            .and_then(|text| text.parse::<usize>().ok())
            .ok_or(WRONG)?;
        let record = bytes.get(space + 1..length).ok_or(WRONG)?;
        let record = record.strip_suffix(b"\n").ok_or(WRONG)?;
        let equals = record.iter().position(|&byte| byte == b'=').ok_or(WRONG)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        bytes = &bytes[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"12").unwrap(), (12, 0));
        assert_eq!(time(b"12.5").unwrap(), (12, 500_000_000));
        assert_eq!(time(b"12.0000000019").unwrap(), (12, 1));
        assert_eq!(time(b"-1.5").unwrap(), (-2, 500_000_000));
        assert!(time(b"1.x").is_err() && time(b"").is_err() && time(b"1.-5").is_err());
    }

    #[test]
    fn records_say_their_length() {
        let all = records(b"11 path=ab\n12 a=b=\0=cd\n").unwrap();
        assert_eq!(all[0], (b"path".to_vec(), b"ab".to_vec()));
        assert_eq!(all[1], (b"a".to_vec(), b"b=\0=cd".to_vec()));
        for wrong in [
            "11 path=a\n",
            "3 a\n",
            "x",
            "999999999999999999999 a=b\n",
            "0 a=b\n",
            "2 a=b\n",
        ] {
            assert!(records(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn garbage_is_no_tar() {
        let text = |bytes: &[u8]| {
            Entries::new(bytes)
                .next_entry()
                .map(drop)
                .unwrap_err()
                .to_string()
        };
        assert!(text(&[b'x'; 1024]).contains("checksum"));
        assert!(text(&[b'x'; 100]).contains("truncated"));
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        assert!(text(header.as_bytes()).contains("too long"));
        let mut header = Header::new_gnu();
        header.set_size(u64::MAX);
        header.set_cksum();
        assert!(text(header.as_bytes()).contains("out of range"));
    }
}
