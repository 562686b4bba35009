//! `cargo xtask lint`: format, clippy on both halves, licences and sources, alert rules.

mod deny;
mod licence;

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{cargo, kernel_cargo},
    cmd::{self, step},
    setup::{self, KernelToolchain},
    tree::Tree,
};

const RULE_TESTS: &str = "dashboards/prometheus";

/// Runs all of them, so that one call tells everything; needs a built kernel half, since
/// `probe` includes it.
pub(crate) fn all(tree: &Tree, toolchain: &KernelToolchain) -> Result<()> {
    let lints: [(&str, &dyn Fn() -> Result<()>); 5] = [
        ("format", &|| format(tree)),
        ("licences, versions, sources", &|| deny::check(tree)),
        ("alert rules", &|| alert_rules(tree)),
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
