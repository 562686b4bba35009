//! `cargo xtask build`: the kernel half, then everything else as static binaries.
//!
//! Both are cargo's, so what has not changed is skipped. The kernel half has a target folder
//! of its own: its compiler and flags are not the workspace's.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    cmd::{self, step},
    setup::{self, KernelToolchain, Purpose},
    tree::Tree,
};

const KERNEL_TARGET: &str = "bpfel-unknown-none";
/// BTF is made of what is for debuggers; one unit, so that the programs are the same
/// wherever they are compiled.
const KERNEL_FLAGS: [&str; 4] = [
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Clink-arg=--disable-expand-memcpy-in-order",
    "-Ccodegen-units=1",
];

pub(crate) fn main(tree: &Tree) -> Result<()> {
    let toolchain = setup::prepare(tree, Purpose::Run)?;
    all(tree, &toolchain)
}

pub(crate) fn all(tree: &Tree, toolchain: &KernelToolchain) -> Result<()> {
    kernel_half(tree, toolchain)?;
    binaries(tree)
}

pub(crate) fn kernel_half(tree: &Tree, toolchain: &KernelToolchain) -> Result<()> {
    step("building the kernel half");
    cmd::run_to_stderr(&mut kernel_cargo(tree, toolchain, "build"))?;
    strip(tree, toolchain)
}

/// Begins with what tests need and the kernel half is no part of: its linker takes two minutes of
/// one processor. What cannot be compiled yet fails, and is told of by whoever compiles it next.
pub(crate) fn beside_kernel_half(tree: &Tree) -> Result<Child> {
    cargo(tree, "build")
        .args(["--tests", "--keep-going", "--quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("run cargo")
}

/// Leaves out what is for debuggers, most of the object: the kernel reads its BTF. Of that, lines
/// are left out, too: they were half of what remained, an agent's start copied them for each
/// program, and the kernel keeps what it is given.
fn strip(tree: &Tree, toolchain: &KernelToolchain) -> Result<()> {
    let (linked, object) = (tree.linked_ebpf_object(), tree.ebpf_object());
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let linked_at = changed(&linked).with_context(|| format!("read {}", linked.display()))?;
    // A new time would compile everything above it anew.
    if changed(&object).is_ok_and(|stripped_at| stripped_at >= linked_at) {
        return Ok(());
    }
    let objcopy = setup::objcopy(toolchain)?;
    let (section, aside) = (
        object.with_extension("btf-ext"),
        object.with_extension("whole"),
    );
    let named = |path: &Path| format!("{BTF_EXT}={}", path.display());
    cmd::run_to_stderr(
        Command::new(&objcopy)
            .args(["--dump-section", &named(&section)])
            .args([&linked, &aside]),
    )?;
    fs::remove_file(&aside).with_context(|| format!("remove {}", aside.display()))?;
    let whole = fs::read(&section).with_context(|| format!("read {}", section.display()))?;
    let less = without_lines(&whole).context("the kernel half's .BTF.ext is not as known")?;
    fs::write(&section, less).with_context(|| format!("write {}", section.display()))?;
    cmd::run_to_stderr(
        Command::new(&objcopy)
            .args(["--strip-debug", "--remove-section", ".rel.BTF.ext"])
            .args(["--update-section", &named(&section)])
            .args([linked, object]),
    )
}

const BTF_EXT: &str = ".BTF.ext";

/// <https://docs.kernel.org/bpf/btf.html#btf-ext-section>: a header, of which three pairs of offset
/// and length, in bytes from its end, say where functions, lines and relocations are.
fn without_lines(section: &[u8]) -> Option<Vec<u8>> {
    const FUNCTIONS: usize = 8;
    const LINES: usize = 16;
    const RELOCATIONS: usize = 24;
    let number = |at: usize| {
        let bytes = section.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let header = number(4)?;
    let mut less = section.get(..header)?.to_vec();
    for pair in [FUNCTIONS, LINES, RELOCATIONS] {
        let offset = u32::try_from(less.len() - header).ok()?;
        // An older linker's header ends before relocations.
        let Some(place) = less.get_mut(pair..pair + 8).filter(|_| pair < header) else {
            continue;
        };
        let from = header + number(pair)?;
        let length = if pair == LINES { 0 } else { number(pair + 4)? };
        place[..4].copy_from_slice(&offset.to_le_bytes());
        place[4..].copy_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
        less.extend_from_slice(section.get(from..from + length)?);
    }
    Some(less)
}

/// The static binaries: a guest and a container have no libraries of this machine. All
/// members at once, since cargo chooses the dependencies' features by what is built together.
pub(crate) fn binaries(tree: &Tree) -> Result<()> {
    step("building the static binaries");
    cmd::run_to_stderr(cargo(tree, "build").arg("--bins"))
}

/// cargo for the kernel half, `subcommand` being build or clippy.
pub(crate) fn kernel_cargo(tree: &Tree, toolchain: &KernelToolchain, subcommand: &str) -> Command {
    let mut command = match toolchain {
        KernelToolchain::Debian { rustc } if subcommand == "clippy" => {
            // Beside that rustc, since clippy reads what that one compiled.
            let mut command = Command::new(rustc.with_file_name("cargo-clippy"));
            command.arg("clippy").env("CARGO", "cargo");
            command
        }
        _ => {
            let mut command = Command::new("cargo");
            command.arg(subcommand);
            command
        }
    };
    match toolchain {
        KernelToolchain::Debian { rustc } => {
            // Stable by name, but the language's unstable parts are needed for BPF.
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        }
        KernelToolchain::Nightly => {
            command
                .args(["-Z", "build-std=core"])
                .env("RUSTUP_TOOLCHAIN", "nightly");
        }
    }
    let mut flags = KERNEL_FLAGS.map(str::to_owned).to_vec();
    flags.extend(tree.remapped());
    command
        .current_dir(&tree.root)
        .args(["--locked", "--release", "-p", "paddock-ebpf"])
        .args(["--target", KERNEL_TARGET, "--target-dir"])
        .arg(tree.target.join("ebpf"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", tree.bpf_linker())
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_INCREMENTAL", "0")
        // cargo's own, for the toolchain that runs this program.
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("RUSTFLAGS");
    command
}

/// cargo with the flags that build and unit tests share, so that dependencies are compiled once.
pub(crate) fn cargo(tree: &Tree, subcommand: &str) -> Command {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(tree.remapped());
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
        .arg(format!("target.{}.rustflags={flags:?}", tree.triple))
        .env("PADDOCK_EBPF_OBJECT", tree.ebpf_object());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_and_the_rest_stays() {
        let numbers = |all: &[u32]| all.iter().flat_map(|one| one.to_le_bytes()).collect();
        let magic = 0x0001_eb9f;
        let section: Vec<u8> = numbers(&[magic, 32, 0, 8, 8, 12, 20, 4, 1, 2, 3, 4, 5, 6]);
        let less: Vec<u8> = numbers(&[magic, 32, 0, 8, 8, 0, 8, 4, 1, 2, 6]);
        assert_eq!(without_lines(&section), Some(less));
        // Of a header without relocations.
        let section: Vec<u8> = numbers(&[magic, 24, 0, 4, 4, 4, 1, 2]);
        let less: Vec<u8> = numbers(&[magic, 24, 0, 4, 4, 0, 1]);
        assert_eq!(without_lines(&section), Some(less));
        assert_eq!(without_lines(&section[..26]), None);
        assert_eq!(without_lines(b"no"), None);
    }
}
