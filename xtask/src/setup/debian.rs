//! Debian's packages, by apt.
//!
//! `rustc-web` with `libstd-rust-web-dev-bpf` has core compiled for BPF, so no nightly is
//! needed. A machine whose mirrors lack them takes the other way.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd::{self, step},
    setup::{KernelToolchain, is_root},
};

/// The kernel half's compiler, and what its linker is built on.
const BUILD: &[&str] = &[
    "rustc-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libxml2-dev",
    "gcc",
    "libc6-dev",
];
/// Lints of the kernel half, guests, witnesses and peers.
const TEST: &[&str] = &[
    "rust-web-clippy",
    "ca-certificates",
    "qemu-system-x86",
    "busybox-static",
    "mmdebstrap",
    "xz-utils",
    "strace",
    "gdb",
    "bubblewrap",
    "stress-ng",
    "zstd",
    "runc",
    "crun",
    "podman",
    "conmon",
    "containernetworking-plugins",
    "iptables",
    "curl",
    "openssl",
    "systemd",
    "chromium",
    "zsh",
    "fish",
];

/// apt is here and knows the compiler for BPF, or has never read any list.
pub(super) fn is_usable() -> bool {
    if cmd::find_program("apt-get").is_none() || cmd::find_program("dpkg-query").is_none() {
        return false;
    }
    if missing(BUILD).is_empty() {
        return true;
    }
    candidate().unwrap_or(false) || (update().is_ok() && candidate().unwrap_or(false))
}

fn candidate() -> Result<bool> {
    let text = cmd::output(Command::new("apt-cache").args(["policy", "libstd-rust-web-dev-bpf"]))?;
    Ok(text
        .lines()
        .any(|line| line.trim().starts_with("Candidate:") && !line.contains("(none)")))
}

pub(super) fn install(test: bool) -> Result<KernelToolchain> {
    let mut wanted = BUILD.to_vec();
    if test {
        wanted.extend(TEST);
    }
    let missing = missing(&wanted);
    if !missing.is_empty() {
        let list = missing.join(" ");
        if !is_root() {
            bail!("packages are missing; as root: apt-get install {list}");
        }
        step(&format!("installing Debian packages: {list}"));
        // A mirror of something else that does not answer is no reason to stop here.
        if let Err(error) = update() {
            step(&format!("some package lists could not be read: {error:#}"));
        }
        let unknown = without_candidate(&missing);
        if !unknown.is_empty() {
            bail!(
                "no mirror of this machine has {}: add one to /etc/apt that does, or install by hand",
                unknown.join(", ")
            );
        }
        let mut command = Command::new("apt-get");
        command
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"])
            .args(["-o", "Dpkg::Use-Pty=0"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive");
        cmd::run_to_stderr(&mut command)
            .with_context(|| format!("install by hand: apt-get install {list}"))?;
    }
    Ok(KernelToolchain::Debian { rustc: rustc()? })
}

/// Once a run.
fn update() -> Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.load(Ordering::Relaxed) {
        return Ok(());
    }
    if !is_root() {
        bail!("reading package lists needs root");
    }
    step("reading Debian's package lists");
    cmd::run_to_stderr(Command::new("apt-get").args(["update", "-qq", "-o", "Acquire::Retries=3"]))
}

/// Those that apt would not know how to install.
fn without_candidate(packages: &[&'static str]) -> Vec<&'static str> {
    let mut command = Command::new("apt-cache");
    command.arg("policy").args(packages).env("LC_ALL", "C");
    let Ok(text) = cmd::output(&mut command) else {
        return Vec::new();
    };
    lacking(&text, packages)
}

/// `apt-cache policy` prints a paragraph for each that it has heard of.
fn lacking(policy: &str, packages: &[&'static str]) -> Vec<&'static str> {
    let mut known = Vec::new();
    let mut name = "";
    for line in policy.lines() {
        if !line.starts_with(' ') {
            name = line.trim_end_matches(':');
        } else if let Some(version) = line.trim().strip_prefix("Candidate: ")
            && version != "(none)"
        {
            known.push(name);
        }
    }
    let is_lacking = |package: &&&str| !known.contains(*package);
    packages.iter().filter(is_lacking).copied().collect()
}

/// Those that dpkg does not know as installed.
fn missing(packages: &[&'static str]) -> Vec<&'static str> {
    let listed = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Abbrev} ${Package}\n"])
        .args(packages)
        .output()
        .map(|done| String::from_utf8_lossy(&done.stdout).into_owned())
        .unwrap_or_default();
    packages
        .iter()
        .filter(|package| {
            !listed
                .lines()
                .any(|line| line.strip_prefix("ii ").map(str::trim) == Some(package))
        })
        .copied()
        .collect()
}

/// Not rustup's, which may come first on PATH.
fn rustc() -> Result<PathBuf> {
    let files = cmd::output(Command::new("dpkg").args(["-L", "rustc-web"]))?;
    files
        .lines()
        .find(|line| line.ends_with("/bin/rustc"))
        .map(PathBuf::from)
        .context("package rustc-web has no bin/rustc")
}

#[cfg(test)]
mod tests {
    use super::lacking;

    #[test]
    fn what_no_mirror_has() {
        let policy = "curl:\n  Installed: (none)\n  Candidate: 7.88.1-10\n  Version table:\n\
                      \x20    7.88.1-10 500\nchromium-shell:\n  Installed: (none)\n  Candidate: (none)\n";
        let wanted = ["curl", "chromium-shell", "unheard-of"];
        assert_eq!(lacking(policy, &wanted), ["chromium-shell", "unheard-of"]);
    }
}
