//! The root a workload sees: a throwaway over the host's, or a directory; never a way out.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{context::Context, runner::Scenario};

pub const ALL: &[Scenario] = &[
    Scenario::new("rootfs::host_is_a_throwaway", host_is_a_throwaway),
    Scenario::new(
        "rootfs::directory_is_used_as_it_is",
        directory_is_used_as_it_is,
    ),
    Scenario::new("rootfs::dev_proc_sys", dev_proc_sys),
    Scenario::new("rootfs::host_mounts_are_gone", host_mounts_are_gone),
    Scenario::new(
        "rootfs::hostile_symlinks_stay_inside",
        hostile_symlinks_stay_inside,
    ),
    Scenario::new("rootfs::binds", binds),
    Scenario::new("rootfs::missing_is_one_line", missing_is_one_line),
];

fn host_is_a_throwaway(context: &Context) -> Result<()> {
    let name = format!("paddock-throwaway-{}", std::process::id());
    let script = format!(
        "echo inside >/{name} && cat /{name} && rm /etc/passwd && ls /etc/passwd 2>&1 | wc -l"
    );
    let text = context.ok(&["run", "--rm", "host", "sh", "-c", &script])?;
    ensure!(text.starts_with("inside"), "{text}");
    ensure!(
        !Path::new("/").join(&name).exists(),
        "it was written to the host"
    );
    ensure!(
        Path::new("/etc/passwd").exists(),
        "the host's file was removed"
    );
    Ok(())
}

/// A directory with nothing but the static workload as its program.
pub(super) fn small_root(context: &Context) -> Result<PathBuf> {
    let root = context.state.with_extension("root");
    fs::create_dir(&root)?;
    fs::create_dir(root.join("bin"))?;
    fs::copy(&context.workload, root.join("bin/workload"))?;
    fs::set_permissions(root.join("bin/workload"), fs::Permissions::from_mode(0o755))?;
    Ok(root)
}

pub(super) fn with_root(context: &Context, test: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let root = small_root(context)?;
    let result = test(&root);
    fs::remove_dir_all(&root)?;
    result
}

fn directory_is_used_as_it_is(context: &Context) -> Result<()> {
    with_root(context, |root| {
        let path = root.display().to_string();
        let output = context.paddock(&["run", "--rm", &path, "/bin/workload", "exit", "23"])?;
        ensure!(output.code == Some(23), "{output:?}");
        let output = context.paddock(&["run", "--rm", &path, "/bin/nothing"])?;
        ensure!(
            output.code == Some(127) && output.stderr.contains("/bin/nothing"),
            "{output:?}"
        );
        fs::write(root.join("bin/text"), "no program\n")?;
        let output = context.paddock(&["run", "--rm", &path, "/bin/text"])?;
        ensure!(output.code == Some(126), "{output:?}");
        Ok(())
    })
}

fn dev_proc_sys(context: &Context) -> Result<()> {
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no /dev/$d; done; \
        echo x >/dev/null; head -c 3 /dev/zero | wc -c; test -d /dev/pts && test -d /dev/shm || echo no dirs; \
        for l in fd stdin ptmx; do readlink /dev/$l; done; \
        (echo 1 >/proc/sys/kernel/core_pattern) 2>/dev/null && echo core_pattern written; \
        (echo b >/proc/sysrq-trigger) 2>/dev/null && echo sysrq written; \
        (mkdir /sys/fs/cgroup/x) 2>/dev/null && echo cgroup made; \
        (mkdir /sys/x) 2>/dev/null && echo sys written; \
        wc -c </proc/kcore 2>/dev/null; ls /dev | wc -l";
    let text = context.ok(&["run", "--rm", "host", "sh", "-c", script])?;
    ensure!(
        !text.contains("no ") && !text.contains("written") && !text.contains("made"),
        "{text}"
    );
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    ensure!(lines.first() == Some(&"3"), "{text}");
    ensure!(
        lines.contains(&"/proc/self/fd") && lines.contains(&"/proc/self/fd/0"),
        "{text}"
    );
    let devices: u32 = lines.last().context("no count")?.parse()?;
    ensure!(
        devices < 20,
        "/dev has {devices} entries: the host's shows through"
    );
    Ok(())
}

