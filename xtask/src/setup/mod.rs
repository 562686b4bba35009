//! `cargo xtask setup`: from a fresh machine with Rust and root to where everything builds.
//!
//! Looks first and does only what is missing, so that a second call takes no time. Debian
//! has what the kernel half needs as packages; elsewhere rustup's nightly compiles it. What
//! cannot be done here ends in one line that says what to install by hand.

mod debian;
mod extracted;
mod linker;
mod nightly;

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

pub(crate) use self::linker::objcopy;
use crate::{cmd, tree::Tree};

/// What the set-up is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// Build and run
    Run,
    /// Also lint, boot guests, check rules
    Test,
    All,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[arg(long = "for", value_enum, default_value = "all")]
    purpose: Purpose,
}

/// What compiles the kernel half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KernelToolchain {
    /// Debian's rustc, which brings a compiled core for BPF.
    Debian { rustc: PathBuf },
    /// rustup's nightly, which compiles core from rust-src.
    Nightly,
}

impl KernelToolchain {
    /// As `rustc -V` says it.
    pub(crate) fn version(&self) -> Result<String> {
        let mut rustc = match self {
            Self::Debian { rustc } => Command::new(rustc),
            Self::Nightly => Command::new("rustc"),
        };
        if *self == Self::Nightly {
            rustc.env("RUSTUP_TOOLCHAIN", "nightly");
        }
        // cargo's own, for the toolchain that runs this program.
        rustc.env_remove("LD_LIBRARY_PATH");
        cmd::output(rustc.arg("-V")).map(|text| text.trim().to_owned())
    }
}

pub(crate) fn main(tree: &Tree, args: &Args) -> Result<()> {
    prepare(tree, args.purpose)?;
    cmd::step("everything is there");
    Ok(())
}

/// Brings in what is missing.
pub(crate) fn prepare(tree: &Tree, purpose: Purpose) -> Result<KernelToolchain> {
    let lock = tree.cache()?.join("setup.lock");
    let lock = fs::File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
    lock.lock().context("lock the set-up")?;
    let test = purpose != Purpose::Run;
    let toolchain = if debian::is_usable() {
        debian::install(test)?
    } else {
        nightly::install(test)?
    };
    linker::install(tree, &toolchain)?;
    if test {
        extracted::fetch(tree)?;
    }
    Ok(toolchain)
}

/// PATH with what was extracted into the cache instead of installed.
pub(crate) fn path_with_extracted(tree: &Tree) -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = extracted::program_dirs(tree)?
        .into_iter()
        .chain(env::split_paths(&path));
    env::join_paths(dirs).context("a path without a colon")
}

/// A program of [`path_with_extracted`]'s directories, or of the system's.
pub(crate) fn find_program(tree: &Tree, name: &str) -> Result<Option<PathBuf>> {
    let mut dirs = extracted::program_dirs(tree)?.into_iter();
    let extracted = dirs.find_map(|dir| Some(dir.join(name)).filter(|file| file.is_file()));
    Ok(extracted.or_else(|| cmd::find_program(name)))
}

/// By the owner of this process' folder in procfs: its effective user.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

/// Whether any of the programs is there.
fn has_program(name: &str) -> bool {
    cmd::find_program(name).is_some() || Path::new("/usr/sbin").join(name).is_file()
}
