//! User namespaces with other ids outside: by the host's view of processes, files and maps.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    rootfs::with_root,
    users::{ids, refused},
};
use crate::{
    context::{Context, finish},
    kernels::{release, release_numbers},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("users::remap_inside_and_outside", inside_and_outside),
    Scenario::new(
        "users::remap_leaves_files_as_they_are",
        leaves_files_as_they_are,
    ),
    Scenario::new("users::remap_of_the_host_image", of_the_host_image),
    Scenario::new(
        "users::root_inside_is_165536_outside",
        root_inside_is_165536_outside,
    ),
    Scenario::new("users::remap_by_subuid", by_subuid).alone(),
    Scenario::new("users::remap_refuses", refuses),
];

/// File system that a path is on, by the kernel's table of mounts.
pub(super) fn kind_of(path: &Path) -> Result<String> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let of = |line: &str| {
        let (mount, rest) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?.to_owned();
        Some((point, rest.split(' ').next()?.to_owned()))
    };
    let mounts = table.lines().filter_map(of);
    let above = mounts.filter(|(point, _)| path.starts_with(point));
    let found = above.max_by_key(|(point, _)| point.len());
    Ok(found.context("no mount")?.1)
}

/// What `man 2 mount_setattr` says of this kernel.
pub(super) fn can_be_mapped(path: &Path) -> Result<bool> {
    let version = release_numbers()?;
    Ok(match kind_of(path)?.as_str() {
        "ext4" | "xfs" => version >= (5, 19),
        "tmpfs" => version >= (6, 3),
        _ => false,
    })
}

/// What the kernel says where [`can_be_mapped`] is false: no such call, or not of this file system.
pub(super) fn mapping_is_refused() -> Result<&'static str> {
    Ok(if release_numbers()? < (5, 12) {
        "idmapped mounts: Function not implemented"
    } else {
        "idmapped mounts: Invalid argument"
    })
}

/// Runs `test` with a root file system that can be mapped, or sees that paddock says why not.
fn with_mapped_root(context: &Context, test: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    with_root(context, |root| {
        if can_be_mapped(root)? {
            return test(root);
        }
        let path = root.display().to_string();
        let args = [
            "run",
            "--rm",
            "--userns-remap",
            "auto",
            &path,
            "/bin/workload",
            "ids",
        ];
        not_mapped(context, &args, root)
    })
}

/// The exact words, and nothing of it started.
pub(super) fn not_mapped(context: &Context, args: &[&str], path: &Path) -> Result<()> {
    let kernel = format!("Linux {}", release()?);
    let words = [
        &path.display().to_string(),
        kind_of(path)?.as_str(),
        &kernel,
        mapping_is_refused()?,
        "':U'",
    ]
    .map(str::to_owned);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    refused(&context.paddock(args)?, &words)
}

pub(super) fn pid(context: &Context, name: &str) -> Result<i64> {
    context.inspect(name)?["pid"].as_i64().context("no pid")
}

pub(super) fn four(id: u32) -> String {
    format!("{id} {id} {id} {id}")
}

pub(super) fn map_of(pid: i64) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn inside_and_outside(context: &Context) -> Result<()> {
    with_mapped_root(context, |root| {
        context.start_agent(&["--detach-on-exit"])?;
        let root = root.display().to_string();
        let run = |name: &str, more: &[&str]| {
            let mut args = vec!["run", "-d", "--userns-remap", "auto", "--name", name];
            args.extend(more);
            args.extend([&root, "/bin/workload", "sleep", "60"]);
            context.ok(&args)
        };
        run("first", &[])?;
        // 0 inside is 165536 outside.
        let inside = context.ok(&["exec", "first", "/bin/workload", "ids"])?;
        ensure!(inside == "0 0\n", "{inside}");
        let first = pid(context, "first")?;
        let [uid, gid, groups] = ids(context, "first")?;
        ensure!(
            uid == four(165_536) && gid == four(165_536) && groups.is_empty(),
            "{uid}, {gid}, {groups}"
        );
        let mut ps = Command::new("stat");
        let outside = finish(ps.args(["-c", "%u", &format!("/proc/{first}")]))?.stdout;
        ensure!(outside == "165536\n", "{outside}");
        ensure!(map_of(first)? == "0 165536 65536", "{}", map_of(first)?);
        // Its devices are its root's.
        let null = fs::metadata(format!("/proc/{first}/root/dev/null"))?;
        ensure!((null.uid(), null.gid()) == (165_536, 165_536), "{null:?}");
        // The next container has other ids; a user in it is one of them.
        run("second", &["--user", "1000:50", "-t"])?;
        let second = pid(context, "second")?;
        let [uid, gid, _] = ids(context, "second")?;
        ensure!(
            uid == four(231_072 + 1000) && gid == four(231_072 + 50),
            "{uid}, {gid}"
        );
        let terminal = fs::metadata(format!("/proc/{second}/fd/0"))?;
        ensure!(terminal.uid() == 231_072 + 1000, "{terminal:?}");
        // So is an exec's, whose output is its user's to open again.
        for (user, text) in [("1000", "as a user"), ("0", "as root")] {
            let path = "/proc/self/fd/1";
            let args = [
                "exec",
                "--user",
                user,
                "second",
                "/bin/workload",
                "write",
                path,
                text,
            ];
            ensure!(
                context.ok(&args)? == text,
                "{user}: its stdout is not its own"
            );
        }
        let args = [
            "exec",
            "-t",
            "second",
            "/bin/workload",
            "stat",
            "/proc/self/fd/0",
        ];
        let link = context.ok(&args)?;
        ensure!(link.starts_with("1000 50 "), "{link}");
        // What is removed is free again.
        context.ok(&["rm", "-f", "first"])?;
        run("third", &[])?;
        let third = pid(context, "third")?;
        ensure!(map_of(third)? == "0 165536 65536", "{}", map_of(third)?);
        for name in ["second", "third"] {
            context.ok(&["rm", "-f", name])?;
        }
        Ok(())
    })
}

