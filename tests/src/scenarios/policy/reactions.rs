//! What follows a denial: its container frozen or ended, or the rule put to audit. The kernel's
//! own freezer, exit codes and what a container wrote down are the witnesses.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Files, found::Found};
use crate::{
    context::{Context, cgroup_file, eventually, pure_v2},
    runner::Scenario,
    scenarios::kernel::{able, host_way},
};

pub const ALL: &[Scenario] = &[
    Scenario::new("policy::a_denial_pauses_its_container", pauses).alone(),
    Scenario::new("policy::a_denial_stops_it_for_good", stops).alone(),
    Scenario::new("policy::a_denial_ends_a_found_one", ends_found).alone(),
    Scenario::new("policy::a_rule_that_hits_too_many_disarms", disarms).alone(),
];

/// Longer than the agent waits between two looks.
const LOOKED: Duration = Duration::from_millis(1500);

fn policy(files: &Files, head: &str, rule: &str) -> Result<String> {
    let text = format!(
        "name = \"walls\"\nmode = \"enforce\"\n{head}\n[[rule]]\nname = \"joining\"\n\
         namespace = {{ target = [\"host\", \"peer\"] }}\n{rule}\n"
    );
    files.write("walls.toml", text)
}

/// A directory that a container shares, and a shell in it that joins the host's uts namespace by
/// a child each time there is a file `go`, and leaves `done`.
struct Intruder {
    flags: PathBuf,
}

impl Intruder {
    fn start(context: &Context, name: &str, options: &[&str], first: &str) -> Result<Self> {
        let flags = context.state.with_extension(name);
        fs::create_dir(&flags)?;
        let (volume, way) = (context.workload_volume(), host_way("uts"));
        let shared = format!("{}:/flags", flags.display());
        let mut args = able(name, &[&volume, &way, &shared]);
        args.splice(1..1, options.iter().copied());
        args.insert(1, "-d");
        let script = format!(
            "{first}; while :; do if test -e /flags/go; then rm /flags/go; \
             /run/workload setns-loop /run/ns uts 1; echo >/flags/done; fi; sleep 0.05; done"
        );
        args.extend(["sh", "-c", &script]);
        context.ok(&args)?;
        Ok(Self { flags })
    }

    fn goes(&self) -> Result<()> {
        let done = self.flags.join("done");
        let _ = fs::remove_file(&done);
        fs::write(self.flags.join("go"), "")?;
        eventually("it has tried", || {
            // Frozen between the two it never says so.
            Ok(done.exists() || !self.flags.join("go").exists())
        })
    }

    fn has(&self, name: &str) -> bool {
        self.flags.join(name).exists()
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.flags);
    }
}

