//! Who a workload is: by the kernel's status file, read from outside, and by files' owners.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{
    privilege::{DOCKER_DEFAULT, field, status},
    rootfs::with_root,
};
use crate::{
    context::{Context, Output},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("users::names_are_the_containers", names_are_the_containers),
    Scenario::new("users::numbers_are_strict", numbers_are_strict),
    Scenario::new("users::hostile_account_files", hostile_account_files),
    Scenario::new("users::ambient_capabilities", ambient_capabilities),
    Scenario::new(
        "users::stdio_and_directory_are_theirs",
        stdio_and_directory_are_theirs,
    ),
];

const CAP_NET_ADMIN: u64 = 1 << 12;

/// Uid, Gid and Groups of a container's first process, as the host has them.
pub(super) fn ids(context: &Context, name: &str) -> Result<[String; 3]> {
    let status = status(context, name)?;
    let value = |key: &str| {
        let found = status.iter().find(|(name, _)| name == key);
        let (_, value) = found.with_context(|| format!("no {key}"))?;
        Ok::<_, anyhow::Error>(value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    Ok([value("Uid")?, value("Gid")?, value("Groups")?])
}

/// One line on stderr, exit 125, nothing on stdout.
pub(super) fn refused(output: &Output, words: &[&str]) -> Result<()> {
    let said = output.stderr.trim();
    ensure!(
        output.code == Some(125)
            && output.stdout.is_empty()
            && said.lines().count() == 1
            && words.iter().all(|word| said.contains(word)),
        "expected {words:?}: {output:?}"
    );
    Ok(())
}

fn write_accounts(root: &Path) -> Result<()> {
    fs::create_dir(root.join("etc"))?;
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1234:1235::/srv/app:/bin/sh\n";
    fs::write(root.join("etc/passwd"), passwd)?;
    let group = "root:x:0:\nred:x:2001:app\nblue:x:2002:other,app\ngreen:x:2003:\n";
    fs::write(root.join("etc/group"), group)?;
    Ok(())
}

fn names_are_the_containers(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    with_root(context, |root| {
        write_accounts(root)?;
        let root = root.display().to_string();
        let cases: [(&str, &[&str], [&str; 3]); 5] = [
            (
                "app",
                &[],
                ["1234 1234 1234 1234", "1235 1235 1235 1235", "2001 2002"],
            ),
            (
                "1234",
                &["--group-add", "green", "--group-add", "77"],
                [
                    "1234 1234 1234 1234",
                    "1235 1235 1235 1235",
                    "77 2001 2002 2003",
                ],
            ),
            (
                "app:green",
                &[],
                ["1234 1234 1234 1234", "2003 2003 2003 2003", ""],
            ),
            ("4242", &[], ["4242 4242 4242 4242", "0 0 0 0", ""]),
            ("root:9", &[], ["0 0 0 0", "9 9 9 9", ""]),
        ];
        for (number, (user, more, expected)) in cases.into_iter().enumerate() {
            let name = format!("user{number}");
            let mut args = vec!["run", "-d", "--name", &name, "--user", user];
            args.extend(more);
            args.extend([&root, "/bin/workload", "sleep", "60"]);
            context.ok(&args)?;
            ensure!(
                ids(context, &name)? == expected,
                "{user}: {:?}",
                ids(context, &name)?
            );
        }
        let home = |name: &str| -> Result<String> {
            let pid = context.inspect(name)?["pid"].as_i64().context("no pid")?;
            let environ = fs::read_to_string(format!("/proc/{pid}/environ"))?;
            let found = environ.split('\0').find(|entry| entry.starts_with("HOME="));
            Ok(found.context("no HOME")?.to_owned())
        };
        ensure!(home("user0")? == "HOME=/srv/app", "{}", home("user0")?);
        ensure!(home("user3")? == "HOME=/", "{}", home("user3")?);
        // An exec is the container's user unless it says otherwise.
        for (args, expected) in [
            (&["exec", "user3", "/bin/workload", "ids"][..], "4242 0\n"),
            (
                &["exec", "--user", "app", "user3", "/bin/workload", "ids"],
                "1234 1235 2001 2002\n",
            ),
        ] {
            let text = context.ok(args)?;
            ensure!(text == expected, "{args:?}: {text}");
        }
        // The host has these, the container does not.
        for args in [
            &["run", "--rm", "--user", "daemon", &root, "/bin/workload"][..],
            &["run", "--rm", "--user", "0:daemon", &root, "/bin/workload"],
            &[
                "run",
                "--rm",
                "--group-add",
                "daemon",
                &root,
                "/bin/workload",
            ],
            &["exec", "--user", "daemon", "user3", "/bin/workload"],
        ] {
            refused(
                &context.paddock(args)?,
                &["daemon", "not in the container's /etc/"],
            )?;
        }
        for number in 0..5 {
            context.ok(&["rm", "-f", &format!("user{number}")])?;
        }
        Ok(())
    })
}

/// CVE-2026-30892 and its like: nothing that is no id becomes one, least of all root's.
fn numbers_are_strict(context: &Context) -> Result<()> {
    for user in [
        "",
        "-1",
        "+5",
        " 5",
        "5 ",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        ":0",
        "0:",
        "0:-1",
        "0:4294967295",
        "0:0:0",
        "a b",
        "../etc",
        "x\ny",
    ] {
        let output = context.paddock(&["run", "--rm", "--user", user, "host", "id", "-u"])?;
        refused(&output, &["--user"])?;
    }
    for user in ["1e3", "0x0", "00000000000x"] {
        let output = context.paddock(&["run", "--rm", "--user", user, "host", "id", "-u"])?;
        refused(&output, &[user, "not in the container's /etc/passwd"])?;
    }
    let largest = context.ok(&["run", "--rm", "--user", "4294967294", "host", "id", "-u"])?;
    ensure!(largest == "4294967294\n", "{largest}");
    Ok(())
}

/// The container's files may be anything; the host's are never read in their place.
fn hostile_account_files(context: &Context) -> Result<()> {
    type Make = fn(&Path) -> Result<()>;
    let cases: [(&str, Make, &str); 7] = [
        (
            "daemon",
            |root| Ok(symlink("/etc", root.join("etc"))?),
            "/etc/passwd",
        ),
        (
            "daemon",
            |root| {
                fs::create_dir(root.join("etc"))?;
                Ok(symlink("/etc/passwd", root.join("etc/passwd"))?)
            },
            "/etc/passwd",
        ),
        (
            "daemon",
            |root| {
                fs::create_dir(root.join("etc"))?;
                Ok(symlink(
                    "../../../../../../etc/passwd",
                    root.join("etc/passwd"),
                )?)
            },
            "/etc/passwd",
        ),
        (
            "daemon",
            |root| {
                fs::create_dir(root.join("etc"))?;
                Ok(symlink(
                    "/proc/self/root/etc/passwd",
                    root.join("etc/passwd"),
                )?)
            },
            "/etc/passwd",
        ),
        (
            "app",
            |root| {
                write_accounts(root)?;
                fs::remove_file(root.join("etc/group"))?;
                Ok(mkfifo(&root.join("etc/group"), Mode::S_IRWXU)?)
            },
            "/etc/group",
        ),
        (
            "app",
            |root| {
                write_accounts(root)?;
                Ok(File::create(root.join("etc/group"))?.set_len(1 << 30)?)
            },
            "/etc/group",
        ),
        (
            "app",
            |root| {
                write_accounts(root)?;
                fs::remove_file(root.join("etc/passwd"))?;
                Ok(fs::create_dir(root.join("etc/passwd"))?)
            },
            "/etc/passwd",
        ),
    ];
    for (user, make, file) in cases {
        with_root(context, |root| {
            make(root)?;
            let root = root.display().to_string();
            let args = ["run", "--rm", "--user", user, &root, "/bin/workload", "ids"];
            refused(&context.paddock(&args)?, &[file])
        })?;
    }
    Ok(())
}

fn ambient_capabilities(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let run = |name: &str, more: &[&str]| {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(more);
        args.extend(["host", "sleep", "60"]);
        context.ok(&args)?;
        let status = status(context, name)?;
        ["CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd"]
            .into_iter()
            .map(|set| field(&status, set))
            .collect::<Result<Vec<_>>>()
    };
    let plain = run("plain", &["--user", "1000"])?;
    ensure!(plain == [0, 0, 0, 0, DOCKER_DEFAULT], "{plain:x?}");
    let added = run("added", &["--user", "1000", "--cap-add", "net_admin"])?;
    let all = DOCKER_DEFAULT | CAP_NET_ADMIN;
    ensure!(
        added
            == [
                CAP_NET_ADMIN,
                CAP_NET_ADMIN,
                CAP_NET_ADMIN,
                CAP_NET_ADMIN,
                all
            ],
        "{added:x?}"
    );
    let root = run("root", &["--user", "0", "--cap-add", "net_admin"])?;
    ensure!(root == [all, all, 0, 0, all], "{root:x?}");
    // They are of use, and the user's own: a link can be made without root.
    let script = "ip link set lo down && ip -o link show lo | grep -c UP";
    let text = context.paddock(&["exec", "added", "sh", "-c", script])?;
    ensure!(text.stdout == "0\n", "{text:?}");
    let text = context.paddock(&["exec", "plain", "sh", "-c", script])?;
    ensure!(text.code != Some(0) && text.stdout.is_empty(), "{text:?}");
    Ok(())
}

fn stdio_and_directory_are_theirs(context: &Context) -> Result<()> {
    let script = "echo out >/dev/stdout; echo err >/dev/stderr; stat -c '%u %g' . ..; \
        echo x >file && stat -c '%u %g' file; stat -c %u /dev/null";
    let args = [
        "run",
        "--rm",
        "--user",
        "1234:1235",
        "-w",
        "/made/here",
        "host",
        "sh",
        "-c",
        script,
    ];
    let output = context.paddock(&args)?;
    let expected = "out\n1234 1235\n0 0\n1234 1235\n0\n";
    ensure!(
        output.stdout == expected && output.stderr == "err\n",
        "{output:?}"
    );
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run", "-d", "--name", "held", "--user", "1234", "host", "sleep", "60",
    ])?;
    let script = "echo out >/dev/stdout; echo err >/dev/stderr";
    for user in ["1234", "4321", "0"] {
        let output = context.paddock(&["exec", "--user", user, "held", "sh", "-c", script])?;
        ensure!(
            output.stdout == "out\n" && output.stderr == "err\n",
            "{user}: {output:?}"
        );
    }
    Ok(())
}
