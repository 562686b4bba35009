//! Without Debian's compiler: rustup's nightly with rust-src, which builds core for BPF.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd::{self, step},
    setup::{KernelToolchain, has_program},
};

/// Programs the tests start, each by the name most distributions give its package.
const TEST: [(&str, &str); 7] = [
    ("qemu-system-x86_64", "QEMU for x86"),
    ("busybox", "a static busybox"),
    ("xz", "xz-utils"),
    ("strace", "strace"),
    ("chromium", "Chromium"),
    ("zsh", "zsh"),
    ("fish", "fish"),
];

pub(super) fn install(test: bool) -> Result<KernelToolchain> {
    if !has_program("rustup") {
        bail!(
            "the kernel half needs Debian's rustc-web and libstd-rust-web-dev-bpf, or rustup; install one of them"
        );
    }
    let listed = cmd::output(Command::new("rustup").args([
        "component",
        "list",
        "--installed",
        "--toolchain",
        "nightly",
    ]))
    .unwrap_or_default();
    if !listed.lines().any(|line| line == "rust-src") {
        step("installing rustup's nightly with rust-src");
        cmd::run_to_stderr(Command::new("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src,clippy",
            "--no-self-update",
        ]))
        .context("install by hand: rustup toolchain install nightly --component rust-src,clippy")?;
    }
    for (program, package) in TEST {
        if test && !has_program(program) {
            bail!("{program} is missing: install {package}");
        }
    }
    Ok(KernelToolchain::Nightly)
}

/// The major version of the LLVM in it, which the linker's must not be older than.
pub(super) fn llvm_major() -> Result<u32> {
    let text = cmd::output(Command::new("rustup").args(["run", "nightly", "rustc", "-vV"]))?;
    text.lines()
        .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next())
        .and_then(|major| major.parse().ok())
        .context("rustc -vV names no LLVM version")
}
