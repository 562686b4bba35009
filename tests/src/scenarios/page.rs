//! The page at `/`: what is there is on it, and whatever a container calls itself is text.

pub mod browser;

use anyhow::{Context as _, Result, ensure};

use crate::{context::Context, metrics::Metrics, runner::Scenario};

pub const ALL: &[Scenario] = &[Scenario::new(
    "page::shows_who_lives_and_how",
    shows_who_lives,
)];

fn shows_who_lives(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let idle = ["host", "sleep", "600"];
    for (name, options) in [
        ("alone", &["--memory", "64m"][..]),
        (
            "sharing",
            &["--network", "container:alone", "--uts", "host"],
        ),
    ] {
        let args = [&["run", "-d", "--name", name], options, &idle[..]].concat();
        context.ok(&args)?;
    }
    // It calls itself so, and is the victim.
    let hostile = "printf '<img src=x>' >/proc/self/comm; a=xxxxxxxx; while :; do a=$a$a; done";
    let killed = context.paddock(&[
        "run", "--name", "greedy", "--memory", "64m", "host", "sh", "-c", hostile,
    ])?;
    ensure!(killed.code == Some(137), "{killed:?}");
    let answer = Metrics::get(&context.address()?, "/")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    ensure!(
        head.starts_with("HTTP/1.1 200")
            && head.contains("content-security-policy: default-src 'none'; style-src"),
        "{head}"
    );
    for says in [
        "alone",
        "sharing",
        "greedy",
        "exited (137)",
        "out of memory",
        "&lt;img src=x&gt;",
    ] {
        ensure!(body.contains(says), "no {says:?}: {body}");
    }
    ensure!(
        !body.contains("<img") && !body.contains("<script"),
        "markup of a container's: {body}"
    );
    // Its namespaces, by procfs: alone's network is shared, sharing's UTS the host's.
    let inode = |name: &str, kind: &str| -> Result<String> {
        let pid = context.inspect(name)?["pid"].as_i64().context("no pid")?;
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}"))?;
        Ok(link.display().to_string())
    };
    for (name, kind, class) in [
        ("alone", "net", "shared"),
        ("alone", "pid", "own"),
        ("sharing", "net", "shared"),
        ("sharing", "uts", "host"),
    ] {
        let want = format!("<span class=\"{class}\" title=\"{}\">", inode(name, kind)?);
        ensure!(body.contains(&want), "{name} {kind}: no {want}: {body}");
    }
    context
        .ok(&["rm", "-f", "sharing", "alone", "greedy"])
        .map(drop)
}
