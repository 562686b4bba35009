//! podman with this runtime: attached, detached, exec, limits, shared namespaces.
//!
//! The guests have no podman; there that is asserted, and nothing else.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{Bundle, config};
use crate::{
    context::{Context, Output, cgroup_file, cgroup_mounts, finish},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[Scenario::new("oci::podman", podman)];

/// podman's own parent of containers and monitors, with cgroupfs.
const PARENT: &str = "libpod_parent";

fn podman(context: &Context) -> Result<()> {
    if !Path::new("/usr/bin/podman").exists() {
        let release = fs::read_to_string("/etc/os-release")?;
        ensure!(release.contains("paddock-guest"), "podman is not installed");
        return Ok(());
    }
    let before: Vec<PathBuf> = parents()?;
    let bundle = Bundle::new(context, &config(&["true"]))?;
    let result = with_podman(context, &bundle);
    for directory in parents()?.into_iter().filter(|one| !before.contains(one)) {
        // conmon's, which podman keeps for the next one.
        let _ = fs::remove_dir(directory.join("conmon"));
        let _ = fs::remove_dir(directory);
    }
    result
}

fn parents() -> Result<Vec<PathBuf>> {
    let mounts = cgroup_mounts()?.into_iter();
    let all = mounts.map(|(_, mount)| mount.join(PARENT));
    Ok(all.filter(|directory| directory.is_dir()).collect())
}

fn with_podman(context: &Context, bundle: &Bundle<'_>) -> Result<()> {
    let runtime = bundle.path.join("paddock-oci");
    symlink(&context.bin, &runtime)?;
    // Whom --cgroups=disabled may be asked of.
    let settings = bundle.path.join("containers.conf");
    fs::write(
        &settings,
        "[engine]\nruntime_supports_nocgroup = [\"paddock-oci\"]\n",
    )?;
    let call = |args: &[&str]| -> Result<Output> {
        finish(
            Command::new("podman")
                .env("CONTAINERS_CONF", &settings)
                .arg("--root")
                .arg(bundle.path.join("store"))
                .arg("--runroot")
                .arg(bundle.path.join("runroot"))
                .arg("--tmpdir")
                .arg(bundle.path.join("libpod"))
                .args(["--storage-driver", "vfs", "--events-backend", "file"])
                .args(["--cgroup-manager", "cgroupfs", "--runtime"])
                .arg(&runtime)
                .args(args)
                .stdin(Stdio::null()),
        )
    };
    let root = bundle.path.join("rootfs").display().to_string();
    let run = |flags: &[&str], command: &[&str]| {
        let own = [
            "run",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1000:1000",
        ];
        call(&[&own, flags, &["--rootfs", &root], command].concat())
    };
    let none = ["--rm", "--network", "none"];
    let output = run(&none, &["sh", "-c", "echo out; exit 7"])?;
    ensure!(
        output.code == Some(7) && output.stdout == "out\n",
        "{output:?}"
    );
    // podman's own profile.
    let show = "while read -r line; do case $line in Seccomp:*) echo $line;; esac; done \
        </proc/self/status";
    let output = run(&none, &["sh", "-c", show])?;
    ensure!(output.stdout == "Seccomp: 2\n", "{output:?}");
    let output = run(&none, &["nope"])?;
    ensure!(output.code == Some(127), "{output:?}");
    without_cgroups(&call, &run)?;
    let flags = ["-d", "--name", "bg", "--network", "none", "--memory", "64m"];
    let output = run(&flags, &["sleep", "100"])?;
    ensure!(output.code == Some(0), "{output:?}");
    let cgroup = format!("{PARENT}/libpod-{}", output.stdout.trim());
    let limit = cgroup_file(&cgroup, "memory.max", ("memory", "memory.limit_in_bytes"));
    let limit = fs::read_to_string(&limit).with_context(|| limit.display().to_string())?;
    ensure!(limit.trim() == (64 << 20).to_string(), "{limit}");
    let output = call(&["exec", "bg", "ps"])?;
    ensure!(
        output.code == Some(0) && output.stdout.contains("sleep 100"),
        "{output:?}"
    );
    // As containers of a pod have it.
    let shared = [
        "--rm",
        "--pid",
        "container:bg",
        "--ipc",
        "container:bg",
        "--network",
        "container:bg",
    ];
    let output = run(&shared, &["ps"])?;
    ensure!(
        output.code == Some(0) && output.stdout.contains("sleep 100"),
        "{output:?}"
    );
    for args in [
        &["pause", "bg"][..],
        &["unpause", "bg"],
        &["kill", "bg"],
        &["rm", "-f", "bg"],
    ] {
        let output = call(args)?;
        ensure!(output.code == Some(0), "{args:?}: {output:?}");
    }
    let output = call(&["ps", "-a", "-q"])?;
    ensure!(output.stdout.is_empty(), "{output:?}");
    Ok(())
}

/// The caller's cgroup is the container's.
fn without_cgroups(
    call: &impl Fn(&[&str]) -> Result<Output>,
    run: &impl Fn(&[&str], &[&str]) -> Result<Output>,
) -> Result<()> {
    let disabled = ["--network", "none", "--cgroups=disabled"];
    let output = run(
        &[&disabled[..], &["--rm"]].concat(),
        &["cat", "/proc/self/cgroup"],
    )?;
    ensure!(
        output.stdout == fs::read_to_string("/proc/self/cgroup")?,
        "{output:?}"
    );
    let output = run(
        &[&disabled[..], &["-d", "--name", "bare"]].concat(),
        &["sleep", "100"],
    )?;
    ensure!(output.code == Some(0), "{output:?}");
    let output = call(&["exec", "bare", "ps"])?;
    ensure!(output.stdout.contains("sleep 100"), "{output:?}");
    for args in [&["stop", "-t", "1", "bare"][..], &["rm", "-f", "bare"]] {
        let output = call(args)?;
        ensure!(output.code == Some(0), "{args:?}: {output:?}");
    }
    Ok(())
}
