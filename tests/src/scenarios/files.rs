//! What a container finds in its file system: by the kernel's table of mounts, by the host's disk.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{rootfs::with_root, users::refused};
use crate::{
    context::{Context, eventually, finish},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "files::tmpfs_in_a_read_only_root",
        tmpfs_in_a_read_only_root,
    ),
    Scenario::new("files::volume_options", volume_options),
    Scenario::new("files::propagation", propagation),
    Scenario::new("files::names_in_etc", names_in_etc),
    Scenario::new("files::kernel_parameters", kernel_parameters),
    Scenario::new(
        "files::shm_environment_and_oom_score",
        shm_environment_and_oom_score,
    ),
    Scenario::new("files::volumes_given_away", volumes_given_away),
];

/// Options, file system and its own options of what is mounted at `point` in a container.
fn mounted(context: &Context, name: &str, point: &str) -> Result<String> {
    let pid = context.inspect(name)?["pid"].as_i64().context("no pid")?;
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let found = table
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(point));
    let line = found.with_context(|| format!("nothing is mounted at {point}"))?;
    let (mount, filesystem) = line.split_once(" - ").context("no file system")?;
    let options: Vec<_> = mount.split(' ').skip(5).collect();
    Ok(format!("{} - {filesystem}", options.join(" ")))
}

fn has(line: &str, words: &[&str]) -> bool {
    let all: Vec<_> = line.split([' ', ',']).collect();
    words.iter().all(|word| match word.strip_prefix('!') {
        Some(word) => !all.contains(&word),
        None => all.contains(word),
    })
}

fn tmpfs_in_a_read_only_root(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "held",
        // The caller's working directory may be below /tmp.
        "-w",
        "/",
        "--read-only",
        "--tmpfs",
        "/scratch:size=64k,mode=0700",
        "--tmpfs",
        "/scratch/deep:exec,uid=7",
        "--mount",
        "type=tmpfs,dst=/tmp,tmpfs-size=1m,ro",
        "host",
        "sleep",
        "60",
    ])?;
    let scratch = mounted(context, "held", "/scratch")?;
    ensure!(
        has(
            &scratch,
            &[
                "rw", "nosuid", "nodev", "noexec", "tmpfs", "size=64k", "mode=700"
            ]
        ),
        "{scratch}"
    );
    let deep = mounted(context, "held", "/scratch/deep")?;
    ensure!(
        has(&deep, &["nosuid", "nodev", "!noexec", "tmpfs", "uid=7"]),
        "{deep}"
    );
    let tmp = mounted(context, "held", "/tmp")?;
    ensure!(has(&tmp, &["ro", "size=1024k"]), "{tmp}");
    let script = "for f in /x /etc/hosts /tmp/x; do (echo >>$f) 2>/dev/null && echo $f; done; \
        head -c 65536 /dev/zero >/scratch/a && echo filled; \
        dd if=/dev/zero of=/scratch/b bs=4096 count=1 2>/dev/null || echo full; \
        stat -c %a /scratch";
    let text = context.ok(&["exec", "held", "sh", "-c", script])?;
    ensure!(text == "filled\nfull\n700\n", "{text}");
    for (flag, value) in [
        ("--tmpfs", "scratch"),
        ("--tmpfs", "/x:size=lots"),
        ("--tmpfs", "/x:huge=always"),
        ("--mount", "type=volume,dst=/x"),
        ("--mount", "type=bind,src=/nowhere-at-all,dst=/x"),
    ] {
        let output = context.paddock(&["run", "--rm", flag, value, "host", "true"])?;
        refused(&output, &[flag])?;
    }
    let twice = [
        "run", "--rm", "--tmpfs", "/x", "--tmpfs", "/x/", "host", "true",
    ];
    refused(&context.paddock(&twice)?, &["/x: mounted on twice"])
}

