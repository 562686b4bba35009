//! podman with this runtime: attached, detached, with a terminal, exec, limits, stats, namespaces
//! that are shared, pods.
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
    remove_parents(&before)?;
    result
}

/// Those that were not there before.
fn remove_parents(before: &[PathBuf]) -> Result<()> {
    for directory in parents()?.into_iter().filter(|one| !before.contains(one)) {
        // conmon's, which podman keeps for the next one, and a pod's, which it forgets in the
        // hierarchies without a controller.
        for child in fs::read_dir(&directory)?.flatten() {
            let _ = fs::remove_dir(child.path());
        }
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

fn parents() -> Result<Vec<PathBuf>> {
    let mounts = cgroup_mounts()?.into_iter();
    let all = mounts.map(|(_, mount)| mount.join(PARENT));
    Ok(all.filter(|directory| directory.is_dir()).collect())
}

fn with_podman(context: &Context, bundle: &Bundle<'_>) -> Result<()> {
    let runtime = bundle.path.join("paddock-oci");
    symlink(&context.bin, &runtime)?;
    // Whom --cgroups=disabled may be asked of; and limits that a root without CAP_SYS_RESOURCE
    // can set.
    let settings = bundle.path.join("containers.conf");
    fs::write(
        &settings,
        "[engine]\nruntime_supports_nocgroup = [\"paddock-oci\"]\n\
         [containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n",
    )?;
    let call = |args: &[&str]| -> Result<Output> {
        finish(
            Command::new("podman")
                // conmon puts a file `oom` where it is started.
                .current_dir(&bundle.path)
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
        call(&[&["run"], flags, &["--rootfs", &root], command].concat())
    };
    let result = sequence(bundle, &call, &run);
    if result.is_err() {
        // Whatever stands, its mounts are not to stay.
        for args in [&["pod", "rm", "-f", "-a"][..], &["rm", "-f", "-a"]] {
            let _ = call(args);
        }
    }
    result
}

fn sequence(
    bundle: &Bundle<'_>,
    call: &impl Fn(&[&str]) -> Result<Output>,
    run: &impl Fn(&[&str], &[&str]) -> Result<Output>,
) -> Result<()> {
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
    without_cgroups(call, run)?;
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
    let output = call(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.MemLimit}} {{.PIDs}}",
        "bg",
    ])?;
    ensure!(output.stdout == format!("{} 1\n", 64 << 20), "{output:?}");
    let output = run(
        &[&none[..], &["-t"]].concat(),
        &["sh", "-c", "test -t 0 && test -t 1 && echo terminal"],
    )?;
    ensure!(output.stdout == "terminal\r\n", "{output:?}");
    pod(bundle, call, run)?;
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

/// What a pod's containers share is its first one's, and the rest their own.
fn pod(
    bundle: &Bundle<'_>,
    call: &impl Fn(&[&str]) -> Result<Output>,
    run: &impl Fn(&[&str], &[&str]) -> Result<Output>,
) -> Result<()> {
    let image = bundle.path.join("infra.tar");
    let packed = Command::new("tar")
        .arg("-C")
        .arg(bundle.path.join("rootfs"))
        .arg("-cf")
        .arg(&image)
        .arg(".")
        .status()?;
    ensure!(packed.success(), "tar: {packed}");
    for args in [
        &["import", &image.display().to_string(), "infra"][..],
        &[
            "pod",
            "create",
            "--name",
            "pod",
            "--network",
            "none",
            "--infra-image",
            "localhost/infra",
            "--infra-command",
            "/bin/sleep 100",
        ],
        &["pod", "start", "pod"],
    ] {
        let output = call(args)?;
        ensure!(output.code == Some(0), "{args:?}: {output:?}");
    }
    let format = "{{.InfraContainerID}}";
    let infra = call(&["pod", "inspect", "--format", format, "pod"])?.stdout;
    let pid = call(&["inspect", "--format", "{{.State.Pid}}", infra.trim()])?.stdout;
    let links = "for name in ipc net uts pid mnt; do readlink /proc/self/ns/$name; done";
    let output = run(&["--rm", "--pod", "pod"], &["sh", "-c", links])?;
    let inside: Vec<&str> = output.stdout.lines().collect();
    ensure!(inside.len() == 5, "{output:?}");
    for (name, inside) in ["ipc", "net", "uts", "pid", "mnt"].iter().zip(inside) {
        let path = format!("/proc/{}/ns/{name}", pid.trim());
        let firsts = fs::read_link(&path).with_context(|| path.clone())?;
        let shared = !matches!(*name, "pid" | "mnt");
        ensure!(
            (firsts == Path::new(inside)) == shared,
            "{name}: {inside}, the first one's {}",
            firsts.display()
        );
    }
    let output = call(&["pod", "rm", "-f", "-t", "1", "pod"])?;
    ensure!(output.code == Some(0), "{output:?}");
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
