//! `cargo xtask run [--once]`: set up, build, play the demo.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Result, bail};

use crate::{
    build,
    setup::{self, Purpose},
    tree::Tree,
};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// End after the last act instead of waiting for Ctrl-C
    #[arg(long)]
    once: bool,
    /// More for the demo
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Becomes the demo, so that signals and the exit code are its own.
pub(crate) fn main(tree: &Tree, args: &Args) -> Result<()> {
    if !setup::is_root() {
        bail!("needs root, since containers do: sudo -E cargo xtask run");
    }
    let toolchain = setup::prepare(tree, Purpose::Run)?;
    build::all(tree, &toolchain)?;
    let demo = tree.binary("paddock-demo");
    let mut command = Command::new(&demo);
    command
        .args(args.once.then_some("--once"))
        .args(&args.rest)
        .env("PADDOCK_BIN", tree.binary("paddock"))
        .env("PADDOCK_WORKLOAD", tree.binary("paddock-workload"));
    let error = command.exec();
    bail!("{}: {error}", demo.display())
}
