//! What a reader of an article on containers types, by a shell, inside and outside.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{
    namespaces::pid,
    remap::{can_be_mapped, not_mapped},
};
use crate::{
    context::{Context, finish, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[Scenario::new("article::word_for_word", word_for_word)];

/// Out here, as they are typed.
fn outside(line: &str) -> Result<String> {
    let output = finish(Command::new("sh").args(["-c", line]))?;
    ensure!(output.code == Some(0), "{line}: {output:?}");
    Ok(output.stdout)
}

fn word_for_word(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let remap = ["--userns-remap", "165536:65536"];
    let run = ["run", "-d", "--name", "box"];
    let rest = ["--memory=256m", "--cpus=0.5", "host", "sleep", "600"];
    let mapped = can_be_mapped(Path::new("/"))?;
    if mapped {
        context.ok(&[&run[..], &remap, &rest].concat())?;
    } else {
        let refused = ["run", "--rm", remap[0], remap[1], "host", "true"];
        not_mapped(context, &refused, Path::new("/"))?;
        context.ok(&[&run[..], &rest].concat())?;
    }
    let pid = pid(context, "box")?;
    let inside = |line: &str| context.ok(&["exec", "box", "sh", "-c", line]);

    let id = inside("id")?;
    ensure!(id.starts_with("uid=0(root) gid=0(root)"), "{id}");
    let user = if mapped { "165536" } else { "0" };
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(status.contains(&format!("\nUid:\t{user}\t")), "{status}");
    let listed = outside("ps -o pid,user,args 2>/dev/null -e || ps -o pid,user,args")?;
    let own = listed.lines().find(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(&*pid) && (!mapped || words.next() == Some(user))
    });
    ensure!(
        own.is_some_and(|line| line.ends_with("sleep 600")),
        "{listed}"
    );

    let count = |text: String| text.trim().parse::<u32>().context(text);
    // The heading, sleep, the shell, ps, and wc if it is there by then.
    let within = count(inside("ps -ef | wc -l")?)?;
    let without = count(outside("ps -ef | wc -l")?)?;
    ensure!(
        (4..=5).contains(&within) && without > within,
        "{within} and {without}"
    );

    let (memory, cpu) = if pure_v2() {
        ("memory.max", "cpu.max")
    } else {
        ("memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us")
    };
    let limits = inside(&format!("cd /sys/fs/cgroup; cat {memory} {cpu}"))?;
    let period = if pure_v2() { " 100000" } else { "" };
    ensure!(limits == format!("268435456\n50000{period}\n"), "{limits}");

    let line = "for one in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$one; done";
    let (here, there) = (outside(line)?, inside(line)?);
    ensure!(here.lines().count() == 7 && there.lines().count() == 7);
    for (out, within) in here.lines().zip(there.lines()) {
        let kind = |link: &str| link.split(':').next().map(str::to_owned);
        ensure!(out != within && kind(out) == kind(within), "{out} {within}");
    }
    Ok(())
}
