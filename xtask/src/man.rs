//! `cargo xtask man [DIR]`: the manual pages, by the test that makes them.

use std::path::PathBuf;

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
    let mut test = build::cargo(tree, "test");
    test.args(["--bin", "paddock", "man::"])
        .env("PADDOCK_MAN_DIR", &dir);
    cmd::run(&mut test)?;
    eprintln!("xtask: manual pages are in {}", dir.display());
    Ok(())
}
