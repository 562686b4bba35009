//! `cargo xtask dist`: what is handed out, in `target/dist`: the static binary, the Debian package,
//! the container image's context, the bill of materials, checksums.
//!
//! The same sources and compilers give the same bytes in any directory: `--verify` builds once
//! more elsewhere and compares.

pub(crate) mod deb;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    cmd::{self, step},
    setup::{self, Purpose},
    tree::Tree,
};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Build once more, from a clone of what is committed, and compare byte by byte
    #[arg(long)]
    verify: bool,
    /// Where it is put; target/dist, if not given
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

const SUMS: &str = "SHA256SUMS";

pub(crate) fn main(tree: &Tree, args: &Args) -> Result<()> {
    let toolchain = setup::prepare(tree, Purpose::Run)?;
    build::all(tree, &toolchain)?;
    let dir = match &args.to {
        Some(dir) => std::path::absolute(dir).context("--to")?,
        None => tree.target.join("dist"),
    };
    write(tree, &dir)?;
    if args.verify {
        verify(tree, &dir)?;
    }
    let sums = fs::read_to_string(dir.join(SUMS)).context("read the checksums")?;
    print!("{sums}");
    Ok(())
}

/// Into a directory that is made anew.
fn write(tree: &Tree, dir: &Path) -> Result<()> {
    drop(fs::remove_dir_all(dir));
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    let arch = tree.triple.split('-').next().unwrap_or_default();
    let binary = dir.join(format!("paddock-{version}-linux-{arch}"));
    stripped(tree, &binary)?;
    deb::write(tree, &binary, dir)?;
    sbom::write(tree, &dir.join(format!("paddock-{version}.cdx.json")))?;
    // `docker build target/dist/image`, or podman's.
    let image = dir.join("image");
    fs::create_dir(&image).context("create the image's directory")?;
    copy(&binary, &image.join("paddock"))?;
    copy(
        &tree.root.join("packaging/Containerfile"),
        &image.join("Containerfile"),
    )?;
    copy(
        &tree.root.join("packaging/kubernetes/paddock.yaml"),
        &dir.join("paddock-kubernetes.yaml"),
    )?;
    sums(dir)
}

/// Without the symbols, which are a sixth of it; those are for `target/*/release/paddock`.
pub(crate) fn stripped(tree: &Tree, to: &Path) -> Result<()> {
    cmd::run(
        Command::new("strip")
            .arg("-o")
            .args([to, &tree.binary("paddock")]),
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn sums(dir: &Path) -> Result<()> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .with_context(|| format!("list {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort_unstable();
    let text = cmd::output(Command::new("sha256sum").args(&names).current_dir(dir))?;
    fs::write(dir.join(SUMS), text).context("write the checksums")
}

/// In another directory, with a target folder of its own.
fn verify(tree: &Tree, dir: &Path) -> Result<()> {
    let clone = tree.target.join("dist-again");
    drop(fs::remove_dir_all(&clone));
    step("building once more, elsewhere");
    cmd::run(
        Command::new("git")
            .args(["clone", "--quiet"])
            .args([&tree.root, &clone]),
    )?;
    // Only a linker for the kernel half is taken along, which takes minutes to build.
    let tools = clone.join("target/tools");
    fs::create_dir_all(tools.parent().unwrap_or(&clone)).context("create the target folder")?;
    cmd::run(
        Command::new("cp")
            .arg("-a")
            .args([&tree.target.join("tools"), &tools]),
    )?;
    let again = clone.join("target/dist");
    let done = cmd::run_to_stderr(
        Command::new("cargo")
            .args(["xtask", "dist"])
            .current_dir(&clone)
            .env_remove("CARGO_TARGET_DIR"),
    );
    let compared = done.and_then(|()| compare(dir, &again));
    drop(fs::remove_dir_all(&clone));
    compared
}

fn compare(one: &Path, other: &Path) -> Result<()> {
    let read = |dir: &Path| {
        let path = dir.join(SUMS);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let (first, second) = (read(one)?, read(other)?);
    let differ: Vec<&str> = first
        .lines()
        .filter(|line| !second.lines().any(|same| same == *line))
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    if differ.is_empty() && first.lines().count() == second.lines().count() {
        step("the same bytes twice");
        return Ok(());
    }
    bail!("not the same twice: {}", differ.join(", "))
}

/// When the sources were committed, seconds since the epoch: the only time in what is built.
pub(crate) fn source_date(tree: &Tree) -> Result<String> {
    let text = cmd::output(
        Command::new("git")
            .args(["log", "-1", "--format=%ct"])
            .current_dir(&tree.root),
    )?;
    Ok(text.trim().to_owned())
}
