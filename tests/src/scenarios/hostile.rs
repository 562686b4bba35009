//! Holes that runtimes were known to have, tried by a hostile root file system or workload: the
//! host's files are as before, and what a container was given is what it should be.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::makedev;

use super::{rootfs::with_root, users::refused};
use crate::{
    context::{Context, finish},
    process::Running,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "rootfs::devices_are_not_the_images",
        devices_are_not_the_images,
    ),
    Scenario::new(
        "rootfs::swapped_devices_are_refused",
        swapped_devices_are_refused,
    ),
    Scenario::new(
        "rootfs::working_directory_stays_inside",
        working_directory_stays_inside,
    ),
    Scenario::new("rootfs::targets_stay_inside", targets_stay_inside),
    Scenario::new(
        "rootfs::programs_are_not_overwritten",
        programs_are_not_overwritten,
    ),
    Scenario::new(
        "rootfs::release_agent_is_out_of_reach",
        release_agent_is_out_of_reach,
    ),
    Scenario::new(
        "rootfs::a_false_proc_moves_no_flag",
        a_false_proc_moves_no_flag,
    ),
];

/// CVE-2026-115521: what is to be read-only would be remounted by /proc/self/fd of a /proc that
/// the container brought, whose links lead elsewhere.
fn a_false_proc_moves_no_flag(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    with_root(context, |root| {
        let descriptors = root.join("false/self/fd");
        fs::create_dir_all(&descriptors)?;
        for name in ["data", "free"] {
            fs::create_dir(root.join(name))?;
        }
        for number in 0..64 {
            symlink("/free", descriptors.join(number.to_string()))?;
        }
        let path = root.display().to_string();
        let volume = |from: &str, to: &str| format!("{path}/{from}:{to}");
        let volumes = [
            volume("false", "/proc"),
            volume("data", "/data:ro"),
            volume("free", "/free"),
        ];
        let write = |target: &str| {
            let mut args = vec!["run", "--rm", "--read-only"];
            for volume in &volumes {
                args.extend(["-v", volume]);
            }
            args.extend([path.as_str(), "/bin/workload", "write", target, "text"]);
            context.paddock(&args)
        };
        for target in ["/data/mark", "/mark"] {
            let output = write(target)?;
            ensure!(
                output.code == Some(1) && output.stderr.contains("(os error 30)"),
                "{target}: {output:?}"
            );
        }
        let output = write("/free/mark")?;
        ensure!(output.code == Some(0), "{output:?}");
        ensure!(
            root.join("free/mark").exists() && !root.join("data/mark").exists(),
            "written elsewhere"
        );
        Ok(())
    })
}

/// CVE-2025-31133, CVE-2025-52565, CVE-2026-41579: links in place of what is mounted or masked with.
fn devices_are_not_the_images(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    with_root(context, |root| {
        fs::create_dir(root.join("dev"))?;
        fs::write(root.join("victim"), "untouched")?;
        for name in ["null", "console", "ptmx", "tty", "zero"] {
            symlink("/victim", root.join("dev").join(name))?;
        }
        symlink("/bin", root.join("dev/pts"))?;
        symlink("/bin", root.join("dev/shm"))?;
        let path = root.display().to_string();
        context.ok(&[
            "run",
            "-d",
            "-t",
            "--name",
            "held",
            &path,
            "/bin/workload",
            "sleep",
            "60",
        ])?;
        let pid = context.inspect("held")?["pid"].as_i64().context("no pid")?;
        let inside = |name: &str| fs::symlink_metadata(format!("/proc/{pid}/root{name}"));
        ensure!(inside("/dev/null")?.rdev() == makedev(1, 3), "/dev/null");
        ensure!(inside("/dev/zero")?.rdev() == makedev(1, 5), "/dev/zero");
        ensure!(
            inside("/dev/console")?.rdev() == makedev(136, 0),
            "/dev/console"
        );
        if Path::new("/proc/kcore").exists() {
            ensure!(
                inside("/proc/kcore")?.rdev() == makedev(1, 3),
                "/proc/kcore is not masked"
            );
        }
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
        let points: Vec<_> = table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .collect();
        ensure!(
            !points.contains(&"/victim") && !points.contains(&"/bin"),
            "{table}"
        );
        context.ok(&["rm", "-f", "held"])?;
        ensure!(fs::read_to_string(root.join("victim"))? == "untouched");
        // A whole /dev that is a link is refused.
        fs::remove_dir_all(root.join("dev"))?;
        symlink("/bin", root.join("dev"))?;
        let output = context.paddock(&["run", "--rm", &path, "/bin/workload", "ids"])?;
        refused(&output, &["/dev"])
    })
}

