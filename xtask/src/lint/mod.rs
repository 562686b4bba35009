//! `cargo xtask lint`: format, clippy on both halves, licences and sources, alert rules,
//! dashboards.

mod alerts;
mod dashboards;
mod deny;
mod grafana;
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
    named(tree, toolchain, "")
}

/// Those whose name contains `filter`.
pub(crate) fn named(tree: &Tree, toolchain: &KernelToolchain, filter: &str) -> Result<()> {
    let lints: [(&str, &dyn Fn() -> Result<()>); 6] = [
        ("format", &|| format(tree)),
        ("licences, versions, sources", &|| deny::check(tree)),
        ("alert rules", &|| alerts::check(tree)),
        ("dashboards", &|| dashboards::check(tree)),
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
    let chosen = lints.iter().filter(|(name, _)| name.contains(filter));
    anyhow::ensure!(
        chosen.clone().next().is_some(),
        "no lint is called {filter}: {}",
        lints.map(|(name, _)| name).join(", ")
    );
    for (name, lint) in chosen {
        step(&format!("lint: {name}"));
        if let Err(error) = lint() {
            eprintln!("{error:#}");
            failed.push(*name);
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
