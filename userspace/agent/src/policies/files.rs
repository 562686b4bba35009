//! The files of the policies in force, for the next agent: `STATE/policies/NAME.toml`, the first
//! line with what was said in place of the file.
//!
//! A name is letters, digits, `_`, `.` and `-`, a letter or digit first: it leads nowhere else.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use paddock_policy::{
    MAX_BYTES, MAX_STATEMENTS, Overrides,
    model::{Mode, WhenUnenforceable},
};

use serde::de::DeserializeOwned;

use super::answered::{Answered, Numbered};

const DIRECTORY: &str = "policies";
const ENDING: &str = "toml";
const ANSWERED: &str = "answered.json";

/// In the place of the former one at once, and on disk before it is in force.
pub(super) fn keep(
    state: &Path,
    name: &str,
    text: &[u8],
    overrides: Overrides,
    disarmed: &BTreeSet<String>,
) -> io::Result<()> {
    let directory = make(state)?;
    let new = directory.join(format!(".{name}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    let written = file
        .write_all(first_line(overrides, disarmed).as_bytes())
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
    /// Rules that went to audit by themselves.
    pub(super) disarmed: BTreeSet<String>,
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
            disarmed: disarmed(&text),
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
pub(super) fn keep_rules(state: &Path, ruleset: u32, rules: &[Numbered]) -> io::Result<()> {
    let name = rules_name(ruleset);
    let kept = write(state, &name, &serde_json::to_vec(rules)?);
    if kept.is_err() {
        // Those of before would be taken for these.
        let _ = fs::remove_file(state.join(DIRECTORY).join(name));
    }
    kept
}

/// None where there are none.
pub(super) fn rules(state: &Path, ruleset: u32) -> Vec<Numbered> {
    read(state, &rules_name(ruleset)).unwrap_or_default()
}

/// The counts of hits that reactions have followed.
pub(super) fn keep_answered(state: &Path, answered: &[Answered]) -> io::Result<()> {
    write(state, ANSWERED, &serde_json::to_vec(answered)?)
}

pub(super) fn answered(state: &Path) -> Vec<Answered> {
    read(state, ANSWERED).unwrap_or_default()
}

fn write(state: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let directory = make(state)?;
    let new = directory.join(format!(".{name}.new"));
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, directory.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn read<T: DeserializeOwned>(state: &Path, name: &str) -> Option<T> {
    let bytes = fs::read(state.join(DIRECTORY).join(name)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn rules_name(ruleset: u32) -> String {
    format!("{ruleset}.rules.json")
}

fn make(state: &Path) -> io::Result<PathBuf> {
    let directory = state.join(DIRECTORY);
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(directory),
    }
}

/// With the names of all rules that a file can have, each with a space.
const LONGEST_LINE: usize = 128 + MAX_STATEMENTS * 65;

fn first_line(overrides: Overrides, disarmed: &BTreeSet<String>) -> String {
    let mode = overrides.mode.map_or("-", Mode::name);
    let when = overrides
        .when_unenforceable
        .map_or("-", WhenUnenforceable::name);
    let mut line = format!("# in force: mode {mode} when_unenforceable {when}");
    if !disarmed.is_empty() {
        line.push_str(" disarmed");
    }
    for rule in disarmed {
        line.push(' ');
        line.push_str(rule);
    }
    line.push('\n');
    line
}

fn disarmed(line: &[u8]) -> BTreeSet<String> {
    let line = String::from_utf8_lossy(line);
    let rules = line
        .split_whitespace()
        .skip_while(|word| *word != "disarmed");
    rules.skip(1).map(str::to_owned).collect()
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
    fn disarmed_rules_are_kept_beside_what_was_said() {
        let dir = Dir::new();
        let overrides = Overrides {
            mode: Some(Mode::Enforce),
            when_unenforceable: None,
        };
        let disarmed = BTreeSet::from(["a-1".to_owned(), "mode".to_owned()]);
        keep(dir.path(), "p", b"text", overrides, &disarmed).unwrap();
        let kept = kept(dir.path()).unwrap();
        assert_eq!(kept[0].disarmed, disarmed);
        assert_eq!(kept[0].overrides, overrides);
        assert_eq!(kept[0].text, b"text");
    }

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
            keep(dir.path(), name, b"", overrides, &BTreeSet::new()).unwrap();
            keep(
                dir.path(),
                name,
                text.as_bytes(),
                overrides,
                &BTreeSet::new(),
            )
            .unwrap();
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
