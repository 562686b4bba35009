//! What is to be written, and how it is written: all of it, or as it was before.
//!
//! A controller says its changes before any is made, so that what this host cannot give is
//! refused while nothing has happened. Some values bound each other (v1's memory and
//! memory-plus-swap, quota and burst): the kernel answers EINVAL to the one that comes too
//! early, and it is tried again after the others. After a failure the former values go back.

use std::path::{Path, PathBuf};

use crate::{Error, file};

/// Whether what the kernel shows means what was written.
pub(crate) type Kept = fn(wrote: &str, shown: &str) -> bool;

/// One file's new value.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) path: PathBuf,
    pub(crate) value: String,
    /// What the file said.
    pub(crate) shown: String,
    /// What to write to have it as it was.
    pub(crate) former: String,
    pub(crate) kept: Kept,
}

impl Change {
    /// Of a file with one value.
    pub(crate) fn new(path: PathBuf, value: String, kept: Kept) -> Result<Self, Error> {
        let shown = file::read(&path)?;
        Ok(Self {
            path,
            value,
            // An empty write is none at all; an empty line resets a list.
            former: if shown.is_empty() {
                "\n".to_owned()
            } else {
                shown.clone()
            },
            shown,
            kept,
        })
    }

    fn write(&self) -> Result<(), Error> {
        file::write(&self.path, &self.value)?;
        let shown = file::read(&self.path)?;
        if (self.kept)(&self.value, &shown) {
            return Ok(());
        }
        Err(Error::NotKept {
            path: self.path.clone(),
            wrote: self.value.clone(),
            read: shown,
        })
    }

    pub(crate) fn is_so(&self) -> bool {
        (self.kept)(&self.value, &self.shown)
    }
}

/// What was written, and can be taken back.
#[derive(Debug, Default)]
#[must_use = "keep it until nothing can fail any more"]
pub struct Applied(Vec<Change>);

impl Applied {
    /// The files that were written, in that order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|change| change.path.as_path())
    }

    /// Puts the former values back, the last one first.
    pub fn undo(self) -> Result<(), Error> {
        let mut back: Vec<Change> = self.0;
        back.reverse();
        for change in &mut back {
            std::mem::swap(&mut change.value, &mut change.former);
            // What the kernel showed before, it may show in other words now.
            change.kept = |_, _| true;
        }
        in_turn(back, &mut Vec::new())
    }
}

/// Writes what is not so already; on failure the former values are back, or the error says not.
pub(crate) fn execute(changes: Vec<Change>) -> Result<Applied, Error> {
    let changes = changes.into_iter().filter(|change| !change.is_so());
    let mut done = Vec::new();
    match in_turn(changes.collect(), &mut done) {
        Ok(()) => Ok(Applied(done)),
        Err(cause) => match Applied(done).undo() {
            Ok(()) => Err(cause),
            Err(undo) => Err(Error::NotUndone {
                path: path_of(&undo).to_owned(),
                source: Box::new(cause),
            }),
        },
    }
}

fn in_turn(mut left: Vec<Change>, done: &mut Vec<Change>) -> Result<(), Error> {
    while !left.is_empty() {
        let before = left.len();
        let mut early = Vec::new();
        let mut refusal = None;
        for change in left {
            match change.write() {
                Ok(()) => done.push(change),
                Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {
                    refusal.get_or_insert(error);
                    early.push(change);
                }
                Err(error @ Error::Write { .. }) => return Err(error),
                Err(error) => {
                    // Written, and not kept.
                    done.push(change);
                    return Err(error);
                }
            }
        }
        match refusal {
            Some(error) if early.len() == before => return Err(error),
            _ => left = early,
        }
    }
    Ok(())
}

/// Writes what is not so, each for itself: what cannot be had leaves the others.
pub(crate) fn repair(changes: Vec<Change>) -> (Vec<Change>, Vec<(PathBuf, Error)>) {
    let mut left: Vec<Change> = changes.into_iter().filter(|one| !one.is_so()).collect();
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    loop {
        let before = left.len();
        let mut early = Vec::new();
        for change in left {
            match change.write() {
                Ok(()) => done.push(change),
                Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {
                    early.push((change, error));
                }
                Err(error) => failed.push((change.path, error)),
            }
        }
        if early.len() == before {
            failed.extend(
                early
                    .into_iter()
                    .map(|(change, error)| (change.path, error)),
            );
            return (done, failed);
        }
        left = early.into_iter().map(|(change, _)| change).collect();
    }
}

fn path_of(error: &Error) -> &Path {
    match error {
        Error::Io { path, .. } | Error::Write { path, .. } | Error::NotKept { path, .. } => path,
        _ => Path::new("a limit"),
    }
}

pub(crate) fn exactly(wrote: &str, shown: &str) -> bool {
    wrote == shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Dir;

    #[test]
    fn a_failure_half_way_puts_the_first_back() {
        let dir = Dir::new();
        dir.file("a", "1\n");
        dir.file("b", "1\n");
        let change = |name, kept| Change::new(dir.path().join(name), "2".to_owned(), kept).unwrap();
        let error = execute(vec![change("a", exactly), change("b", |_, _| false)]).unwrap_err();
        assert!(matches!(error, Error::NotKept { .. }), "{error}");
        assert_eq!((dir.read("a"), dir.read("b")), ("1".into(), "1".into()));
    }

    #[test]
    fn what_cannot_be_put_back_is_named() {
        let dir = Dir::new();
        dir.file("a", "1\n");
        dir.file("b", "1\n");
        let change = |name, kept| Change::new(dir.path().join(name), "2".to_owned(), kept).unwrap();
        let mut first = change("a", exactly);
        let second = change("b", |_, _| false);
        first.former = "x".into();
        // The file is gone by the time it is put back.
        let gone = dir.path().join("a");
        let vanishing = Change {
            path: gone.clone(),
            ..first
        };
        let done = Applied(vec![vanishing]);
        std::fs::remove_file(&gone).unwrap();
        assert!(done.undo().is_err());
        assert!(execute(vec![second]).is_err());
    }

    #[test]
    fn one_that_cannot_be_repaired_leaves_the_others() {
        let dir = Dir::new();
        for name in ["a", "b", "c"] {
            dir.file(name, "1\n");
        }
        let change = |name, value: &str, kept| {
            Change::new(dir.path().join(name), value.to_owned(), kept).unwrap()
        };
        let changes = vec![
            change("a", "2", exactly),
            change("b", "2", |_, _| false),
            change("c", "1", exactly),
        ];
        let (done, failed) = repair(changes);
        assert_eq!((dir.read("a"), dir.read("c")), ("2".into(), "1\n".into()));
        let paths = |name: &str| vec![dir.path().join(name)];
        let done: Vec<_> = done.into_iter().map(|one| one.path).collect();
        let failed: Vec<_> = failed.into_iter().map(|(path, _)| path).collect();
        assert_eq!((done, failed), (paths("a"), paths("b")));
    }

    #[test]
    fn what_is_so_already_is_not_written() {
        let dir = Dir::new();
        dir.file("a", "2\n");
        let change = Change::new(dir.path().join("a"), "2".to_owned(), exactly).unwrap();
        assert!(execute(vec![change]).unwrap().0.is_empty());
        assert_eq!(dir.read("a"), "2\n");
    }
}
