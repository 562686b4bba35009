//! Which devices a container may use: errnos of real opens, and on v1 the kernel's own list.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::{
    context::{Context, Output, cgroup_file, pure_v2},
    runner::Scenario,
    scenarios::kernel::served,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("privilege::devices_default", default_list),
    Scenario::new("privilege::devices_by_rule_and_flag", by_rule_and_flag),
    Scenario::new("privilege::devices_refused", refused),
    Scenario::new("privilege::privileged", privileged),
];

/// /dev/kmsg: in every kernel, in no container.
const KMSG: &str = "1 11";

/// A shell in a container that could open kmsg but for the device rules: the host's user
/// namespace and CAP_SYSLOG, which the kernel wants for reading it.
fn shell(context: &Context, flags: &[&str], script: &str) -> Result<Output> {
    let mut args = vec!["run", "--rm", "--userns", "host", "--cap-add", "SYSLOG"];
    args.extend(flags);
    args.extend(["host", "sh", "-c", script]);
    context.paddock(&args)
}

fn ok(output: &Output, want: &str) -> Result<()> {
    ensure!(
        output.code == Some(0) && output.stdout == want,
        "{output:?}"
    );
    Ok(())
}

/// A failed redirection ends the shell with its errno in words.
fn is_eperm(output: &Output) -> Result<()> {
    ensure!(
        output.code != Some(0) && output.stderr.contains("Operation not permitted"),
        "{output:?}"
    );
    Ok(())
}

fn default_list(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let make = format!("mknod /dev/k c {KMSG}");
    ok(
        &shell(context, &[], &format!("{make} && echo made"))?,
        "made\n",
    )?;
    is_eperm(&shell(context, &[], &format!("{make}; exec 3</dev/k"))?)?;
    is_eperm(&shell(context, &[], &format!("{make}; exec 3>/dev/k"))?)?;
    is_eperm(&shell(context, &[], "mknod /dev/b b 7 0; exec 3</dev/b")?)?;
    let zero = "mknod /dev/z c 1 5; head -c 7 /dev/z | wc -c; echo x >/dev/null";
    let output = shell(context, &[], zero)?;
    ensure!(
        output.code == Some(0) && output.stdout.trim() == "7",
        "{output:?}"
    );
    // An exec lives under the same rules.
    context.ok(&[
        "run",
        "-d",
        "--name",
        "held",
        "--userns",
        "host",
        "--cap-add",
        "SYSLOG",
        "host",
        "sleep",
        "60",
    ])?;
    let script = format!("{make}; exec 3</dev/k");
    is_eperm(&context.paddock(&["exec", "held", "sh", "-c", &script])?)?;
    let cgroup = context.inspect("held")?["cgroup"]
        .as_str()
        .context("no cgroup")?
        .to_owned();
    if !pure_v2() {
        let path = cgroup_file(&cgroup, "", ("devices", "devices.list"));
        let list = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut lines: Vec<_> = list.lines().collect();
        lines.sort_unstable();
        let docker = [
            "b *:* m",
            "c *:* m",
            "c 136:* rwm",
            "c 1:3 rwm",
            "c 1:5 rwm",
            "c 1:7 rwm",
            "c 1:8 rwm",
            "c 1:9 rwm",
            "c 5:0 rwm",
            "c 5:1 rwm",
            "c 5:2 rwm",
        ];
        ensure!(lines == docker, "{lines:?}");
    }
    Ok(())
}

fn by_rule_and_flag(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let make = format!("mknod /dev/k c {KMSG}");
    let open = format!("{make}; exec 3</dev/k; echo open");
    let write = format!("{make}; exec 3>/dev/k");
    let rule = ["--device-cgroup-rule", "c 1:11 r"];
    ok(&shell(context, &rule, &open)?, "open\n")?;
    is_eperm(&shell(context, &rule, &write)?)?;
    let any = ["--device-cgroup-rule", "c 1:* rw"];
    ok(&shell(context, &any, &open)?, "open\n")?;
    let other = ["--device-cgroup-rule", "c 1:12 rwm"];
    is_eperm(&shell(context, &other, &open)?)?;
    // A node that this host has, under another name, to read only.
    let node = context.state.with_extension("node");
    mknod(
        &node,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o640),
        makedev(1, 11),
    )?;
    let device = format!("{}:/dev/deep/log:r", node.display());
    let script = "stat -c '%F %t:%T %a' /dev/deep/log; exec 3</dev/deep/log; echo open";
    let read = shell(context, &["--device", &device], script);
    let write = shell(context, &["--device", &device], "exec 3>/dev/deep/log");
    fs::remove_file(&node)?;
    ok(&read?, "character special file 1:b 640\nopen\n")?;
    is_eperm(&write?)
}

fn refused(context: &Context) -> Result<()> {
    for (flags, says) in [
        (["--device", "/etc/passwd:/dev/x"], "not a device"),
        (["--device", "/nowhere-at-all:/dev/x"], "No such file"),
        (["--device", "/dev/null:/etc/x"], "/dev"),
        (["--device", "/dev/null:/dev/../etc/x"], "below /dev"),
        (["--device", "/dev/null:/dev/x:rx"], "rwm"),
        (["--device-cgroup-rule", "c 1:3"], "rwm"),
    ] {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend(["host", "true"]);
        let output = context.paddock(&args)?;
        ensure!(
            output.code == Some(125) && output.stderr.contains(says),
            "{flags:?}: {output:?}"
        );
    }
    Ok(())
}

/// All that the agent has itself, and by another witness: the container's own status file.
fn privileged(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "mighty",
        "--privileged",
        "host",
        "sleep",
        "60",
    ])?;
    let pid = context.inspect("mighty")?["pid"]
        .as_i64()
        .context("no pid")?;
    let field = |pid: &str, name: &str| -> Result<String> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        Ok(line
            .with_context(|| format!("no {name}"))?
            .trim()
            .to_owned())
    };
    for name in ["CapPrm:", "CapBnd:", "Seccomp_filters:", "NoNewPrivs:"] {
        let (inside, here) = (field(&pid.to_string(), name)?, field("self", name)?);
        // Where no security module is asked a filter is, about setns alone.
        let asked = name == "Seccomp_filters:" && served(context, "question", "seccomp")?;
        let want = if asked {
            (here.parse::<u32>()? + 1).to_string()
        } else {
            here
        };
        ensure!(inside == want, "{name} {inside} inside, not {want}");
    }
    let user = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user"));
    ensure!(
        user(&pid.to_string())? == user("self")?,
        "another user namespace"
    );
    let exec = |script: &str| context.paddock(&["exec", "mighty", "sh", "-c", script]);
    ok(&exec("exec 3</dev/kmsg; echo open")?, "open\n")?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let hidden: Vec<_> = mounts
        .lines()
        .filter(|line| {
            line.split(' ')
                .nth(4)
                .is_some_and(|at| at.starts_with("/proc/"))
        })
        .collect();
    ensure!(hidden.is_empty(), "mounted over /proc: {hidden:?}");
    let tried = exec("mkdir /tmp/m && mount -t tmpfs none /tmp/m && echo mounted")?;
    ok(&tried, "mounted\n")
}
