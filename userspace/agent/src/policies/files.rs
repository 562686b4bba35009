//! The files of the policies in force, for the next agent: `STATE/policies/NAME.toml`, the first
//! line with what was said in place of the file.
//!
//! A name is letters, digits, `_`, `.` and `-`, a letter or digit first: it leads nowhere else.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use paddock_policy::{
    MAX_BYTES, Overrides,
    model::{Mode, WhenUnenforceable},
};

const DIRECTORY: &str = "policies";
const ENDING: &str = "toml";

/// In the place of the former one at once, and on disk before it is in force.
pub(super) fn keep(state: &Path, name: &str, text: &[u8], overrides: Overrides) -> io::Result<()> {
    let directory = make(state)?;
    let new = directory.join(format!(".{name}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    let written = file
        .write_all(first_line(overrides).as_bytes())
        .and_then(|()| file.write_all(text))
        .and_then(|()| file.sync_all());
    let moved = written.and_then(|()| fs::rename(&new, path(&directory, name)));
    if moved.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&new);
    }
    moved?;
    File::open(&directory)?.sync_all()
}

pub(super) fn forget(state: &Path, name: &str) -> io::Result<()> {
    let directory = state.join(DIRECTORY);
    match fs::remove_file(path(&directory, name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok(())
}

/// A policy that was in force.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) text: Vec<u8>,
    pub(super) overrides: Overrides,
}

pub(super) fn kept(state: &Path) -> io::Result<Vec<Kept>> {
    let directory = match fs::read_dir(state.join(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        directory => directory?,
    };
    let mut all = Vec::new();
    for entry in directory {
        let entry = entry?;
        let path = entry.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let (Some(name), true) = (name, path.extension().is_some_and(|end| end == ENDING)) else {
            continue;
        };
        let mut text = Vec::new();
        let most = u64::try_from(MAX_BYTES + LONGEST_LINE).unwrap_or(u64::MAX);
        File::open(&path)?.take(most + 1).read_to_end(&mut text)?;
        let end = text.iter().position(|byte| *byte == b'\n');
        let rest = text.split_off(end.map_or(0, |end| end + 1));
        all.push(Kept {
            name: name.to_owned(),
            overrides: overrides(&text),
            text: rest,
        });
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

fn path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.{ENDING}"))
}

/// No policy is in force any more.
pub(super) fn forget_all(state: &Path) {
    // What stays is of no use, and in nobody's way.
    let _ = fs::remove_dir_all(state.join(DIRECTORY));
}

/// Which policy's rule each number of a ruleset stands for: the kernel half goes on with it when
/// the agent is gone. Not on disk at once: with the machine goes the kernel half.
pub(super) fn keep_names(state: &Path, ruleset: u32, names: &[(String, String)]) -> io::Result<()> {
    let directory = make(state)?;
    let new = directory.join(format!(".{ruleset}.new"));
    let written = fs::write(&new, serde_json::to_vec(names)?)
        .and_then(|()| fs::rename(&new, names_path(&directory, ruleset)));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// None where there are none.
pub(super) fn names(state: &Path, ruleset: u32) -> Vec<(String, String)> {
    let path = names_path(&state.join(DIRECTORY), ruleset);
    fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

fn names_path(directory: &Path, ruleset: u32) -> PathBuf {
    directory.join(format!("{ruleset}.rules.json"))
}

fn make(state: &Path) -> io::Result<PathBuf> {
    let directory = state.join(DIRECTORY);
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(directory),
    }
}

const LONGEST_LINE: usize = 128;

fn first_line(overrides: Overrides) -> String {
    let mode = overrides.mode.map_or("-", Mode::name);
    let when = overrides
        .when_unenforceable
        .map_or("-", WhenUnenforceable::name);
    format!("# in force: mode {mode} when_unenforceable {when}\n")
}

fn overrides(line: &[u8]) -> Overrides {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace().skip_while(|word| *word != "mode");
    Overrides {
        mode: words.nth(1).and_then(Mode::find),
        when_unenforceable: words.nth(1).and_then(WhenUnenforceable::find),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Dir;

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let dir = Dir::new();
        let all = [
            ("a", Overrides::default()),
            (
                "b",
                Overrides {
                    mode: Some(Mode::Enforce),
                    when_unenforceable: Some(WhenUnenforceable::Audit),
                },
            ),
            (
                "c",
                Overrides {
                    mode: None,
                    when_unenforceable: Some(WhenUnenforceable::Fail),
                },
            ),
        ];
        for (name, overrides) in all {
            let text = format!("name = \"{name}\"\n");
            keep(dir.path(), name, b"", overrides).unwrap();
            keep(dir.path(), name, text.as_bytes(), overrides).unwrap();
        }
        let kept = kept(dir.path()).unwrap();
        assert_eq!(kept.len(), all.len());
        for ((name, overrides), kept) in all.iter().zip(&kept) {
            assert_eq!(kept.name, *name);
            assert_eq!(kept.overrides, *overrides);
            assert_eq!(kept.text, format!("name = \"{name}\"\n").as_bytes());
        }
        for (name, _) in all {
            forget(dir.path(), name).unwrap();
        }
        assert!(super::kept(dir.path()).unwrap().is_empty());
    }
}
