//! A minimal Debian with systemd, made by mmdebstrap from the mirror that the machine's own apt
//! names, as an initramfs: what the package is installed into. Made once and kept in the cache.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    cmd::{self, step},
    tree::Tree,
    vm::{cpio::Archive, mirror},
};

/// Not read by anybody there, and a third of it.
const LEFT_OUT: [&str; 4] = [
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
];

/// The file for a suite such as trixie.
pub(crate) fn fetch(tree: &Tree, suite: &str) -> Result<PathBuf> {
    let cache = tree.cache()?;
    let file = cache.join(format!("debian-{suite}.cpio"));
    if file.is_file() {
        return Ok(file);
    }
    step(&format!("making a Debian {suite} with systemd"));
    let root = cache.join(format!("debian-{suite}.root"));
    drop(fs::remove_dir_all(&root));
    let made = make(suite, &root).and_then(|()| {
        let partial = file.with_extension("partial");
        pack(&root, &partial)?;
        fs::rename(&partial, &file).with_context(|| format!("rename {}", partial.display()))
    });
    drop(fs::remove_dir_all(&root));
    made?;
    Ok(file)
}

fn make(suite: &str, root: &Path) -> Result<()> {
    let mirror = mirror::machine_mirror()?;
    cmd::output(
        Command::new("mmdebstrap")
            .args([
                "--quiet",
                "--variant=minbase",
                "--include=systemd-sysv,kmod",
            ])
            .args(["--aptopt=Acquire::Retries \"3\"", suite])
            .arg(root)
            .arg(format!("deb {mirror} {suite} main")),
    )
    .map(drop)
    .context("make a Debian; install by hand: apt-get install mmdebstrap")
}

fn pack(root: &Path, to: &Path) -> Result<()> {
    let file = fs::File::create(to).with_context(|| format!("create {}", to.display()))?;
    let mut archive = Archive::new(io::BufWriter::new(file));
    add(root, "", &mut archive).with_context(|| format!("pack {}", root.display()))?;
    let mut out = archive
        .finish()
        .with_context(|| format!("write {}", to.display()))?;
    out.flush()
        .with_context(|| format!("write {}", to.display()))
}

/// All is root's: whose else a file was does not matter there.
fn add(root: &Path, below: &str, archive: &mut Archive<io::BufWriter<fs::File>>) -> io::Result<()> {
    let mut entries = fs::read_dir(root.join(below))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let path = if below.is_empty() {
            name.to_string_lossy().into_owned()
        } else {
            format!("{below}/{}", name.to_string_lossy())
        };
        let found = entry.metadata()?;
        let mode = found.permissions().mode() & 0o7777;
        if found.is_dir() {
            archive.directory(&path, mode)?;
            if !LEFT_OUT.contains(&path.as_str()) {
                add(root, &path, archive)?;
            }
        } else if found.is_symlink() {
            let to = fs::read_link(entry.path())?;
            archive.symlink(&path, &to.to_string_lossy())?;
        } else if found.is_file() {
            archive.file(&path, mode, &fs::read(entry.path())?)?;
        }
    }
    Ok(())
}