fn frozen(cgroup: &str) -> Result<bool> {
    let path = cgroup_file(cgroup, "cgroup.events", ("freezer", "freezer.state"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(if pure_v2() {
        text.lines().any(|line| line == "frozen 1")
    } else {
        text.trim() == "FROZEN"
    })
}

fn cgroup_of(context: &Context, name: &str) -> Result<String> {
    let detail = context.inspect(name)?;
    Ok(detail["cgroup"].as_str().context("no cgroup")?.to_owned())
}

fn reactions(context: &Context, action: &str) -> Result<Vec<Value>> {
    let events = context.events()?;
    let events = events
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(events
        .filter(|event: &Value| event["event"] == "reaction" && event["action"] == action)
        .collect())
}

fn audited(context: &Context, container: &str) -> Result<bool> {
    let labels = [("container", container), ("action", "audit")];
    Ok(super::hits(context, &labels)? > 0.5)
}

fn pauses(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let files = Files::new()?;
    let file = policy(&files, "", "reaction = \"pause\"")?;
    context.ok(&["policy", "apply", "--mode", "audit", &file])?;
    let intruder = Intruder::start(context, "intruder", &[], "true")?;
    let cgroup = cgroup_of(context, "intruder")?;
    intruder.goes()?;
    eventually("it is counted", || audited(context, "intruder"))?;
    thread::sleep(LOOKED);
    ensure!(!frozen(&cgroup)?, "paused in audit");

    context.ok(&["policy", "mode", "walls", "enforce"])?;
    intruder.goes()?;
    eventually("it is frozen", || frozen(&cgroup))?;
    eventually(
        "it is told",
        || Ok(!reactions(context, "pause")?.is_empty()),
    )?;
    let told = reactions(context, "pause")?;
    ensure!(
        told.len() == 1
            && told[0]["container"] == "intruder"
            && told[0]["policy"] == "walls"
            && told[0]["rule"] == "joining"
            && told[0]["outcome"] == "done",
        "{told:?}"
    );
    // Who lets it go on is not overruled by what has been answered.
    context.ok(&["unpause", "intruder"])?;
    thread::sleep(LOOKED);
    ensure!(!frozen(&cgroup)?, "paused once more for the same");

    // What it does while no agent is there is answered by the next, once.
    context.kill_agent()?;
    intruder.goes()?;
    ensure!(!frozen(&cgroup)?);
    context.start_agent(&[])?;
    eventually("it is frozen by the next agent", || frozen(&cgroup))?;
    eventually(
        "it is told",
        || Ok(!reactions(context, "pause")?.is_empty()),
    )?;
    context.ok(&["unpause", "intruder"])?;
    thread::sleep(LOOKED);
    context.kill_agent()?;
    context.start_agent(&[])?;
    thread::sleep(LOOKED);
    ensure!(!frozen(&cgroup)?, "paused by each agent anew");
    context.ok(&["rm", "-f", "intruder"])?;
    context.ok(&["policy", "rm", "walls"]).map(drop)
}

fn stops(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    let file = policy(&files, "", "reaction = \"stop\"")?;
    context.ok(&["policy", "apply", &file])?;
    let first = "echo >>/flags/starts; trap 'exit 7' TERM";
    let intruder = Intruder::start(context, "intruder", &["--restart", "always"], first)?;
    let pid = context.inspect("intruder")?["pid"].to_string();
    intruder.goes()?;
    eventually("its process is gone", || {
        Ok(!Path::new("/proc").join(&pid).exists())
    })?;
    eventually("it has ended", || {
        Ok(context.inspect("intruder")?["state"] == "exited")
    })?;
    // Its restart policy would have waited a tenth of a second.
    thread::sleep(LOOKED);
    let now = context.inspect("intruder")?;
    ensure!(
        now["state"] == "exited" && now["exit_code"] == 7 && now["restart_count"] == 0,
        "{now}"
    );
    let starts = fs::read_to_string(intruder.flags.join("starts"))?;
    ensure!(starts == "\n", "it ran {} times", starts.len());
    let told = reactions(context, "stop")?;
    ensure!(
        told.len() == 1 && told[0]["rule"] == "joining" && told[0]["outcome"] == "done",
        "{told:?}"
    );
    context.ok(&["rm", "intruder"])?;
    context.ok(&["policy", "rm", "walls"]).map(drop)
}

/// Killed where the policy says whom it means, frozen where it means all.
fn ends_found(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let files = Files::new()?;
    for (number, select) in [(1, "select = { runtime = \"podman\" }"), (2, "")] {
        let file = policy(&files, select, "reaction = \"stop\"")?;
        context.ok(&["policy", "apply", &file])?;
        let found = Found::new(number)?;
        let name = &found.name;
        eventually("it is found", || {
            Ok(context.ok(&["ps", "-a"])?.contains(name))
        })?;
        let joins = found.joins();
        let inner = format!(
            "{} setns-loop /proc/{}/ns/uts uts 1; exec sleep 600",
            context.workload.display(),
            std::process::id()
        );
        let mut child = Command::new("sh")
            .args(["-c", &format!("{joins} exec unshare -u sh -c '{inner}'")])
            .spawn()?;
        if select.is_empty() {
            eventually("it is frozen", || frozen(found.cgroup.path()))?;
            ensure!(child.try_wait()?.is_none(), "it was killed");
            eventually(
                "it is told",
                || Ok(!reactions(context, "pause")?.is_empty()),
            )?;
            // Its runtime does not know of it, so paddock lets it go on.
            context.ok(&["unpause", name])?;
            ensure!(!frozen(found.cgroup.path())?);
            found.cgroup.kill()?;
            child.wait()?;
        } else {
            let status = child.wait()?;
            ensure!(status.signal() == Some(Signal::SIGKILL as i32), "{status}");
            eventually("it is told", || Ok(!reactions(context, "kill")?.is_empty()))?;
        }
    }
    context.ok(&["policy", "rm", "walls"]).map(drop)
}

fn disarms(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let files = Files::new()?;
    let file = policy(&files, "", "disarm = { hits = 1, window = \"1m\" }")?;
    context.ok(&["policy", "apply", &file])?;
    let metric = || {
        let labels = [("policy", "walls"), ("rule", "joining")];
        Ok::<_, anyhow::Error>(
            context
                .metrics()?
                .value("paddock_policy_rules_disarmed", &labels),
        )
    };
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let joins = |name: &str| {
        let mut args = able(name, &[&volume, &way]);
        args.extend(["/run/workload", "setns-loop", "/run/ns", "uts", "7"]);
        context.paddock(&args)
    };
    let free = "7 calls, 0 refused\n";
    ensure!(metric()? == Some(0.0));
    // One container may be hit as often as it likes.
    let one = Intruder::start(context, "one", &[], "true")?;
    for _ in 0..3 {
        one.goes()?;
        eventually("it has tried", || Ok(one.has("done")))?;
    }
    thread::sleep(LOOKED);
    ensure!(metric()? == Some(0.0));
    let two = joins("two")?;
    ensure!(two.stdout != free, "{two:?}");
    eventually("it disarms itself", || Ok(metric()? == Some(1.0)))?;
    let three = joins("three")?;
    ensure!(three.stdout == free, "{three:?}");
    let told = reactions(context, "disarm")?;
    ensure!(
        told.len() == 1
            && told[0]["detail"]
                .as_str()
                .is_some_and(|text| text.contains("two")),
        "{told:?}"
    );

    context.kill_agent()?;
    context.start_agent(&[])?;
    ensure!(metric()? == Some(1.0), "the next agent has armed it");
    let four = joins("four")?;
    ensure!(four.stdout == free, "{four:?}");
    let listed: Value = context.json(&["policy", "list", "walls", "--format", "json"])?;
    ensure!(
        listed["rules"][0]["disarmed"] == true && listed["rules"][0]["mode"] == "audit",
        "{listed}"
    );
    context.ok(&["policy", "mode", "walls", "enforce"])?;
    ensure!(metric()? == Some(0.0));
    let last = joins("last")?;
    ensure!(last.stdout != free, "{last:?}");
    context.ok(&["rm", "-f", "one"])?;
    context.ok(&["policy", "rm", "walls"]).map(drop)
}
