//! `cargo xtask man [DIR]`: the manual pages, by the test that makes them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    build, cmd,
    setup::{self, Purpose},
    tree::Tree,
};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Where they are put; made where it is not there
    dir: Option<PathBuf>,
}

pub(crate) fn main(tree: &Tree, args: &Args) -> Result<()> {
    let dir = args.dir.clone().unwrap_or_else(|| tree.target.join("man"));
    let dir =
        std::path::absolute(&dir).with_context(|| format!("{}: no such path", dir.display()))?;
    let toolchain = setup::prepare(tree, Purpose::Run)?;
    build::kernel_half(tree, &toolchain)?;
    write(tree, &dir)?;
    eprintln!("xtask: manual pages are in {}", dir.display());
    Ok(())
}

/// As of the sources' last change; wants the kernel half built.
pub(crate) fn write(tree: &Tree, dir: &Path) -> Result<()> {
    let mut git = Command::new("git");
    let day = cmd::output(
        git.current_dir(&tree.root)
            .args(["log", "-1", "--format=%cs"]),
    )?;
    let mut test = build::cargo(tree, "test");
    test.args(["--bin", "paddock", "man::"])
        .env("PADDOCK_MAN_DIR", dir)
        .env("PADDOCK_MAN_DATE", day.trim());
    cmd::run_to_stderr(&mut test)
}
