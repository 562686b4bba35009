//! Policies that the operator keeps as files (`policy.dir`): in force from the agent's start on,
//! after a reboot too, and read again at each SIGHUP.
//!
//! A file whose text is in force already is left alone, with what was said of its mode since. One
//! that goes is not lifted: that is `paddock policy rm`'s to do. One that cannot be put in force
//! is told of in the log and by `/readyz`, and takes nothing down.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use paddock_policy::{Overrides, printable};

use super::Policies;
use crate::{chain::chain, shared::Shared, trusted};

/// Puts all in force that are not. Blocking.
pub(crate) fn apply(shared: &Shared) {
    let mut refused = Vec::new();
    if let Some(dir) = &shared.live().policy_dir {
        match files(dir) {
            Ok(files) => {
                for file in files {
                    if let Err(why) = one(shared, &file) {
                        refused.push(why);
                    }
                }
            }
            Err(error) => refused.push(format!("{}: {error}", dir.display())),
        }
    }
    for why in &refused {
        tracing::error!("not in force: {why}");
    }
    shared.policies.note_refused(refused);
}

/// In the order of their names; a directory that is not there has none.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|ending| ending == "toml") {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn one(shared: &Shared, path: &Path) -> Result<(), String> {
    let name = printable(&path.display().to_string());
    let read = trusted::read(path).map_err(|error| format!("{name}: {error}"))?;
    let text = read.bytes;
    if shared.policies.has(&text) {
        return Ok(());
    }
    let policy = paddock_policy::parse(&text).map_err(|faults| {
        let lines = faults.lines(&name);
        let first = lines.lines().next().unwrap_or_default().to_owned();
        match faults.0.len() {
            0 | 1 => first,
            count => format!(
                "{first} (and {} more: paddock policy check {name})",
                count - 1
            ),
        }
    })?;
    let applied = shared.policies.apply(shared, &text, Overrides::default());
    applied.map_err(|error| format!("{name}: {}", chain(&error)))?;
    tracing::info!("policy {} of {name} is in force", policy.name);
    Ok(())
}

impl Policies {
    /// Whether a file of this very text is in force.
    fn has(&self, text: &[u8]) -> bool {
        let inner = self.lock();
        inner.applied.values().any(|one| one.text == text)
    }

    fn note_refused(&self, refused: Vec<String>) {
        self.lock().refused = refused;
    }

    /// Files of the operator's that are not in force, and why.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.lock().refused.clone()
    }
}
