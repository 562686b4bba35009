//! What a workload may: read from the kernel's own status file, from outside.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{context::Context, process::program_is_out_of_reach, runner::Scenario};

pub const ALL: &[Scenario] = &[
    Scenario::new("privilege::default_set", default_set),
    Scenario::new("privilege::added_and_dropped", added_and_dropped),
    Scenario::new("privilege::rlimits", rlimits),
    Scenario::new("privilege::no_descriptor_leaks_in", no_descriptor_leaks_in),
    Scenario::new("privilege::binary_is_out_of_reach", binary_is_out_of_reach),
];

/// Docker's fourteen: chown dac_override fowner fsetid kill setgid setuid setpcap
/// net_bind_service net_raw sys_chroot mknod audit_write setfcap.
pub(super) const DOCKER_DEFAULT: u64 = 0xa804_25fb;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_CHOWN: u64 = 1;

pub(super) fn status(context: &Context, name: &str) -> Result<Vec<(String, String)>> {
    let pid = context.inspect(name)?["pid"].as_i64().context("no pid")?;
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(text
        .lines()
        .filter_map(|line| {
            line.split_once(':')
                .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        })
        .collect())
}

pub(super) fn field(status: &[(String, String)], key: &str) -> Result<u64> {
    let value = &status
        .iter()
        .find(|(name, _)| name == key)
        .with_context(|| format!("no {key}"))?
        .1;
    u64::from_str_radix(value, 16).with_context(|| format!("{key}: {value}"))
}

fn default_set(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "plain", "host", "sleep", "60"])?;
    let status = status(context, "plain")?;
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        ensure!(
            field(&status, set)? == DOCKER_DEFAULT,
            "{set} is {:x}",
            field(&status, set)?
        );
    }
    for set in ["CapInh", "CapAmb"] {
        ensure!(field(&status, set)? == 0, "{set} is not empty");
    }
    // Whatever the launcher blocked or ignored is not handed on.
    for set in ["SigBlk", "SigIgn"] {
        ensure!(
            field(&status, set)? == 0,
            "{set} is {:x}",
            field(&status, set)?
        );
    }
    Ok(())
}

fn added_and_dropped(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let args = [
        "run",
        "-d",
        "--name",
        "few",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "CHOWN",
        "--security-opt",
        "no-new-privileges",
        "host",
        "sleep",
        "60",
    ];
    context.ok(&args)?;
    let few = status(context, "few")?;
    ensure!(
        field(&few, "CapEff")? == CAP_CHOWN && field(&few, "CapBnd")? == CAP_CHOWN,
        "{few:?}"
    );
    ensure!(field(&few, "NoNewPrivs")? == 1, "no_new_privs is off");
    context.ok(&[
        "run",
        "-d",
        "--name",
        "more",
        "--cap-add",
        "sys_admin",
        "--cap-drop",
        "CAP_CHOWN",
        "host",
        "sleep",
        "60",
    ])?;
    let more = field(&status(context, "more")?, "CapEff")?;
    ensure!(
        more == (DOCKER_DEFAULT | CAP_SYS_ADMIN) & !CAP_CHOWN,
        "{more:x}"
    );
    let output = context.paddock(&[
        "run",
        "--rm",
        "--cap-add",
        "SYS_ADMINISTRATOR",
        "host",
        "true",
    ])?;
    ensure!(
        output.code == Some(125) && output.stderr.contains("SYS_ADMINISTRATOR"),
        "{output:?}"
    );
    Ok(())
}

fn rlimits(context: &Context) -> Result<()> {
    let text = context.ok(&[
        "run",
        "--rm",
        "--ulimit",
        "nofile=97:101",
        "host",
        "sh",
        "-c",
        "ulimit -Sn; ulimit -Hn",
    ])?;
    ensure!(text == "97\n101\n", "{text}");
    Ok(())
}

/// CVE-2024-21626: nothing but the three standard descriptors crosses over.
fn no_descriptor_leaks_in(context: &Context) -> Result<()> {
    let text = context.ok(&["run", "--rm", "host", "sh", "-c", "ls /proc/1/fd"])?;
    let fds: Vec<_> = text.split_whitespace().collect();
    // The shell keeps none of its own; ls runs as its child or in its place with one more.
    ensure!(
        fds.iter().all(|fd| ["0", "1", "2", "3"].contains(fd)),
        "descriptors: {fds:?}"
    );
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "held", "host", "sleep", "60"])?;
    let pid = context.inspect("held")?["pid"].as_i64().context("no pid")?;
    let fds: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))?
        .flatten()
        .map(|e| e.file_name())
        .collect();
    ensure!(fds.len() == 3, "descriptors from outside: {fds:?}");
    for link in ["/run/../../..", "/proc/self/fd/3", "/proc/self/fd/7"] {
        let output = context.paddock(&["run", "--rm", "-w", link, "host", "pwd"])?;
        let outside = output.stdout.contains("unreachable");
        ensure!(
            !outside && (output.code != Some(0) || output.stdout.trim() == "/"),
            "{link}: {output:?}"
        );
    }
    Ok(())
}

/// CVE-2019-5736: what a container can reach through /proc is never the file on disk.
fn binary_is_out_of_reach(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let id = context.ok(&["run", "-d", "--name", "held", "host", "sleep", "60"])?;
    let started = fs::read_to_string(
        context
            .state
            .join("containers")
            .join(id.trim())
            .join("started.json"),
    )?;
    let started: serde_json::Value = serde_json::from_str(&started)?;
    let monitor = started["monitor_pid"].as_i64().context("no monitor")?;
    program_is_out_of_reach(&monitor.to_string())
}
