//! `cargo xtask lint`: format, clippy on both halves, licences and sources, alert rules.

mod alerts;
mod deny;
mod licence;

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{cargo, kernel_cargo},
    cmd::{self, step},
    setup::KernelToolchain,
    tree::Tree,
};

/// Runs all of them, so that one call tells everything; needs a built kernel half, since
/// `probe` includes it.
pub(crate) fn all(tree: &Tree, toolchain: &KernelToolchain) -> Result<()> {
    let lints: [(&str, &dyn Fn() -> Result<()>); 5] = [
        ("format", &|| format(tree)),
        ("licences, versions, sources", &|| deny::check(tree)),
        ("alert rules", &|| alerts::check(tree)),
        ("clippy on the kernel half", &|| {
            let mut command = kernel_cargo(tree, toolchain, "clippy");
            cmd::run_to_stderr(command.args(["--", "-D", "warnings"]))
        }),
        ("clippy", &|| {
            let mut command = cargo(tree, "clippy");
            cmd::run_to_stderr(command.args(["--all-targets", "--", "-D", "warnings"]))
        }),
    ];
    let mut failed = Vec::new();
    for (name, lint) in lints {
        step(&format!("lint: {name}"));
        if let Err(error) = lint() {
            eprintln!("{error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("lints failed: {}", failed.join("; "))
}

fn format(tree: &Tree) -> Result<()> {
    let mut command = Command::new("cargo");
    command
        .current_dir(&tree.root)
        .args(["fmt", "--all", "--check"]);
    cmd::run_to_stderr(&mut command).context("format by: cargo fmt --all")
}
