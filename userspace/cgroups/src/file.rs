//! Reads and writes of single cgroup files, each error with its path.
//!
//! A write is one `write(2)`, as the kernel takes a value whole; it is read back by
//! [`crate::change`], since the kernel rounds, clamps and sometimes keeps something else.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    path::Path,
};

use crate::Error;

/// Room for what most files say, and more than any should.
const USUAL: usize = 4096;
const MOST: u64 = 16 << 20;

/// Such a file says that it is empty: std, which asks for the size first, would take it in
/// pieces from 32 bytes on.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    fs::File::open(path)
        .and_then(contents)
        .map_err(|source| Error::Io {
            op: "read",
            path: path.to_owned(),
            source,
        })
}

pub(crate) fn contents(file: fs::File) -> io::Result<String> {
    let mut text = String::with_capacity(USUAL);
    file.take(MOST).read_to_string(&mut text)?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// `None` where this kernel or this cgroup has no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, Error> {
    optional(read(path))
}

pub(crate) fn optional(read: Result<String, Error>) -> Result<Option<String>, Error> {
    match read {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_gone() || error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(crate) fn write(path: &Path, value: &str) -> Result<(), Error> {
    write_each(path, &[value])
}

/// One after the other, each by a write of its own.
pub(crate) fn write_each(path: &Path, values: &[impl AsRef<str>]) -> Result<(), Error> {
    let failed = |value: &str, source: io::Error| Error::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    };
    let Some(first) = values.first() else {
        return Ok(());
    };
    let mut file = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .map_err(|source| failed(first.as_ref(), source))?;
    for value in values.iter().map(AsRef::as_ref) {
        file.write_all(value.as_bytes())
            .map_err(|source| failed(value, source))?;
    }
    Ok(())
}

pub(crate) fn read_u64(path: &Path) -> Result<u64, Error> {
    number(path, read(path)?)
}

pub(crate) fn number(path: &Path, text: String) -> Result<u64, Error> {
    text.parse().map_err(|_| Error::Parse {
        path: path.to_owned(),
        text,
        expected: "a number",
    })
}

/// The number beside `key` in a flat-keyed file such as `cpu.stat`.
pub(crate) fn flat_key(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_key_matches_whole_names() {
        let text = "usage_usec 12\nuser_usec 7\nnr_periods 3";
        assert_eq!(flat_key(text, "user_usec"), Some(7));
        assert_eq!(flat_key(text, "usec"), None);
        assert_eq!(flat_key(text, "nr_periods"), Some(3));
    }

    #[test]
    fn a_missing_file_is_none_but_a_bad_number_is_an_error() {
        let dir = crate::fixture::Dir::new();
        dir.file("pids.current", "many\n");
        assert!(matches!(
            read_optional(&dir.path().join("absent")),
            Ok(None)
        ));
        assert!(matches!(
            read_u64(&dir.path().join("pids.current")),
            Err(Error::Parse { .. })
        ));
    }

    #[test]
    fn a_write_never_makes_a_file() {
        let dir = crate::fixture::Dir::new();
        assert!(write(&dir.path().join("pids.max"), "3").is_err());
        assert!(!dir.path().join("pids.max").exists());
    }
}
