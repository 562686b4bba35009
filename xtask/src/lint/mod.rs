//! `cargo xtask lint`: format, clippy on both halves, licences and sources, alert rules.

mod deny;
mod licence;

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build::{cargo, kernel_cargo},
    cmd::{self, step},
    setup::{self, KernelToolchain},
    tree::Tree,
};

const RULE_TESTS: &str = "dashboards/prometheus";

/// Needs a built kernel half, since `probe` includes it.
pub(crate) fn all(tree: &Tree, toolchain: &KernelToolchain) -> Result<()> {
    step("lint: format");
    cmd::run_to_stderr(
        Command::new("cargo")
            .current_dir(&tree.root)
            .args(["fmt", "--all", "--check"]),
    )
    .context("format by: cargo fmt --all")?;
    step("lint: licences, versions, sources");
    deny::check(tree)?;
    step("lint: clippy on the kernel half");
    cmd::run_to_stderr(kernel_cargo(tree, toolchain, "clippy").args(["--", "-D", "warnings"]))?;
    step("lint: clippy");
    cmd::run_to_stderr(cargo(tree, "clippy").args(["--all-targets", "--", "-D", "warnings"]))?;
    step("lint: alert rules");
    alert_rules(tree)
}

/// promtool runs each `*.test.yml` against the rules beside it.
fn alert_rules(tree: &Tree) -> Result<()> {
    let dir = tree.root.join(RULE_TESTS);
    let entries = std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
    let mut tests: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".test.yml"))
        .collect();
    tests.sort();
    let promtool = find_promtool(tree)?;
    cmd::output(
        Command::new(promtool)
            .current_dir(&dir)
            .args(["test", "rules"])
            .args(&tests),
    )
    .map(drop)
}

fn find_promtool(tree: &Tree) -> Result<std::path::PathBuf> {
    let path = setup::path_with_extracted(tree)?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("promtool"))
        .find(|file: &std::path::PathBuf| Path::is_file(file))
        .context("promtool is missing: cargo xtask setup --for test")
}
