//! Guests: Debian's kernels in QEMU, with an initramfs of ours.

pub(crate) mod cpio;
mod debian;
pub(crate) mod initramfs;
pub(crate) mod kernel;
pub(crate) mod mirror;
pub(crate) mod modules;
pub(crate) mod qemu;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    build,
    cmd::step,
    setup::{self, Purpose},
    tree::Tree,
    vm::{
        initramfs::Contents,
        qemu::{Ended, Machine},
    },
};

/// `cargo xtask vm`: boot a kernel, run a command or give a shell.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Kernel series, such as 6.1, or newest
    series: String,
    /// Boot with the binaries that are there
    #[arg(long)]
    no_build: bool,
    /// Put a file into the guest; without a second path into /usr/bin
    #[arg(long = "file", value_name = "HOST[:GUEST]")]
    files: Vec<String>,
    /// Put a program of this machine into the guest, with its libraries
    #[arg(long = "tool", value_name = "NAME")]
    tools: Vec<String>,
    /// Seconds
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// MiB of memory
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// One CPU whose clock counts instructions, so that costs repeat exactly
    #[arg(long)]
    deterministic: bool,
    /// What the guest runs, by `sh -c` when it is one word; without it, a shell
    #[arg(last = true)]
    command: Vec<String>,
}

pub(crate) fn main(tree: &Tree, args: &Args) -> Result<i32> {
    if !args.no_build {
        let toolchain = setup::prepare(tree, Purpose::Test)?;
        build::all(tree, &toolchain)?;
    }
    let contents = Contents {
        command: (!args.command.is_empty()).then(|| script(&args.command)),
        files: args.files.iter().map(|file| file_pair(file)).collect(),
        tools: args.tools.clone(),
        debian: None,
    };
    let machine = Machine {
        timeout: Duration::from_secs(args.timeout),
        memory_mib: args.memory,
        deterministic: args.deterministic,
        interactive: args.command.is_empty(),
        quiet: false,
        label: String::new(),
    };
    boot(tree, &args.series, &contents, &machine)?.code()
}

/// Fetches, packs, boots. Each boot has files of its own, so guests run side by side.
pub(crate) fn boot(
    tree: &Tree,
    series: &str,
    contents: &Contents,
    machine: &Machine,
) -> Result<Ended> {
    let kernel = kernel::fetch(tree, series)?;
    let dir = tree.target.join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let name = format!("{}-{}", kernel.release, std::process::id());
    let image = Scratch(dir.join(format!("{name}.cpio")));
    initramfs::write(tree, &kernel, contents, &image.0)?;
    step(&format!("guest: Linux {}", kernel.release));
    let ended = qemu::boot(machine, &kernel, &image.0, &dir.join(format!("{name}.log")))?;
    if ended.code == Some(0) {
        // A log is kept for whoever looks for the cause of a failure.
        drop(fs::remove_file(&ended.log));
    }
    Ok(ended)
}

/// Removed when dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn file_pair(text: &str) -> (PathBuf, String) {
    let (from, to) = text.split_once(':').unwrap_or((text, ""));
    let from = PathBuf::from(from);
    let to = if to.is_empty() {
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        format!("/usr/bin/{name}")
    } else {
        to.to_owned()
    };
    (from, to)
}

/// One word is a script; several are a program with its arguments.
fn script(words: &[String]) -> String {
    if let [one] = words {
        return format!("{one}\n");
    }
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("exec {}\n", words.join(" "))
}

/// One word for a shell, whatever is in it.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_guest_as_they_are() {
        let words = ["echo", "it's", "a  b"].map(str::to_owned);
        assert_eq!(script(&words), "exec 'echo' 'it'\\''s' 'a  b'\n");
        assert_eq!(script(&words[..1]), "echo\n");
    }
}
