//! podman's own containers beside an agent: its names, an OOM kill, set-up, an escape.
//!
//! The guests have no podman; there that is asserted, and nothing else.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::label;
use crate::{
    bundle::busybox,
    context::{Context, Output, cgroup_mounts, eventually, finish},
    runner::Scenario,
    scenarios::kernel::equal,
};

pub const ALL: &[Scenario] = &[Scenario::new("found::podman", podman).alone()];

const ESCAPES: &str = "paddock_container_escapes_total";
const CALLS: &str = "paddock_container_namespace_calls_total";
const OOM: &str = "paddock_container_oom_kills_total";

fn podman(context: &Context) -> Result<()> {
    if !Path::new("/usr/bin/podman").exists() {
        let release = fs::read_to_string("/etc/os-release")?;
        ensure!(release.contains("paddock-guest"), "podman is not installed");
        return Ok(());
    }
    let directory = context.state.with_extension("podman");
    let root = directory.join("rootfs");
    fs::create_dir_all(root.join("bin"))?;
    fs::copy(busybox()?, root.join("bin/busybox"))?;
    for applet in [
        "sh", "sleep", "tail", "nsenter", "unshare", "true", "readlink",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    // Limits that a root without CAP_SYS_RESOURCE can set.
    let settings = directory.join("containers.conf");
    fs::write(
        &settings,
        "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n",
    )?;
    // Where the agent, too, learns where podman's containers are.
    let storage = directory.join("storage.conf");
    let [store, runroot] = ["store", "runroot"].map(|name| directory.join(name));
    fs::write(
        &storage,
        format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            store.display(),
            runroot.display()
        ),
    )?;
    let variable = format!("CONTAINERS_STORAGE_CONF={}", storage.display());
    context.start_agent_by(&["env", &variable], &["--detach-on-exit"])?;
    let podman = Podman {
        directory: &directory,
        settings: &settings,
        storage: &storage,
    };
    let name = format!("web-{}", std::process::id());
    // As new as what is in it: nobody has named it either when conmon and runc start.
    let parent = format!("/{name}");
    let result = sequence(
        context,
        &podman,
        &name,
        &parent,
        &root.display().to_string(),
    );
    let removed = podman.call(&["rm", "-f", "-t", "0", &name]);
    let emptied = eventually("conmon has left, and its cgroup can go", || {
        let mut gone = true;
        for (_, mount) in cgroup_mounts()? {
            // podman keeps it for the next one's.
            let _ = fs::remove_dir(mount.join(&name).join("conmon"));
            let _ = fs::remove_dir(mount.join(&name));
            gone &= !mount.join(&name).exists();
        }
        Ok(gone)
    });
    let _ = fs::remove_dir_all(&directory);
    result.and(emptied).and(removed.map(drop))
}

struct Podman<'a> {
    directory: &'a Path,
    settings: &'a Path,
    storage: &'a Path,
}

impl Podman<'_> {
    fn call(&self, args: &[&str]) -> Result<Output> {
        self.by(&["sh"], args)
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.call(args)?;
        ensure!(output.code == Some(0), "podman {args:?}: {output:?}");
        Ok(output.stdout.trim().to_owned())
    }

    /// By a shell.
    fn by(&self, shell: &[&str], args: &[&str]) -> Result<Output> {
        let mut command = Command::new(shell[0]);
        command
            .args(&shell[1..])
            // The third descriptor is the host's: handed on only where podman is told to.
            .args(["-c", "exec podman \"$@\" 3</proc/self/ns/uts", "podman"])
            // conmon puts a file `oom` where it is started.
            .current_dir(self.directory)
            .env("CONTAINERS_CONF", self.settings)
            .env("CONTAINERS_STORAGE_CONF", self.storage)
            .arg("--tmpdir")
            .arg(self.directory.join("libpod"))
            .args(["--events-backend", "file"])
            .args([
                "--cgroup-manager",
                "cgroupfs",
                "--runtime",
                "/usr/sbin/runc",
            ])
            .args(args)
            .stdin(std::process::Stdio::null());
        finish(&mut command)
    }
}