fn leaves_files_as_they_are(context: &Context) -> Result<()> {
    with_mapped_root(context, |root| {
        let owner = |path: &str| -> Result<(u32, u32)> {
            let found = fs::metadata(root.join(path))?;
            Ok((found.uid(), found.gid()))
        };
        fs::create_dir(root.join("pub"))?;
        fs::set_permissions(root.join("pub"), fs::Permissions::from_mode(0o777))?;
        fs::create_dir(root.join("data"))?;
        let path = root.display().to_string();
        let run = |more: &[&str], words: &[&str]| {
            let mut args = vec!["run", "--rm", "--userns-remap", "auto"];
            args.extend(more);
            args.extend([&path, "/bin/workload"]);
            args.extend(words);
            context.ok(&args)
        };
        // 0 inside is 0 on disk.
        let program = run(&[], &["stat", "/bin/workload"])?;
        ensure!(program.starts_with("0 0 "), "{program}");
        run(&[], &["write", "/made", "x"])?;
        ensure!(owner("made")? == (0, 0), "{:?}", owner("made")?);
        run(&["--user", "1000:50"], &["write", "/pub/made", "x"])?;
        ensure!(owner("pub/made")? == (1000, 50), "{:?}", owner("pub/made")?);
        run(&["--user", "1000:50", "-w", "/new/home"], &["ids"])?;
        ensure!(owner("new/home")? == (1000, 50), "{:?}", owner("new/home")?);
        ensure!(owner("new")? == (0, 0), "{:?}", owner("new")?);
        // A volume likewise, unless it is given away.
        let volume = format!("{path}/data:/vol");
        run(&["-v", &volume], &["write", "/vol/made", "x"])?;
        ensure!(owner("data/made")? == (0, 0), "{:?}", owner("data/made")?);
        let volume = format!("{path}/data:/vol:U");
        let seen = run(&["-v", &volume, "--user", "7:8"], &["stat", "/vol/made"])?;
        ensure!(seen.starts_with("7 8 "), "{seen}");
        let given = (165_536 + 7, 165_536 + 8);
        ensure!(owner("data/made")? == given, "{:?}", owner("data/made")?);
        // Nobody's inside is not written to: a file of an id that is not mapped.
        fs::write(root.join("foreign"), "x")?;
        chown(root.join("foreign"), Some(70_000), Some(70_000))?;
        let seen = run(&[], &["stat", "/foreign"])?;
        ensure!(seen.starts_with("65534 65534 "), "{seen}");
        Ok(())
    })
}

fn of_the_host_image(context: &Context) -> Result<()> {
    let args = ["run", "--rm", "--userns-remap", "auto", "host", "sh", "-c"];
    let script = "id -u; stat -c %u / /etc/passwd; echo x >/etc/paddock-made && \
        stat -c '%u %g' /etc/paddock-made; cat /proc/self/uid_map";
    let args = [&args[..], &[script]].concat();
    if !can_be_mapped(Path::new("/"))? {
        return not_mapped(context, &args, Path::new("/"));
    }
    let text = context.ok(&args)?;
    let words: Vec<_> = text.split_whitespace().collect();
    ensure!(
        words == ["0", "0", "0", "0", "0", "0", "165536", "65536"],
        "{text}"
    );
    ensure!(
        !Path::new("/etc/paddock-made").exists(),
        "it was written to the host"
    );
    Ok(())
}

