//! Programs of Debian packages for the tests: extracted, not installed, since those packages
//! start a service or load a policy into the machine's kernel.

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

struct Package {
    name: &'static str,
    /// Where in it its programs are.
    dir: &'static str,
    programs: &'static [&'static str],
}

const PACKAGES: [Package; 4] = [
    Package {
        name: "prometheus",
        dir: "usr/bin",
        programs: &["prometheus", "promtool"],
    },
    Package {
        name: "prometheus-alertmanager",
        dir: "usr/bin",
        programs: &["prometheus-alertmanager"],
    },
    Package {
        name: "apparmor",
        dir: "sbin",
        programs: &["apparmor_parser"],
    },
    Package {
        name: "systemd-container",
        dir: "usr/bin",
        programs: &["systemd-nspawn"],
    },
];

/// Uses the machine's own where all of a package's are on PATH.
pub(super) fn fetch(tree: &Tree) -> Result<()> {
    let cache = tree.cache()?;
    for package in &PACKAGES {
        let dir = cache.join(package.name);
        let there = |name: &&str| dir.join(package.dir).join(name).is_file();
        if package
            .programs
            .iter()
            .all(|name| cmd::find_program(name).is_some())
            || package.programs.iter().all(there)
        {
            continue;
        }
        step(&format!("fetching {}", package.name));
        let partial = dir.with_extension("partial");
        drop(fs::remove_dir_all(&partial));
        fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
        extract(package.name, &partial)
            .with_context(|| format!("install by hand: {}", package.programs.join(", ")))?;
        drop(fs::remove_dir_all(&dir));
        fs::rename(&partial, &dir).with_context(|| format!("rename {}", partial.display()))?;
    }
    Ok(())
}

fn extract(package: &str, to: &Path) -> Result<()> {
    let download = || {
        cmd::output(
            Command::new("apt-get")
                .args(["-qq", "download", "-o", "APT::Sandbox::User=root"])
                .args(["-o", "Acquire::Retries=3", package])
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

pub(super) fn program_dirs(tree: &Tree) -> Result<Vec<PathBuf>> {
    let cache = tree.cache()?;
    let dirs = PACKAGES
        .iter()
        .map(|package| cache.join(package.name).join(package.dir));
    Ok(dirs.filter(|dir| dir.is_dir()).collect())
}