fn sequence(
    context: &Context,
    podman: &Podman<'_>,
    name: &str,
    parent: &str,
    root: &str,
) -> Result<()> {
    let ok = |args: &[&str]| podman.ok(args);
    let run = [
        "run",
        "-d",
        "--name",
        name,
        "--cgroup-parent",
        parent,
        "--network",
        "none",
        "--memory",
        "64m",
        "--cap-add",
        "SYS_ADMIN",
        "--security-opt",
        "seccomp=unconfined",
        "--rootfs",
        root,
        "sleep",
        "100",
    ];
    // Until the agent looks, no new cgroup has a name, conmon's neither: who sets up is told
    // all the same.
    let agent = Pid::from_raw(context.agent_pid()?);
    kill(agent, Signal::SIGSTOP)?;
    let id = ok(&run);
    kill(agent, Signal::SIGCONT)?;
    let id = id?;
    eventually("it is found by podman's name", || {
        let list = context.json(&["ps", "--format", "json"])?;
        let mut list = list.as_array().context("no list")?.iter();
        Ok(list.any(|one| one["name"] == name && one["id"] == id.as_str()))
    })?;
    // Set-up of the container, and of what is run in it, joins and makes namespaces.
    ok(&["exec", name, "true"])?;
    ok(&["exec", name, "sh", "-c", "readlink /proc/self/ns/uts"])?;
    let metrics = context.metrics()?;
    let of = [("container", name)];
    let told = context.ok(&["events", "--container", name])?;
    equal("escapes in set-up", metrics.sum(ESCAPES, &of), 0).context(told)?;
    let setns = [("container", name), ("syscall", "setns")];
    equal("setns in set-up", metrics.sum(CALLS, &setns), 0)?;
    ensure!(
        label(&metrics, "container", name, "container_id") == Some(id),
        "another id"
    );
    beside(context, podman, &["sh"], name, parent, root)?;
    // As where systemd or a snap gives a runtime mounts of its own.
    let apart = ["unshare", "--mount", "sh"];
    beside(context, podman, &apart, name, parent, root)?;
    // From inside: through a descriptor that leaked.
    ok(&[
        "exec",
        "--preserve-fds",
        "1",
        name,
        "nsenter",
        "--uts=/proc/self/fd/3",
        "true",
    ])?;
    let escape = [
        ("container", name),
        ("kind", "host_namespace"),
        ("outcome", "allowed"),
    ];
    equal("escapes", context.metrics()?.sum(ESCAPES, &escape), 1)?;
    let output = podman.call(&["exec", name, "tail", "/dev/zero"])?;
    ensure!(output.code == Some(137), "{output:?}");
    let kills = [("container", name), ("constraint", "memcg")];
    eventually("the kill is counted", || {
        Ok(context.metrics()?.sum(OOM, &kills) > 0.5)
    })?;
    equal("kills", context.metrics()?.sum(OOM, &kills), 1)
}

/// A container of a pod shares what the first one has: its own to it.
fn beside(
    context: &Context,
    podman: &Podman<'_>,
    shell: &[&str],
    name: &str,
    parent: &str,
    root: &str,
) -> Result<()> {
    let other = format!("{name}-beside-{}", shell.len());
    let network = format!("container:{name}");
    let beside = [
        "run",
        "--rm",
        "--name",
        &other,
        "--cgroup-parent",
        parent,
        "--network",
        &network,
        "--ipc",
        &network,
        "--cap-add",
        "SYS_ADMIN",
        "--security-opt",
        "seccomp=unconfined",
        "--rootfs",
        root,
        "nsenter",
        "--net=/proc/self/ns/net",
        "--ipc=/proc/self/ns/ipc",
        "true",
    ];
    let output = podman.by(shell, &beside)?;
    ensure!(output.code == Some(0), "podman {beside:?}: {output:?}");
    let metrics = context.metrics()?;
    let told = context.ok(&["events", "--container", &other])?;
    let its = [("container", other.as_str()), ("syscall", "setns")];
    equal("its setns", metrics.sum(CALLS, &its), 2).context(told.clone())?;
    let its = [("container", other.as_str())];
    equal("its escapes", metrics.sum(ESCAPES, &its), 0).context(told)
}
