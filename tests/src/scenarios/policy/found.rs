//! Policy holds for containers that others started, as for paddock's own.

use std::{
    fmt::Write as _,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use paddock_cgroups::{Cgroup, Hierarchies};

use super::{
    Files,
    enforced::{WALLS, asks},
};
use crate::{
    context::{Context, eventually},
    runner::Scenario,
    scenarios::kernel::equal,
};

pub const ALL: &[Scenario] = &[Scenario::new(
    "policy::found_ones_are_judged_by_target",
    by_target,
)];

/// Those that busybox, too, can make, and what joining the host's needs no second step for.
const TYPES: [&str; 4] = ["uts", "ipc", "net", "mnt"];
/// Prime, so that no other count is it by chance.
const TRIES: u32 = 7;

/// A cgroup as podman's, which the agent takes for a container. Made by the test, as a runtime
/// would.
pub(super) struct Found {
    pub(super) cgroup: Cgroup,
    pub(super) name: String,
}

impl Found {
    pub(super) fn new(number: u32) -> Result<Self> {
        let id = format!("{number:012x}{:052x}", std::process::id());
        let cgroup = Cgroup::create(&Hierarchies::discover()?, &format!("libpod-{id}"))?;
        Ok(Self {
            cgroup,
            name: id[..12].to_owned(),
        })
    }

    /// The beginning of a script: its shell joins.
    pub(super) fn joins(&self) -> String {
        let mut script = String::new();
        for dir in self.cgroup.dirs() {
            // Writing to a string does not fail.
            let _ = write!(script, "echo $$ >{}/cgroup.procs; ", dir.display());
        }
        script
    }

    /// `script` as a process of it, in namespaces of its own.
    fn spawn(&self, script: &str) -> Result<Child> {
        let script = format!("{}exec unshare -u -i -n -m sh -c '{script}'", self.joins());
        Ok(Command::new("sh")
            .args(["-c", &script])
            .stdout(Stdio::piped())
            .spawn()?)
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        drop(self.cgroup.kill().and_then(|()| self.cgroup.remove()));
    }
}

/// What became of a process that tried to join another's namespace.
struct Joined {
    said: String,
    signal: Option<i32>,
}

fn join(context: &Context, by: &Found, target: &str, kind: &str) -> Result<Joined> {
    let workload = context.workload.display();
    let child = by.spawn(&format!(
        "exec {workload} setns-loop /proc/{target}/ns/{kind} {kind} {TRIES}"
    ))?;
    let output = child.wait_with_output()?;
    Ok(Joined {
        said: String::from_utf8_lossy(&output.stdout).into_owned(),
        signal: output.status.signal(),
    })
}

fn by_target(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let (asks, files) = (asks(context)?, Files::new()?);
    let (intruder, peer) = (Found::new(1)?, Found::new(2)?);
    for one in [&intruder, &peer] {
        eventually("it is found", || {
            Ok(context.ok(&["ps", "-a"])?.contains(&one.name))
        })?;
    }
    let mut neighbour = peer.spawn("echo there; exec sleep 600")?;
    let neighbours = neighbour.id().to_string();
    eventually("the peer is in namespaces of its own", || {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt"));
        Ok(of(&neighbours)? != of("self")?)
    })?;
    let host = std::process::id().to_string();
    let targets = [("own", "self"), ("host", &host), ("peer", &neighbours)];
    let went_on = format!("{TRIES} calls, 0 refused\n");

    // Nothing but the policy keeps it from any.
    for (whose, target) in targets {
        for kind in TYPES {
            let free = join(context, &intruder, target, kind)?;
            ensure!(free.said == went_on, "{whose} {kind}: {:?}", free.said);
        }
    }
    let policy = files.write("walls.toml", WALLS)?;
    context.ok(&["policy", "apply", &policy])?;
    for (whose, target) in targets {
        for kind in TYPES {
            let joined = join(context, &intruder, target, kind)?;
            let (said, signal) = match (whose, asks) {
                ("own", _) => (went_on.clone(), None),
                (_, true) => (format!("{TRIES} calls, {TRIES} refused\n"), None),
                (_, false) => (String::new(), Some(Signal::SIGKILL as i32)),
            };
            ensure!(
                joined.said == said && joined.signal == signal,
                "{whose} {kind}: {:?}, signal {:?}",
                joined.said,
                joined.signal
            );
        }
    }
    // Of two targets each type once, and each try where it goes on after a refusal.
    let (action, each) = if asks { ("deny", TRIES) } else { ("kill", 1) };
    let labels = [("container", intruder.name.as_str()), ("action", action)];
    let hits = super::hits(context, &labels)?;
    equal(action, hits, 2 * u32::try_from(TYPES.len())? * each)?;
    peer.cgroup.kill()?;
    neighbour.wait().context("wait for the peer")?;
    context.ok(&["policy", "rm", "walls"]).map(drop)
}
