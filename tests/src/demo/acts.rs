//! The four acts that paddock launches itself.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};

use super::stage::Stage;
use crate::context::eventually;

/// An OOM kill, seen in the kernel and told apart from any other SIGKILL.
pub fn greedy(stage: &mut Stage) -> Result<()> {
    let before = host_oom_kills()?;
    let shown = stage.paddock(&[
        "run",
        "--name",
        "greedy",
        "--memory",
        "64m",
        "host",
        "tail",
        "/dev/zero",
    ])?;
    stage.check(
        "exit code",
        shown.code == Some(137),
        format!("{:?}", shown.code),
    );
    stage.check_event("the kill was told", &["greedy", "oom"]);
    stage.check_metric(
        r#"paddock_container_oom_kills_total{constraint="memcg",container="greedy",level="own"}"#,
        1.0,
    )?;
    let grown = host_oom_kills()? - before;
    stage.check("/proc/vmstat oom_kill grew, too", grown >= 1, grown);
    Ok(())
}

/// Processor time is what the limit allows, by paddock's count and by the shell's own.
pub fn busy(stage: &mut Stage) -> Result<()> {
    let script = "timeout 5 sh -c 'while :; do :; done'; times";
    let shown = stage.paddock(&[
        "run", "--name", "busy", "--cpus", "0.1", "host", "sh", "-c", script,
    ])?;
    let shell: f64 = shown
        .stdout
        .split_whitespace()
        .filter_map(shell_seconds)
        .sum();
    let about = |seconds: f64| (0.35..0.75).contains(&seconds);
    stage.check(
        "the shell's own `times`, seconds",
        about(shell),
        format!("{shell:.2}"),
    );
    // Its cgroup is gone a moment before the agent hears what it used to the end.
    let mut metric = None;
    eventually("a CPU metric for busy", || {
        metric = stage.metric(r#"paddock_container_cpu_usage_seconds_total{container="busy"}"#)?;
        Ok(metric.is_some())
    })?;
    let metric = metric.context("no CPU metric for busy")?;
    stage.check(
        "paddock_container_cpu_usage_seconds_total",
        about(metric),
        format!("{metric:.2}"),
    );
    Ok(())
}

/// Few processes and seven namespaces that are not the host's.
pub fn quiet(stage: &mut Stage) -> Result<()> {
    let script = "ls -d /proc/[0-9]* | wc -l; for n in /proc/self/ns/*; do readlink $n; done";
    let shown = stage.paddock(&["run", "--name", "quiet", "host", "sh", "-c", script])?;
    let mut lines = shown.stdout.lines();
    let inside: usize = lines
        .next()
        .unwrap_or_default()
        .trim()
        .parse()
        .unwrap_or(usize::MAX);
    let outside = fs::read_dir("/proc")?
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.parse::<u32>().is_ok())
        })
        .count();
    stage.check(
        "its processes, of the host's",
        inside < 6 && inside < outside,
        format!("{inside} of {outside}"),
    );
    let own = namespaces(lines);
    for namespace in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let host = fs::read_link(format!("/proc/self/ns/{namespace}"))?
            .display()
            .to_string();
        let own = own.get(namespace).cloned().unwrap_or_default();
        let differs = own.starts_with(namespace) && own != host;
        stage.check(
            &format!("{namespace} namespace"),
            differs,
            format!("{own}, the host's {host}"),
        );
    }
    Ok(())
}

/// A namespace call is no alarm; joining the host's is.
pub fn tunneler(stage: &mut Stage) -> Result<()> {
    let script = "unshare --uts true; nsenter --uts=/run/host-uts hostname";
    // The demo itself is in the host's namespaces: its own is the way there.
    let way = format!("/proc/{}/ns/uts:/run/host-uts", std::process::id());
    let flags = ["--userns", "host", "--cap-add", "SYS_ADMIN", "-v", &way];
    let mut args = vec!["run", "--name", "tunneler"];
    args.extend(flags);
    args.extend(["host", "sh", "-c", script]);
    let shown = stage.paddock(&args)?;
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    stage.check(
        "it read the host's name",
        shown.stdout.trim() == host,
        shown.stdout.trim(),
    );
    let calls = |syscall: &str| {
        format!(
            r#"paddock_container_namespace_calls_total{{container="tunneler",namespace="uts",outcome="allowed",syscall="{syscall}"}}"#
        )
    };
    stage.check_metric(&calls("unshare"), 1.0)?;
    stage.check_metric(&calls("setns"), 1.0)?;
    stage.check_event(
        "the escape was told",
        &["tunneler", "setns", "uts", "escape"],
    );
    stage.check_metric(
        r#"paddock_container_escapes_total{container="tunneler",kind="host_namespace",outcome="allowed"}"#,
        1.0,
    )
}

fn host_oom_kills() -> Result<u64> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    value
        .context("/proc/vmstat has no oom_kill")?
        .trim()
        .parse()
        .context("parse oom_kill")
}

/// `0m0.49s` in seconds.
fn shell_seconds(word: &str) -> Option<f64> {
    let (minutes, seconds) = word.strip_suffix('s')?.split_once('m')?;
    Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
}

/// `uts:[4026531838]` by its type; `*_for_children` are no types.
fn namespaces<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    lines
        .filter_map(|line| {
            line.split_once(':')
                .map(|(kind, _)| (kind.to_owned(), line.trim().to_owned()))
        })
        .collect()
}