/// Nothing of the host's mount tree is left below the new root.
fn host_mounts_are_gone(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "held", "host", "sleep", "60"])?;
    let pid = context.inspect("held")?["pid"].as_i64().context("no pid")?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    for line in mounts.lines() {
        let point = line.split(' ').nth(4).context("no mount point")?;
        let known = ["/", "/proc", "/sys", "/dev"]
            .iter()
            .any(|top| point == *top || (*top != "/" && point.starts_with(&format!("{top}/"))))
            // Its own, generated.
            || ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].contains(&point)
            // What hides the agent's own files from a workload that sees the host's root.
            || (Path::new(point) == context.state && line.contains(" - tmpfs ") && line.contains(" ro,"));
        ensure!(known, "a mount of the host's: {line}");
    }
    // The root of its mount namespace, seen through procfs, is not the host's.
    let (inside, outside) = (
        fs::metadata(format!("/proc/{pid}/root"))?,
        fs::metadata("/")?,
    );
    ensure!(
        (inside.dev(), inside.ino()) != (outside.dev(), outside.ino()),
        "the host's root"
    );
    Ok(())
}

/// CVE-2026-41579 and its like: /proc, /sys, /dev, /etc as symlinks to outside.
fn hostile_symlinks_stay_inside(context: &Context) -> Result<()> {
    let outside = context.state.with_extension("outside");
    fs::create_dir(&outside)?;
    let result = ["proc", "sys", "dev", "etc"]
        .into_iter()
        .try_for_each(|name| {
            with_root(context, |root| {
                symlink(&outside, root.join(name))?;
                let path = root.display().to_string();
                let output =
                    context.paddock(&["run", "--rm", &path, "/bin/workload", "exit", "0"])?;
                // Refused or resolved inside the root; never a file or a mount outside of it.
                ensure!(
                    output.code == Some(0) || output.code == Some(125),
                    "{name}: {output:?}"
                );
                ensure!(
                    fs::read_dir(&outside)?.next().is_none(),
                    "{name}: written outside"
                );
                Ok(())
            })
        });
    let volume = with_root(context, |root| {
        symlink(&outside, root.join("link"))?;
        let (path, bind) = (root.display().to_string(), "/bin:/link/deep:ro");
        let output = context.paddock(&[
            "run",
            "--rm",
            "-v",
            bind,
            &path,
            "/bin/workload",
            "exit",
            "0",
        ])?;
        ensure!(
            output.code == Some(0) || output.code == Some(125),
            "volume: {output:?}"
        );
        ensure!(
            fs::read_dir(&outside)?.next().is_none(),
            "volume: written outside"
        );
        Ok(())
    });
    fs::remove_dir_all(&outside)?;
    result.and(volume)
}

fn binds(context: &Context) -> Result<()> {
    let shared = context.state.with_extension("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("in"), "from the host\n")?;
    let source = shared.display();
    let script = "cat /data/in; echo out >/data/out; (echo no >/ro/in) 2>/dev/null || echo refused";
    let text = context.ok(&[
        "run",
        "--rm",
        "-v",
        &format!("{source}:/data"),
        "-v",
        &format!("{source}:/ro:ro"),
        "host",
        "sh",
        "-c",
        script,
    ]);
    let written = fs::read_to_string(shared.join("out"));
    fs::remove_dir_all(&shared)?;
    ensure!(text? == "from the host\nrefused\n" && written? == "out\n");
    let output =
        context.paddock(&["run", "--rm", "-v", "/no/such/source:/data", "host", "true"])?;
    ensure!(
        output.code == Some(125) && output.stderr.contains("/no/such/source"),
        "{output:?}"
    );
    Ok(())
}

fn missing_is_one_line(context: &Context) -> Result<()> {
    for image in ["/no/such/root", "/etc/passwd", "NONSENSE"] {
        let output = context.paddock(&["run", "--rm", image, "true"])?;
        let said = output.stderr.trim();
        ensure!(
            output.code == Some(125) && said.lines().count() == 1 && said.contains(image),
            "{image}: {output:?}"
        );
    }
    Ok(())
}