/// The same by a workload, before an exec opens them.
fn swapped_devices_are_refused(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "held",
        "--cap-add",
        "SYS_ADMIN",
        "host",
        "sleep",
        "60",
    ])?;
    let swap = "rm /dev/null && ln -s /etc/passwd /dev/null";
    context.ok(&["exec", "held", "sh", "-c", swap])?;
    refused(&context.paddock(&["exec", "held", "true"])?, &["/dev/null"])?;
    let mut repair = Running::start(&mut context.command(&[
        "exec",
        "-i",
        "held",
        "sh",
        "-c",
        "rm /dev/null; mknod /dev/null p; mount -t tmpfs none /dev/pts && \
            ln -s /etc/passwd /dev/pts/ptmx; cat",
    ]))?;
    drop(repair.stdin()?);
    repair.wait(std::time::Duration::from_secs(20))?;
    refused(&context.paddock(&["exec", "held", "true"])?, &["/dev/null"])?;
    refused(
        &context.paddock(&["exec", "-t", "held", "true"])?,
        &["/dev/pts/ptmx"],
    )
}

/// CVE-2024-21626, CVE-2024-45310.
fn working_directory_stays_inside(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let outside = context.state.with_extension("outside");
    fs::create_dir(&outside)?;
    let result = with_root(context, |root| {
        symlink(&outside, root.join("link"))?;
        symlink("../../../../../../../tmp", root.join("up"))?;
        let path = root.display().to_string();
        for directory in [
            "/link/made",
            "/up/made",
            "/proc/self/root/made",
            "/proc/self/cwd/made",
        ] {
            let args = [
                "run",
                "--rm",
                "-w",
                directory,
                &path,
                "/bin/workload",
                "ids",
            ];
            let output = context.paddock(&args)?;
            ensure!(
                matches!(output.code, Some(0 | 125 | 126)),
                "{directory}: {output:?}"
            );
        }
        ensure!(fs::read_dir(&outside)?.next().is_none(), "made outside");
        ensure!(!Path::new("/tmp/made").exists(), "made in the host's /tmp");
        Ok(())
    });
    fs::remove_dir_all(&outside)?;
    result?;
    context.ok(&["run", "-d", "--name", "held", "host", "sleep", "60"])?;
    // Above a directory inside there is the container's root; above a leaked one the host's.
    let script =
        "test \"$(stat -c %d:%i ../../../../../../..)\" = \"$(stat -c %d:%i /)\" || echo out";
    for number in 3..24 {
        let directory = format!("/proc/self/fd/{number}");
        for args in [
            &["run", "--rm", "-w", &directory, "host", "sh", "-c", script][..],
            &["exec", "-w", &directory, "held", "sh", "-c", script],
        ] {
            let output = context.paddock(args)?;
            ensure!(output.stdout.is_empty(), "{args:?}: {output:?}");
            ensure!(matches!(output.code, Some(0 | 126)), "{args:?}: {output:?}");
        }
    }
    Ok(())
}