fn volume_options(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    with_root(context, |root| {
        let source = root.display();
        let at = |target: &str, options: &str| format!("{source}:/v/{target}:{options}");
        let mount = format!("type=bind,src={source},dst=/v/mount,readonly");
        context.ok(&[
            "run",
            "-d",
            "--name",
            "held",
            "-v",
            &at("plain", "rw"),
            "-v",
            &at("ro", "ro"),
            "-v",
            &at("closed", "nosuid,nodev,noexec,ro"),
            "--mount",
            &mount,
            "host",
            "sleep",
            "60",
        ])?;
        for (target, words) in [
            // What the source's own mount forbids stays forbidden.
            ("plain", &["rw", "!noexec"][..]),
            ("ro", &["ro"]),
            ("closed", &["ro", "nosuid", "nodev", "noexec"]),
            ("mount", &["ro", "!noexec"]),
        ] {
            let line = mounted(context, "held", &format!("/v/{target}"))?;
            let (options, _) = line.split_once(" - ").context("no file system")?;
            ensure!(has(options, words), "{target}: {line}");
            ensure!(
                !line.contains("shared:") && !line.contains("master:"),
                "{line}"
            );
        }
        context.ok(&["rm", "-f", "held"])?;
        // No labels where nothing labels; elsewhere paddock would say so.
        let selinux = Path::new("/sys/fs/selinux/enforce").exists();
        let args = ["run", "--rm", "-v", &at("z", "z"), "host", "true"].map(str::to_owned);
        let output = context.paddock(&args)?;
        ensure!((output.code == Some(125)) == selinux, "{output:?}");
        Ok(())
    })
}

fn propagation(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let source = context.state.with_extension("mount");
    let path = source.display().to_string();
    fs::create_dir(&source)?;
    let mount = |words: &[&str]| finish(Command::new("mount").args(words));
    let result = (|| {
        ensure!(
            mount(&["-t", "tmpfs", "none", &path])?.code == Some(0),
            "mount"
        );
        ensure!(
            mount(&["--make-private", &path])?.code == Some(0),
            "make private"
        );
        let volume = format!("{path}:/v:rslave");
        let output = context.paddock(&["run", "--rm", "-v", &volume, "host", "true"])?;
        refused(&output, &[&path, "not on a shared mount"])?;
        ensure!(
            mount(&["--make-shared", &path])?.code == Some(0),
            "make shared"
        );
        for (name, mode) in [
            ("private", "private"),
            ("slave", "rslave"),
            ("shared", "shared"),
        ] {
            fs::create_dir_all(source.join(name))?;
            context.ok(&[
                "run",
                "-d",
                "--name",
                name,
                "--cap-add",
                "SYS_ADMIN",
                "-v",
                &format!("{path}:/v:{mode}"),
                "host",
                "sleep",
                "60",
            ])?;
        }
        fs::create_dir(source.join("new"))?;
        let new = format!("{path}/new");
        ensure!(
            mount(&["-t", "tmpfs", "none", &new])?.code == Some(0),
            "mount"
        );
        ensure!(mounted(context, "private", "/v/new").is_err(), "private");
        for name in ["slave", "shared"] {
            eventually(name, || Ok(mounted(context, name, "/v/new").is_ok()))?;
        }
        // And the other way only where it was asked for.
        for name in ["private", "slave", "shared"] {
            let target = format!("/v/{name}");
            context.ok(&["exec", name, "mount", "-t", "tmpfs", "none", &target])?;
            let table = fs::read_to_string("/proc/self/mountinfo")?;
            let seen = table.contains(&format!(" {path}/{name} "));
            ensure!(seen == (name == "shared"), "{name}: {table}");
        }
        Ok(())
    })();
    for name in ["private", "slave", "shared"] {
        context.paddock(&["rm", "-f", name])?;
    }
    for below in ["/shared", "/new", ""] {
        finish(Command::new("umount").arg(format!("{path}{below}")))?;
    }
    fs::remove_dir_all(&source)?;
    result
}

