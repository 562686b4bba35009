//! bpf-linker, built from source into the target folder: it must match the compiler's LLVM.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    cmd::{self, step},
    setup::{KernelToolchain, nightly},
    tree::Tree,
};

const VERSION: &str = "0.13.0";
/// Debian's rustc-web is built on this one.
const DEBIAN_LLVM: u32 = 22;

pub(super) fn install(tree: &Tree, toolchain: &KernelToolchain) -> Result<()> {
    let llvm = version(toolchain)?;
    let tools = tree.target.join("tools");
    // The version says nothing of the LLVM it was linked to.
    let stamp = tools.join("bpf-linker.stamp");
    let wanted = format!("{VERSION} on LLVM {llvm}");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && works(&tree.bpf_linker()) {
        return Ok(());
    }
    let config = llvm_config(llvm)?;
    let prefix = cmd::output(Command::new(&config).arg("--prefix"))?;
    let libraries = cmd::output(Command::new(&config).arg("--libdir"))?;
    step("building bpf-linker (half a minute)");
    let mut command = Command::new("cargo");
    command
        .args(["install", "--quiet", "--locked", "--force", "bpf-linker"])
        .args(["--version", VERSION, "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}")])
        .arg("--root")
        .arg(&tools)
        .arg("--target-dir")
        .arg(tools.join("build"))
        .env("LLVM_PREFIX", prefix.trim())
        .env("RUSTFLAGS", format!("-L native={}", libraries.trim()))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    cmd::run_to_stderr(&mut command).with_context(|| {
        format!("install by hand: cargo install bpf-linker --version {VERSION} --root {} (needs LLVM {llvm}'s development files)", tools.display())
    })?;
    // Hundreds of megabytes that nothing needs again.
    drop(fs::remove_dir_all(tools.join("build")));
    fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))
}

/// Of the same LLVM.
pub(crate) fn objcopy(toolchain: &KernelToolchain) -> Result<PathBuf> {
    let config = llvm_config(version(toolchain)?)?;
    let programs = cmd::output(Command::new(&config).arg("--bindir"))?;
    let objcopy = Path::new(programs.trim()).join("llvm-objcopy");
    ensure!(
        objcopy.is_file(),
        "{} is missing: install the programs of LLVM beside its development files",
        objcopy.display()
    );
    Ok(objcopy)
}

fn version(toolchain: &KernelToolchain) -> Result<u32> {
    match toolchain {
        KernelToolchain::Debian { .. } => Ok(DEBIAN_LLVM),
        KernelToolchain::Nightly => nightly::llvm_major(),
    }
}

fn works(linker: &Path) -> bool {
    cmd::output(Command::new(linker).arg("--version")).is_ok()
}

fn llvm_config(llvm: u32) -> Result<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin/llvm-config"));
    if debian.is_file() {
        return Ok(debian);
    }
    cmd::find_program(&format!("llvm-config-{llvm}"))
        .or_else(|| cmd::find_program("llvm-config"))
        .with_context(|| format!("LLVM {llvm}'s development files are missing: install llvm-{llvm}-dev or what your distribution calls it"))
}
