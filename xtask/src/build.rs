//! `cargo xtask build`: the kernel half, then everything else as static binaries.

use std::process::Command;

use anyhow::Result;

use crate::{cmd, cmd::step, tree::Tree};

/// The static binaries: a guest and a container have no libraries of this machine.
pub(crate) fn binaries(tree: &Tree) -> Result<()> {
    step("building the static binaries");
    cmd::run(cargo(tree, "build").args(["--bins", "-p", "paddock-cli", "-p", "paddock-tests"]))
}

/// cargo with the flags that build, unit tests and lints of the host's half share, so that
/// dependencies are compiled once.
pub(crate) fn cargo(tree: &Tree, subcommand: &str) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(&tree.root)
        .arg(subcommand)
        .args([
            "--locked",
            "--release",
            "--target",
            &tree.triple,
            "--config",
        ])
        .arg(format!(
            "target.{}.rustflags=[\"-Ctarget-feature=+crt-static\"]",
            tree.triple
        ))
        .env("PADDOCK_EBPF_OBJECT", tree.ebpf_object());
    command
}
