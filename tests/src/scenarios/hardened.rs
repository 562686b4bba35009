//! `--profile hardened`: each part by the host's view of the process, and by an attempt from inside.
//!
//! Where the kernel can't map the file system's ids, the refusal is what is seen: a part of the
//! profile that can't be had is a container that does not run.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::{
    images::remap::not_mapped as image_not_mapped,
    privilege::{field, status},
    remap::{can_be_mapped, four, map_of, not_mapped, pid},
    rootfs::with_root,
    users::{ids, refused},
};
use crate::{
    context::{Context, cgroup_file},
    raw::{self, Call, call},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("hardened::parts_seen_from_outside", seen_from_outside),
    Scenario::new("hardened::attempts_from_inside", attempts_from_inside),
    Scenario::new("hardened::of_the_host_image", of_the_host_image),
    Scenario::new("hardened::flags_replace_values", flags_replace_values),
    Scenario::new("hardened::refuses_to_be_weakened", refuses_to_be_weakened),
    Scenario::new("hardened::of_an_image", of_an_image).alone(),
];

const KILL: u64 = 1 << 5;
const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;
const NET_BIND_SERVICE: u64 = 1 << 10;
const CHOWN: u64 = 1;

const EPERM: u8 = 1;
const EIO: u8 = 5;
const EBADF: u8 = 9;
const ENOSYS: u8 = 38;

const NEWUSER: u64 = 0x1000_0000;
const NOWHERE: u64 = 0x3fff_ffff;
const X32: u32 = 0x4000_0000;
const HIGH: u64 = 0xffff_ffff << 32;

/// Of a C library's `int` made a register by its sign, the upper half is ones.
const TIOCSTI: u64 = 0x5412;

const CALLS: [(Call, u8); 20] = [
    (call("getpid", 39, [0; 4]), 0),
    (call("unshare(USER)", 272, [NEWUSER, 0, 0, 0]), EPERM),
    (call("clone(USER)", 56, [NEWUSER + 17, 0, 0, 0]), EPERM),
    (call("clone3", 435, [0; 4]), ENOSYS),
    (call("setns", 308, [NOWHERE, 0, 0, 0]), EPERM),
    (call("mount", 165, [0; 4]), EPERM),
    (call("chroot", 161, [0; 4]), EPERM),
    (call("keyctl", 250, [0xffff, 0, 0, 0]), EPERM),
    (call("ptrace", 101, [16, NOWHERE, 0, 0]), EPERM),
    (call("process_vm_readv", 310, [NOWHERE, 0, 0, 0]), EPERM),
    (call("vmsplice", 278, [NOWHERE, 0, 0, 0]), EPERM),
    (call("personality(LINUX32)", 135, [8, 0, 0, 0]), EPERM),
    (call("personality(ask)", 135, [0xffff_ffff, 0, 0, 0]), 0),
    (call("socket(INET)", 41, [2, 2, 0, 0]), 0),
    (call("socket(NETLINK, ROUTE)", 41, [16, 3, 0, 0]), 0),
    (
        call("socket(NETLINK, NETFILTER)", 41, [16, 3, 12, 0]),
        EPERM,
    ),
    (call("socket(PACKET)", 41, [17, 3, 0, 0]), EPERM),
    (
        call("ioctl(TIOCSTI)", 16, [NOWHERE, TIOCSTI + HIGH, 0, 0]),
        EIO,
    ),
    (call("ioctl(TCGETS)", 16, [NOWHERE, 0x5401, 0, 0]), EBADF),
    (call("newer than the list", 600, [0; 4]), ENOSYS),
];

/// With a root that can be mapped, or sees that without one nothing runs.
fn with_hardened_root(context: &Context, test: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    with_root(context, |root| {
        if can_be_mapped(root)? {
            return test(root);
        }
        let path = root.display().to_string();
        let program = ["/bin/workload", "ids"];
        let args = ["run", "--rm", "--profile", "hardened", &path];
        not_mapped(context, &[&args[..], &program].concat(), root)
    })
}

/// Runs the workload's `sleep` in the background.
fn start(context: &Context, name: &str, root: &Path, flags: &[&str]) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let root = root.display().to_string();
    let run = ["run", "-d", "--profile", "hardened", "--name", name];
    let program = [root.as_str(), "/bin/workload", "sleep", "60"];
    context.ok(&[&run[..], flags, &program].concat()).map(drop)
}

/// Options of the mount and of its file system.
fn mounted(pid: i64, target: &str) -> Result<(String, String)> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let found = table.lines().rev().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let last = fields.last()?;
        (fields.get(4) == Some(&target)).then(|| (fields[5].to_owned(), (*last).to_owned()))
    });
    found.with_context(|| format!("nothing is mounted on {target}: {table}"))
}

