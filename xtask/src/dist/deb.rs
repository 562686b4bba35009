//! The Debian package, by `dpkg-deb`: a static binary, its unit, its configuration, what Prometheus
//! and Grafana want, the docs, manual pages and completions. It depends on nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::source_date;
use crate::{cmd, man, tree::Tree};

/// From the sources into the package, and with which mode.
const FILES: &[(&str, &str, u32)] = &[
    (
        "packaging/systemd/paddock.service",
        "usr/lib/systemd/system/paddock.service",
        0o644,
    ),
    (
        "packaging/systemd/paddock-web.socket",
        "usr/lib/systemd/system/paddock-web.socket",
        0o644,
    ),
    (
        "packaging/systemd/paddock-generator",
        "usr/lib/systemd/system-generators/paddock-generator",
        0o755,
    ),
    ("README.md", "usr/share/doc/paddock/README.md", 0o644),
];
/// Directories, all their files.
const TREES: &[(&str, &str)] = &[
    ("docs", "usr/share/doc/paddock/docs"),
    ("dashboards/grafana", "usr/share/paddock/grafana"),
    ("dashboards/prometheus", "usr/share/paddock/prometheus"),
];
/// Where each shell looks for what completes its command lines.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/paddock"),
    ("zsh", "usr/share/zsh/vendor-completions/_paddock"),
    ("fish", "usr/share/fish/vendor_completions.d/paddock.fish"),
];
const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];

/// Makes `paddock_VERSION_ARCH.deb` in `dir`; its path.
pub(crate) fn write(tree: &Tree, binary: &Path, dir: &Path) -> Result<PathBuf> {
    package(tree, binary, dir, env!("CARGO_PKG_VERSION"))
}

/// The same by another version, which an upgrade is tried with.
pub(crate) fn package(tree: &Tree, binary: &Path, dir: &Path, version: &str) -> Result<PathBuf> {
    let architecture = match tree.triple.split('-').next() {
        Some("x86_64") => "amd64",
        Some("aarch64") => "arm64",
        other => bail!("Debian has no name here for {}", other.unwrap_or_default()),
    };
    let root = dir.join("deb");
    drop(fs::remove_dir_all(&root));
    put(&root, "usr/bin/paddock", &read(binary)?, 0o755)?;
    let oci = root.join("usr/bin/paddock-oci");
    std::os::unix::fs::symlink("paddock", &oci)
        .with_context(|| format!("link {}", oci.display()))?;
    for (from, to, mode) in FILES {
        put(&root, to, &read(&tree.root.join(from))?, *mode)?;
    }
    for (from, to) in TREES {
        copy_tree(&tree.root.join(from), &root.join(to))?;
    }
    made(binary, &root)?;
    manual(tree, &root)?;
    control(tree, &root, version, architecture)?;
    let deb = dir.join(format!("paddock_{version}_{architecture}.deb"));
    let built = cmd::output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .args([&root, &deb])
            .env("SOURCE_DATE_EPOCH", source_date(tree)?),
    );
    drop(fs::remove_dir_all(&root));
    built.context("dpkg-deb makes the package; elsewhere use the binary")?;
    Ok(deb)
}

/// What the binary says of itself.
fn made(binary: &Path, root: &Path) -> Result<()> {
    let said = |args: &[&str]| cmd::output(Command::new(binary).args(args).env_clear());
    let config = said(&["config", "default"])?;
    // As an operator expects of a package: policies are put there, and hold.
    let config = config.replace("\n#dir = ", "\ndir = ");
    put(root, "etc/paddock/config.toml", config.as_bytes(), 0o644)?;
    fs::create_dir_all(root.join("etc/paddock/policy.d")).context("create policy.d")?;
    for (shell, to) in COMPLETIONS {
        // A script calls the binary that wrote it.
        let script = said(&["completions", shell])?;
        let script = script.replace(&binary.display().to_string(), "/usr/bin/paddock");
        put(root, to, script.as_bytes(), 0o644)?;
    }
    let copyright = "Files: *\nCopyright: the paddock authors\nLicense: MIT or Apache-2.0\n";
    put(
        root,
        "usr/share/doc/paddock/copyright",
        copyright.as_bytes(),
        0o644,
    )
}

/// A page for each command, compressed as Debian has them.
fn manual(tree: &Tree, root: &Path) -> Result<()> {
    let dir = root.join("usr/share/man/man1");
    man::write(tree, &dir)?;
    let pages = fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
    let pages = pages
        .map(|page| Ok(page?.path()))
        .collect::<std::io::Result<Vec<_>>>();
    // Neither a name nor a time: the same bytes each time.
    let mut gzip = Command::new("gzip");
    cmd::run(gzip.arg("-9n").args(pages.context("list the manual")?))
}

fn control(tree: &Tree, root: &Path, version: &str, architecture: &str) -> Result<()> {
    let from = tree.root.join("packaging/debian");
    let size = size(root)? / 1024;
    let text = String::from_utf8(read(&from.join("control"))?).context("control")?;
    let text = text
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@SIZE@", &size.to_string());
    put(root, "DEBIAN/control", text.as_bytes(), 0o644)?;
    put(
        root,
        "DEBIAN/conffiles",
        &read(&from.join("conffiles"))?,
        0o644,
    )?;
    for script in SCRIPTS {
        put(
            root,
            &format!("DEBIAN/{script}"),
            &read(&from.join(script))?,
            0o755,
        )?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn put(root: &Path, to: &str, content: &[u8], mode: u32) -> Result<()> {
    write_file(&root.join(to), content, mode)
}

fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("chmod {}", path.display()))
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("list {}", from.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", from.display()))?;
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            write_file(&to, &read(&entry.path())?, 0o644)?;
        }
    }
    Ok(())
}

fn size(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        let found = entry.path().symlink_metadata().context("look at a file")?;
        sum += if found.is_dir() {
            size(&entry.path())?
        } else {
            found.len()
        };
    }
    Ok(sum)
}