/// Volumes whose target leads out by links, a directory's and a file's.
fn targets_stay_inside(context: &Context) -> Result<()> {
    let outside = context.state.with_extension("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("file"), "untouched")?;
    let result = with_root(context, |root| {
        symlink(&outside, root.join("absolute"))?;
        symlink("../../../../../../../../tmp", root.join("relative"))?;
        symlink(outside.join("file"), root.join("file"))?;
        symlink("/proc/self/root", root.join("magic"))?;
        symlink("loop", root.join("loop"))?;
        fs::write(root.join("source"), "of the volume")?;
        let path = root.display().to_string();
        for target in [
            "/absolute",
            "/absolute/deep/er",
            "/relative/paddock-made",
            "/file",
            "/absolute/file",
            "/magic/made",
            "/loop",
        ] {
            for source in ["bin", "source"] {
                let volume = format!("{path}/{source}:{target}");
                let args = ["run", "--rm", "-v", &volume, &path, "/bin/workload", "ids"];
                let output = context.paddock(&args)?;
                ensure!(matches!(output.code, Some(0 | 125)), "{target}: {output:?}");
            }
            let args = [
                "run",
                "--rm",
                "--tmpfs",
                target,
                &path,
                "/bin/workload",
                "ids",
            ];
            let output = context.paddock(&args)?;
            ensure!(matches!(output.code, Some(0 | 125)), "{target}: {output:?}");
        }
        ensure!(fs::read_dir(&outside)?.count() == 1, "made outside");
        ensure!(fs::read_to_string(outside.join("file"))? == "untouched");
        ensure!(
            !Path::new("/tmp/paddock-made").exists(),
            "made in the host's /tmp"
        );
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(
            !table.contains(&outside.display().to_string()),
            "mounted outside"
        );
        Ok(())
    });
    fs::remove_dir_all(&outside)?;
    result
}

/// CVE-2019-5736: an exec's program is the launcher's own for a moment, and here for longer, since
/// the workload makes it execute itself once more.
fn programs_are_not_overwritten(context: &Context) -> Result<()> {
    let binary = fs::read(&context.bin)?;
    context.start_agent(&["--detach-on-exit"])?;
    with_root(context, |root| {
        fs::write(root.join("bin/again"), "#!/proc/self/exe\n")?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(root.join("bin/again"), mode)?;
        let path = root.display().to_string();
        let words = ["/bin/workload", "overwrite-programs", "8"];
        let args = [&["run", "--rm", "--name", "attacker", &path][..], &words].concat();
        let attack = Running::start(&mut context.command(&args))?;
        crate::context::eventually("the attacker runs", || {
            let found = context.paddock(&["inspect", "attacker"])?;
            Ok(found.code == Some(0) && found.stdout.contains("\"running\""))
        })?;
        for _ in 0..10 {
            context.paddock(&["exec", "attacker", "/bin/again", "ps"])?;
            context.paddock(&["exec", "attacker", "/bin/workload", "sleep", "0.1"])?;
        }
        let said = attack
            .wait(std::time::Duration::from_secs(50))?
            .ok()?
            .stdout;
        // It did see programs, and wrote to none.
        ensure!(said == "1 0\n", "{said}");
        Ok(())
    })?;
    ensure!(fs::read(&context.bin)? == binary, "the binary was changed");
    ensure!(context.ok(&["run", "--rm", "host", "echo", "well"])? == "well\n");
    Ok(())
}

/// CVE-2022-0492: the host runs what `release_agent` names. Neither the mounts of the container
/// nor new ones, in a user namespace of its own or of one's own, take a name.
fn release_agent_is_out_of_reach(context: &Context) -> Result<()> {
    let script = "cd /tmp; for c in memory cpu devices pids rdma net_cls freezer; do \
            mkdir -p m/$c; mount -t cgroup -o $c none m/$c 2>/dev/null; done; \
        mount -o remount,rw /sys/fs/cgroup 2>/dev/null; \
        for f in m/*/release_agent /sys/fs/cgroup/*/release_agent; do \
            (echo /tmp/agent >$f) 2>/dev/null && echo \"$f written\"; done; \
        find /sys/fs/cgroup m -name notify_on_release 2>/dev/null | head -1 >/dev/null; echo done";
    for more in [&[][..], &["--cap-add", "SYS_ADMIN"], &["--cap-add", "ALL"]] {
        for prefix in [
            &["sh", "-c", script][..],
            &["unshare", "-Urm", "sh", "-c", script],
        ] {
            let args = [&["run", "--rm"][..], more, &["host"], prefix].concat();
            let output = context.paddock(&args)?;
            ensure!(!output.stdout.contains("written"), "{args:?}: {output:?}");
            let refused = prefix[0] == "unshare" && output.code != Some(0);
            ensure!(refused || output.stdout == "done\n", "{args:?}: {output:?}");
        }
    }
    // The host's own word for it is as before.
    let agents = "cat /sys/fs/cgroup/*/release_agent 2>/dev/null";
    let set = finish(Command::new("sh").args(["-c", agents]))?.stdout;
    ensure!(!set.contains("/tmp/agent"), "{set}");
    Ok(())
}
