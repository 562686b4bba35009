//! `cargo xtask run [--once]` and `demo [--once]`: set up, build, play a demo.

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

pub(crate) fn main(tree: &Tree, args: &Args) -> Result<()> {
    play(tree, args, "run", Purpose::Run, &[])
}

/// With Prometheus and Alertmanager beside it.
pub(crate) fn observed(tree: &Tree, args: &Args) -> Result<()> {
    play(tree, args, "demo", Purpose::Test, &["--observed"])
}

/// Becomes the demo, so that signals and the exit code are its own.
fn play(tree: &Tree, args: &Args, task: &str, purpose: Purpose, more: &[&str]) -> Result<()> {
    if !setup::is_root() {
        bail!("needs root, since containers do: sudo -E cargo xtask {task}");
    }
    let toolchain = setup::prepare(tree, purpose)?;
    build::all(tree, &toolchain)?;
    let demo = tree.binary("paddock-demo");
    let mut command = Command::new(&demo);
    command
        .args(more)
        .args(args.once.then_some("--once"))
        .args(&args.rest)
        .env("PATH", setup::path_with_extracted(tree)?)
        .env("PADDOCK_BIN", tree.binary("paddock"))
        .env("PADDOCK_WORKLOAD", tree.binary("paddock-workload"));
    let error = command.exec();
    bail!("{}: {error}", demo.display())
}