fn pids_max(context: &Context, name: &str) -> Result<String> {
    let inspect = context.inspect(name)?;
    let cgroup = inspect["cgroup"].as_str().context("no cgroup")?;
    let file = cgroup_file(cgroup, "pids.max", ("pids", "pids.max"));
    Ok(fs::read_to_string(file)?.trim().to_owned())
}

fn seen_from_outside(context: &Context) -> Result<()> {
    with_hardened_root(context, |root| {
        start(context, "hard", root, &[])?;
        let all = status(context, "hard")?;
        let few = KILL | SETGID | SETUID | NET_BIND_SERVICE;
        for (set, want) in [
            ("CapPrm", few),
            ("CapEff", few),
            ("CapBnd", few),
            ("CapInh", 0),
            ("CapAmb", 0),
            ("NoNewPrivs", 1),
            ("Seccomp", 2),
        ] {
            let got = field(&all, set)?;
            ensure!(got == want, "{set} is {got:x}");
        }
        let pid = pid(context, "hard")?;
        ensure!(map_of(pid)? == "0 165536 65536", "{}", map_of(pid)?);
        let (options, _) = mounted(pid, "/")?;
        ensure!(options.split(',').any(|one| one == "ro"), "/: {options}");
        for target in ["/tmp", "/run"] {
            let (options, own) = mounted(pid, target)?;
            for word in ["rw", "nosuid", "nodev", "noexec"] {
                ensure!(
                    options.split(',').any(|one| one == word),
                    "{target}: {options}"
                );
            }
            ensure!(own.contains("size=65536k"), "{target}: {own}");
        }
        ensure!(
            pids_max(context, "hard")? == "512",
            "{}",
            pids_max(context, "hard")?
        );
        // An exec's process is no less bound.
        let inside = ["exec", "hard", "/bin/workload", "cat", "/proc/self/status"];
        let inside = context.ok(&inside)?;
        for line in ["CapEff:\t00000000000004e0", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            ensure!(inside.contains(line), "{line}: {inside}");
        }
        let request = &context.inspect("hard")?["request"];
        for (key, want) in [
            ("profile", "hardened".into()),
            ("userns_remap", "auto".into()),
            ("seccomp", "hardened".into()),
            ("read_only", true.into()),
            ("no_new_privileges", true.into()),
        ] {
            let want: serde_json::Value = want;
            ensure!(request[key] == want, "{key}: {}", request[key]);
        }
        ensure!(
            request["tmpfs"][1]["target"] == "/run",
            "{}",
            request["tmpfs"]
        );
        Ok(())
    })
}

fn attempts_from_inside(context: &Context) -> Result<()> {
    with_hardened_root(context, |root| {
        let calls = CALLS.map(|(call, _)| call);
        raw::write(&root.join("bin"), "calls", &calls)?;
        raw::write(
            &root.join("bin"),
            "x32",
            &[call("getpid", X32 + 39, [0; 4])],
        )?;
        start(context, "hard", root, &[])?;
        let got = context.ok(&["exec", "hard", "/bin/calls"])?.into_bytes();
        ensure!(got.len() == calls.len(), "{got:?}");
        for ((call, want), got) in CALLS.iter().zip(got) {
            ensure!(got == *want, "{}: errno {got} for {want}", call.what);
        }
        // 128 + SIGSYS.
        let foreign = context.paddock(&["exec", "hard", "/bin/x32"])?;
        ensure!(foreign.code == Some(159), "{foreign:?}");
        let write = |path: &str| {
            let args = ["exec", "hard", "/bin/workload", "write", path, "x"];
            context.paddock(&args)
        };
        let root_file = write("/made")?;
        ensure!(
            root_file.code == Some(1) && root_file.stderr.contains("(os error 30)"),
            "{root_file:?}"
        );
        ensure!(!root.join("made").exists(), "it was written");
        for path in ["/tmp/made", "/run/made"] {
            let made = write(path)?;
            ensure!(made.code == Some(0), "{made:?}");
        }
        Ok(())
    })
}

fn of_the_host_image(context: &Context) -> Result<()> {
    let script = "cat /proc/self/uid_map; echo x 2>&1 >/etc/made | grep -c Read-only; echo x >/tmp/made && cat /tmp/made";
    let args = [
        "run",
        "--rm",
        "--profile",
        "hardened",
        "host",
        "sh",
        "-c",
        script,
    ];
    if !can_be_mapped(Path::new("/"))? {
        return not_mapped(context, &args, Path::new("/"));
    }
    let text = context.ok(&args)?;
    let words: Vec<_> = text.split_whitespace().collect();
    ensure!(words == ["0", "165536", "65536", "1", "x"], "{text}");
    Ok(())
}