fn names_in_etc(context: &Context) -> Result<()> {
    let text = context.ok(&[
        "run",
        "--rm",
        "--hostname",
        "web",
        "--domainname",
        "example.org",
        "--add-host",
        "db:10.0.0.7",
        "--dns",
        "9.9.9.9",
        "--dns-search",
        "a.example",
        "--dns-option",
        "ndots:3",
        "host",
        "sh",
        "-c",
        "cat /etc/hosts; cat /proc/sys/kernel/domainname; \
            test ! -e /etc/resolv.conf || cat /etc/resolv.conf; \
            for f in hosts hostname; do (echo >>/etc/$f) 2>/dev/null && echo $f written; done; true",
    ])?;
    let lines: Vec<_> = text.lines().collect();
    if Path::new("/etc/hosts").exists() {
        ensure!(
            lines.contains(&"127.0.0.1\tlocalhost")
                && lines.contains(&"127.0.1.1\tweb.example.org web")
                && lines.contains(&"10.0.0.7\tdb"),
            "{text}"
        );
        ensure!(!text.contains("hosts written"), "{text}");
    }
    ensure!(lines.contains(&"example.org"), "{text}");
    if Path::new("/etc/resolv.conf").exists() {
        for line in ["nameserver 9.9.9.9", "search a.example", "options ndots:3"] {
            ensure!(lines.contains(&line), "{line}: {text}");
        }
    }
    // In a directory of the user's what is there is covered, and nothing is made.
    with_root(context, |root| {
        let path = root.display().to_string();
        let words = ["/bin/workload", "cat", "/etc/hosts"];
        let args = [&["run", "--rm", &path][..], &words].concat();
        ensure!(
            context.paddock(&args)?.code != Some(0),
            "a file from nowhere"
        );
        ensure!(!root.join("etc").exists(), "made in the user's directory");
        fs::create_dir(root.join("etc"))?;
        fs::write(root.join("etc/hosts"), "the user's\n")?;
        ensure!(context.ok(&args)?.contains("localhost"), "not covered");
        let on_disk = fs::read_to_string(root.join("etc/hosts"))?;
        ensure!(on_disk == "the user's\n", "{on_disk}");
        ensure!(fs::read_dir(root.join("etc"))?.count() == 1, "made in etc");
        // A volume of one's own counts more.
        fs::write(root.join("own"), "my own\n")?;
        let volume = format!("{path}/own:/etc/hosts");
        let args = [&["run", "--rm", "-v", &volume, &path][..], &words].concat();
        ensure!(context.ok(&args)? == "my own\n", "not the volume");
        // Where a link leads out, nothing is mounted outside.
        fs::remove_file(root.join("etc/hosts"))?;
        std::os::unix::fs::symlink(root.join("own"), root.join("etc/hosts"))?;
        let args = [&["run", "--rm", &path][..], &words].concat();
        ensure!(
            context.paddock(&args)?.code != Some(0),
            "followed out of the root"
        );
        Ok(())
    })?;
    for (flag, value, word) in [
        ("--add-host", "db", "--add-host"),
        ("--add-host", "db:nowhere", "--add-host"),
        ("--add-host", "a b:10.0.0.7", "--add-host"),
        ("--dns", "9.9.9", "--dns"),
        ("--domainname", "a b", "expected a name"),
    ] {
        let output = context.paddock(&["run", "--rm", flag, value, "host", "true"])?;
        refused(&output, &[word])?;
    }
    Ok(())
}