/// `id` inside and `ps` outside, as a reader of an article on containers types them.
fn root_inside_is_165536_outside(context: &Context) -> Result<()> {
    let args = [
        "run",
        "-d",
        "--name",
        "article",
        "--userns-remap",
        "165536:65536",
    ];
    let args = [&args[..], &["host", "sleep", "60"]].concat();
    if !can_be_mapped(Path::new("/"))? {
        return not_mapped(context, &args, Path::new("/"));
    }
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&args)?;
    let pid = pid(context, "article")?.to_string();
    let inside = context.ok(&["exec", "article", "id", "-u"])?;
    ensure!(inside.trim() == "0", "{inside}");
    let outside = Command::new("ps")
        .args(["-o", "uid=", "-p", &pid])
        .output()?;
    let outside = String::from_utf8(outside.stdout)?;
    ensure!(outside.trim() == "165536", "{outside}");
    let own = fs::read_link("/proc/self/ns/user")?;
    ensure!(fs::read_link(format!("/proc/{pid}/ns/user"))? != own);
    context.ok(&["rm", "-f", "article"]).map(drop)
}

/// USER's own ids, several ranges one after the other, by name and by number.
fn by_subuid(context: &Context) -> Result<()> {
    with_mapped_root(context, |root| {
        let etc = context.state.with_extension("etc");
        fs::create_dir(&etc)?;
        let write = |name: &str, text: &str| fs::write(etc.join(name), text);
        write(
            "passwd",
            "root:x:0:0::/:/bin/sh\ntester:x:4711:4711::/:/bin/sh\n",
        )?;
        write(
            "subuid",
            "tester:700000:1000\nother:1:5\n4711:800000:64536\n",
        )?;
        write("subgid", "tester:900000:65536\n")?;
        // In a mount namespace of its own, so that the machine's file is never touched.
        let script = "mount --bind \"$1\" /etc && shift && exec \"$@\"";
        let run = |user: &str, words: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", script, "sh"]).arg(&etc);
            command
                .arg(&context.bin)
                .arg("--state-dir")
                .arg(&context.state);
            command.args(["run", "--rm", "--userns-remap", user]);
            command.arg(root).arg("/bin/workload").args(words);
            finish(&mut command)
        };
        let uids = run("tester", &["cat", "/proc/self/uid_map"])?;
        let words: Vec<_> = uids.stdout.split_whitespace().collect();
        let gids = run("tester", &["cat", "/proc/self/gid_map"])?;
        let group: Vec<_> = gids.stdout.split_whitespace().collect();
        let nobody = run("nobody", &["ids"])?;
        fs::remove_dir_all(&etc)?;
        ensure!(
            words == ["0", "700000", "1000", "1000", "800000", "64536"],
            "{uids:?}"
        );
        ensure!(group == ["0", "900000", "65536"], "{gids:?}");
        refused(&nobody, &["nobody", "/etc/subuid", "UID:SIZE"])
    })
}

fn refuses(context: &Context) -> Result<()> {
    for wanted in [
        "",
        "0",
        "0:65536",
        "-1:5",
        "+1:5",
        "1:0",
        "1:-1",
        " 1:1",
        "4294967295",
        "4294967290:6",
        "18446744073709551616:1",
        "1e3:1",
        "1:1:1",
        "a b",
        "../subuid",
    ] {
        let args = ["run", "--rm", "--userns-remap", wanted, "host", "true"];
        refused(&context.paddock(&args)?, &["--userns-remap"])?;
    }
    let args = [
        "run",
        "--rm",
        "--userns-remap",
        "auto",
        "--userns",
        "host",
        "host",
        "true",
    ];
    refused(&context.paddock(&args)?, &["--userns private"])?;
    with_mapped_root(context, |root| {
        let root = root.display().to_string();
        let run = |user: &str| {
            let args = [
                "run",
                "--rm",
                "--userns-remap",
                "500000:10",
                "--user",
                user,
                &root,
                "/bin/workload",
                "ids",
            ];
            context.paddock(&args)
        };
        ensure!(run("9")?.stdout == "9 0\n", "{:?}", run("9")?);
        // An id that the namespace does not have.
        refused(&run("10")?, &["uid 10"])
    })
}