fn flags_replace_values(context: &Context) -> Result<()> {
    with_hardened_root(context, |root| {
        let flags = [
            "--pids-limit",
            "7",
            "--cap-add",
            "chown",
            "--cap-drop",
            "KILL",
            "--tmpfs",
            "/tmp:size=1m",
            "--user",
            "1000:50",
            "--userns-remap",
            "500000:2000",
        ];
        start(context, "own", root, &flags)?;
        let all = status(context, "own")?;
        let bounding = SETGID | SETUID | NET_BIND_SERVICE | CHOWN;
        // Who is not root has what was asked for by name, none of the profile's.
        for (set, want) in [("CapBnd", bounding), ("CapEff", CHOWN), ("CapAmb", CHOWN)] {
            let got = field(&all, set)?;
            ensure!(got == want, "{set} is {got:x}");
        }
        let [uid, gid, _] = ids(context, "own")?;
        ensure!(uid == four(501_000) && gid == four(500_050), "{uid}, {gid}");
        let pid = pid(context, "own")?;
        ensure!(map_of(pid)? == "0 500000 2000", "{}", map_of(pid)?);
        let (_, own) = mounted(pid, "/tmp")?;
        ensure!(own.contains("size=1024k"), "/tmp: {own}");
        let (_, own) = mounted(pid, "/run")?;
        ensure!(own.contains("size=65536k"), "/run: {own}");
        ensure!(
            pids_max(context, "own")? == "7",
            "{}",
            pids_max(context, "own")?
        );
        Ok(())
    })
}

fn refuses_to_be_weakened(context: &Context) -> Result<()> {
    for (flags, says) in [
        (&["--privileged"][..], "--privileged"),
        (&["--cap-add", "all"], "--cap-add ALL"),
        (&["--userns", "host"], "--userns host"),
        (&["--pid", "host"], "--pid"),
        (&["--network", "container:other"], "--network"),
        (
            &["--security-opt", "seccomp=unconfined"],
            "seccomp=unconfined",
        ),
        (
            &["--security-opt", "no-new-privileges=false"],
            "no-new-privileges",
        ),
        (&["--pids-limit", "-1"], "--pids-limit"),
    ] {
        let run = ["run", "--rm", "--profile", "hardened"];
        let args = [&run[..], flags, &["host", "true"]].concat();
        refused(&context.paddock(&args)?, &["--profile hardened", says])?;
    }
    // A name that is none, and the name of what happens without.
    let unknown = context.paddock(&["run", "--rm", "--profile", "hard", "host", "true"])?;
    ensure!(
        unknown.code == Some(125) && unknown.stderr.contains("default or hardened"),
        "{unknown:?}"
    );
    context.ok(&[
        "run",
        "--rm",
        "--profile",
        "default",
        "--pid",
        "host",
        "host",
        "true",
    ])?;
    Ok(())
}

/// The image's layers are shared and shown as the container's own; nothing of them is written.
fn of_an_image(context: &Context) -> Result<()> {
    with_root(context, |root| {
        context.start_agent(&["--detach-on-exit"])?;
        let path = root.display().to_string();
        let image = "hardened-test:1";
        context.ok(&["images", "import", &path, image])?;
        if !can_be_mapped(&context.data)? {
            return image_not_mapped(context, &["--profile", "hardened"], image);
        }
        let run = ["run", "-d", "--profile", "hardened", "--name", "hard"];
        context.ok(&[&run[..], &[image, "/bin/workload", "sleep", "60"]].concat())?;
        let all = status(context, "hard")?;
        for (set, want) in [
            ("CapEff", KILL | SETGID | SETUID | NET_BIND_SERVICE),
            ("NoNewPrivs", 1),
            ("Seccomp", 2),
        ] {
            let got = field(&all, set)?;
            ensure!(got == want, "{set} is {got:x}");
        }
        let [uid, _, _] = ids(context, "hard")?;
        ensure!(uid == four(165_536), "{uid}");
        let pid = pid(context, "hard")?;
        ensure!(map_of(pid)? == "0 165536 65536", "{}", map_of(pid)?);
        let (options, own) = mounted(pid, "/")?;
        ensure!(
            options.split(',').any(|one| one == "ro") && own.contains("lowerdir="),
            "/: {options}, {own}"
        );
        let inside =
            |args: &[&str]| context.paddock(&[&["exec", "hard", "/bin/workload"], args].concat());
        let program = inside(&["stat", "/bin/workload"])?.stdout;
        ensure!(program.starts_with("0 0 100755 "), "{program}");
        let written = inside(&["write", "/made", "x"])?;
        ensure!(
            written.code == Some(1) && written.stderr.contains("(os error 30)"),
            "{written:?}"
        );
        ensure!(inside(&["write", "/tmp/made", "x"])?.code == Some(0));
        context.ok(&["rm", "-f", "hard"])?;
        context.ok(&["images", "rm", image]).map(drop)
    })
}