fn kernel_parameters(context: &Context) -> Result<()> {
    let before = fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl")?;
    let text = context.ok(&[
        "run",
        "--rm",
        "--sysctl",
        "net.ipv4.ip_default_ttl=77",
        "--sysctl",
        "net/ipv4/ip_forward=1",
        "host",
        "sh",
        "-c",
        "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/net/ipv4/ip_forward",
    ])?;
    ensure!(text == "77\n1\n", "{text}");
    ensure!(fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl")? == before);
    for name in ["kernel.shmmni", "fs.mqueue.queues_max"] {
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        let parameter = format!("{name}=99");
        let args = ["run", "--rm", "--sysctl", &parameter, "host", "cat", &file];
        ensure!(context.ok(&args)? == "99\n", "{name}");
    }
    for name in [
        "kernel.core_pattern",
        "vm.swappiness",
        "net",
        "net/../kernel/core_pattern",
        "kernel.hostname",
    ] {
        let parameter = format!("{name}=1");
        let args = ["run", "--rm", "--sysctl", &parameter, "host", "true"];
        refused(&context.paddock(&args)?, &["--sysctl", name])?;
    }
    for (mode, parameter) in [
        ("--network=host", "net.core.somaxconn=1"),
        ("--ipc=host", "kernel.shmmni=1"),
    ] {
        let args = ["run", "--rm", mode, "--sysctl", parameter, "host", "true"];
        refused(&context.paddock(&args)?, &["--sysctl", "private"])?;
    }
    // CVE-2025-52881: what is in the way of /proc/sys is not written to.
    with_root(context, |root| {
        fs::create_dir_all(root.join("fake/net/core"))?;
        fs::write(root.join("fake/net/core/somaxconn"), "untouched")?;
        let path = root.display().to_string();
        let volume = format!("{path}/fake:/proc/sys");
        let parameter = "net.core.somaxconn=1";
        let args = [
            "run",
            "--rm",
            "-v",
            &volume,
            "--sysctl",
            parameter,
            &path,
            "/bin/workload",
            "ids",
        ];
        refused(&context.paddock(&args)?, &["sysctl net.core.somaxconn"])?;
        let left = fs::read_to_string(root.join("fake/net/core/somaxconn"))?;
        ensure!(left == "untouched", "{left}");
        Ok(())
    })
}

fn shm_environment_and_oom_score(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let file = context.state.with_extension("env");
    fs::write(
        &file,
        "# comment\nA=from the file\nB=2\n\nPADDOCK_STATE_DIR\n",
    )?;
    let path = file.display().to_string();
    let result = context.ok(&[
        "run",
        "-d",
        "--name",
        "held",
        "--shm-size",
        "1m",
        "--env-file",
        &path,
        "-e",
        "B=3",
        "--oom-score-adj",
        "300",
        "host",
        "sleep",
        "60",
    ]);
    fs::write(&file, "A B=1\n")?;
    let wrong = context.paddock(&["run", "--rm", "--env-file", &path, "host", "true"]);
    fs::remove_file(&file)?;
    result?;
    refused(&wrong?, &["--env-file", "line 1"])?;
    let shm = mounted(context, "held", "/dev/shm")?;
    ensure!(
        has(&shm, &["tmpfs", "size=1024k", "nosuid", "nodev", "noexec"]),
        "{shm}"
    );
    let pid = context.inspect("held")?["pid"].as_i64().context("no pid")?;
    let environ = fs::read_to_string(format!("/proc/{pid}/environ"))?;
    let all: Vec<_> = environ.split('\0').collect();
    ensure!(
        all.contains(&"A=from the file") && all.contains(&"B=3") && !all.contains(&"B=2"),
        "{all:?}"
    );
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
    ensure!(score == "300\n", "{score}");
    for (flag, value) in [
        ("--oom-score-adj", "1001"),
        ("--oom-score-adj", "-1001"),
        ("--shm-size", "0"),
        ("--shm-size", "-1"),
    ] {
        refused(
            &context.paddock(&["run", "--rm", flag, value, "host", "true"])?,
            &[flag],
        )?;
    }
    Ok(())
}

/// Podman's `U`: on disk, without following links or going into what is mounted below.
fn volumes_given_away(context: &Context) -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, symlink};
    with_root(context, |root| {
        let data = root.join("data");
        fs::create_dir_all(data.join("deep"))?;
        fs::write(data.join("deep/file"), "x")?;
        fs::write(root.join("outside"), "x")?;
        symlink(root.join("outside"), data.join("link"))?;
        symlink(root, data.join("up"))?;
        let path = root.display().to_string();
        let volume = format!("{path}/data:/v:U");
        let args = [
            "run",
            "--rm",
            "-v",
            &volume,
            "--user",
            "7:8",
            &path,
            "/bin/workload",
            "write",
            "/v/deep/file",
            "written",
        ];
        context.ok(&args)?;
        let owner = |path: &Path| -> Result<(u32, u32)> {
            let found = fs::symlink_metadata(path)?;
            Ok((found.uid(), found.gid()))
        };
        for given in [
            "data",
            "data/deep",
            "data/deep/file",
            "data/link",
            "data/up",
        ] {
            ensure!(owner(&root.join(given))? == (7, 8), "{given}");
        }
        for kept in ["outside", "bin", "bin/workload"] {
            ensure!(owner(&root.join(kept))? == (0, 0), "{kept}");
        }
        Ok(())
    })
}
