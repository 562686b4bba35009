//! Prometheus and promtool for the tests: extracted, not installed, since Debian's package
//! starts a service.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    cmd::{self, step},
    tree::Tree,
};

const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// Uses the machine's own where both are on PATH.
pub(super) fn fetch(tree: &Tree) -> Result<()> {
    let dir = dir(tree)?;
    let there = |name: &&str| dir.join("usr/bin").join(name).is_file();
    if PROGRAMS
        .iter()
        .all(|name| cmd::find_program(name).is_some())
        || PROGRAMS.iter().all(there)
    {
        return Ok(());
    }
    step("fetching Prometheus");
    let partial = dir.with_extension("partial");
    drop(fs::remove_dir_all(&partial));
    fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
    extract(&partial).context("install Prometheus with promtool by hand")?;
    drop(fs::remove_dir_all(&dir));
    fs::rename(&partial, &dir).with_context(|| format!("rename {}", partial.display()))
}

fn extract(to: &Path) -> Result<()> {
    let download = || {
        cmd::output(
            Command::new("apt-get")
                .args(["-qq", "download", "-o", "APT::Sandbox::User=root"])
                .args(["-o", "Acquire::Retries=3", "prometheus"])
                .current_dir(to),
        )
    };
    // A machine that had all packages already may have stale lists, or none.
    if download().is_err() {
        cmd::output(Command::new("apt-get").args(["-qq", "update"]))?;
        download()?;
    }
    let deb = fs::read_dir(to)
        .with_context(|| format!("list {}", to.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .context("apt-get download left no .deb")?;
    cmd::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(to))?;
    fs::remove_file(&deb).with_context(|| format!("remove {}", deb.display()))
}

fn dir(tree: &Tree) -> Result<PathBuf> {
    Ok(tree.cache()?.join("prometheus"))
}

pub(super) fn program_dirs(tree: &Tree) -> Result<Vec<PathBuf>> {
    let bin = dir(tree)?.join("usr/bin");
    Ok(bin.is_dir().then_some(bin).into_iter().collect())
}
