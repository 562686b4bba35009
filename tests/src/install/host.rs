//! What the guest is asked, without paddock.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

const PATIENCE: Duration = Duration::from_mins(1);

/// By a shell; what it wrote to stdout. Any failing command fails it.
pub(super) fn sh(script: &str) -> Result<String> {
    let done = Command::new("sh")
        .args(["-euc", script])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("run sh")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        done.status.success(),
        "{script}\n{}: {}{}",
        done.status,
        text(&done.stdout),
        text(&done.stderr)
    );
    Ok(text(&done.stdout))
}

pub(super) fn fails(script: &str) -> Result<String> {
    match sh(script) {
        Ok(said) => bail!("{script}: did not fail: {said}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Code blocks of a page, in their order, those that a shell is to run.
pub(super) fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("```sh\n") {
        let Some((block, next)) = after.split_once("\n```") else {
            break;
        };
        blocks.push(block.to_owned());
        rest = next;
    }
    blocks
}

pub(super) fn eventually(what: &str, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !probe()? {
        ensure!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// One property of the unit, by systemd.
pub(super) fn property(name: &str) -> Result<String> {
    let said = sh(&format!(
        "systemctl show paddock.service --property {name} --value"
    ))?;
    Ok(said.trim().to_owned())
}

/// Processes that run a program of this path.
pub(super) fn running(program: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        if let Ok(exe) = fs::read_link(path.join("exe"))
            && exe.to_string_lossy().contains(program)
        {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

/// Paths below `dir` whose name contains `word`.
pub(super) fn named(dir: &Path, word: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains(word) {
            found.push(path.display().to_string());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(named(&path, word));
        }
    }
    found
}

/// Programs in the kernel that a name of paddock's kernel half has.
pub(super) fn programs() -> usize {
    let ours = |name: &str| {
        ["lsm_", "fentry_", "fexit_", "tp_", "btf_"]
            .iter()
            .any(|kind| name.starts_with(kind))
    };
    let loaded = aya::programs::loaded_programs().filter_map(Result::ok);
    loaded
        .filter(|program| program.name_as_str().is_some_and(ours))
        .count()
}
