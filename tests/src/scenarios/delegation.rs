//! An agent in a cgroup that systemd delegated: here the test does what systemd does, which is a
//! directory, an extended attribute, and the process in it. Witnesses are the cgroup files and
//! /proc/PID/cgroup.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use paddock_cgroups::{Cgroup, Hierarchies};
use rustix::fs::{XattrFlags, setxattr};

use crate::{
    context::{Context, cgroup_file, cgroup_mounts, eventually, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "delegation::containers_live_below_what_was_delegated",
        containers_live_below_what_was_delegated,
    )
    .alone(),
    Scenario::new(
        "delegation::the_last_monitor_gives_it_back",
        the_last_monitor_gives_it_back,
    )
    .alone(),
    Scenario::new(
        "delegation::a_killed_agents_is_given_back",
        a_killed_agents_is_given_back,
    )
    .alone(),
    Scenario::new(
        "delegation::without_a_mark_it_is_the_root",
        without_a_mark_it_is_the_root,
    )
    .alone(),
];

/// What systemd keeps of v1, where there is v1.
const OF_SYSTEMD: [&str; 6] = ["cpu", "memory", "pids", "devices", "blkio", "name=systemd"];

/// A unit's cgroup; killed and removed when dropped.
struct Unit {
    name: String,
    /// v2's first.
    dirs: Vec<PathBuf>,
}

impl Unit {
    fn make() -> Result<Self> {
        let name = format!("unit-{}.service", std::process::id());
        let mut mounts = cgroup_mounts()?;
        mounts.retain(|(options, _)| {
            let mut options = options.as_deref().unwrap_or("memory").split(',');
            options.any(|option| OF_SYSTEMD.contains(&option))
        });
        mounts.sort_by_key(|(options, _)| options.is_some());
        if pure_v2() {
            fs::write(
                "/sys/fs/cgroup/cgroup.subtree_control",
                "+cpu +cpuset +io +memory +pids",
            )?;
        }
        let mut unit = Self {
            dirs: Vec::new(),
            name,
        };
        for (_, mount) in mounts {
            let dir = mount.join(&unit.name);
            fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
            unit.dirs.push(dir);
        }
        Ok(unit)
    }

    fn v2(&self) -> &Path {
        &self.dirs[0]
    }

    fn mark(&self, name: &str, value: &str) -> Result<()> {
        Ok(setxattr(
            self.v2(),
            name,
            value.as_bytes(),
            XattrFlags::empty(),
        )?)
    }

    /// A shell that goes there, in v2 to `leaf` below, and becomes the agent.
    fn agent(&self, context: &Context, leaf: &str) -> Result<i32> {
        let mut dirs = self.dirs.clone();
        dirs[0].push(leaf);
        let enter: Vec<_> = dirs
            .iter()
            .map(|dir| format!("echo $$ >{}/cgroup.procs || exit 9; ", dir.display()))
            .collect();
        let script = format!("{}exec \"$@\"", enter.concat());
        context.start_agent_by(&["sh", "-c", &script, "sh"], &["--detach-on-exit"])
    }

    /// Nothing below it, in whatever hierarchy; itself there where it was and nowhere else.
    fn is_as_it_was(&self) -> Result<()> {
        for (_, mount) in cgroup_mounts()? {
            let dir = mount.join(&self.name);
            ensure!(
                dir.is_dir() == self.dirs.contains(&dir),
                "{}: {}",
                dir.display(),
                if dir.is_dir() { "left" } else { "gone" }
            );
            if dir.is_dir() {
                let left = below(&dir)?;
                ensure!(left.is_empty(), "left in {}: {left:?}", dir.display());
            }
        }
        let control = says(&self.v2().join("cgroup.subtree_control"))?;
        ensure!(control.is_empty(), "still hands down {control}");
        Ok(())
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let cgroup = Hierarchies::discover().and_then(|all| Cgroup::open(&all, &self.name));
        drop(cgroup.and_then(|cgroup| {
            cgroup.kill()?;
            cgroup.remove_alone()
        }));
    }
}

fn below(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    let dirs = entries.iter().map(fs::DirEntry::path);
    Ok(dirs.filter(|path| path.is_dir()).collect())
}

fn says(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.trim().to_owned())
}

/// Where the kernel has a process in v2.
fn place(pid: i32) -> Result<String> {
    let text = says(Path::new(&format!("/proc/{pid}/cgroup")))?;
    let line = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(line.context("not in v2")?.to_owned())
}

/// Its cgroup and its first process.
fn run(context: &Context, name: &str) -> Result<(String, i32)> {
    let line = ["run", "-d", "--name", name, "--memory", "64m"];
    let rest = ["--pids-limit", "9", "host", "sleep", "300"];
    context.ok(&[&line[..], &rest[..]].concat())?;
    let detail = context.inspect(name)?;
    let cgroup = detail["cgroup"].as_str().context("no cgroup")?.to_owned();
    let pid = i32::try_from(detail["pid"].as_i64().context("no pid")?)?;
    Ok((cgroup, pid))
}

fn limits_stand(cgroup: &str) -> Result<()> {
    let memory = cgroup_file(cgroup, "memory.max", ("memory", "memory.limit_in_bytes"));
    let pids = cgroup_file(cgroup, "pids.max", ("pids", "pids.max"));
    ensure!((says(&memory)?, says(&pids)?) == ("67108864".into(), "9".into()));
    Ok(())
}

fn containers_live_below_what_was_delegated(context: &Context) -> Result<()> {
    let unit = Unit::make()?;
    unit.mark("trusted.delegate", "1")?;
    let agent = unit.agent(context, "")?;
    let leaf = format!("{}/agent", unit.name);
    ensure!(place(agent)? == leaf, "the agent is in {}", place(agent)?);
    let report = context.json(&["check", "--format", "json"])?;
    let parent = report["cgroup_parent"].as_str().context("no parent")?;
    let why = report["cgroup_parent_reason"].as_str().context("no why")?;
    ensure!(
        parent.starts_with(&format!("/{}/paddock/", unit.name)) && why.contains("trusted.delegate"),
        "{parent}: {why}"
    );

    let (cgroup, pid) = run(context, "inside")?;
    ensure!(
        format!("/{cgroup}").starts_with(&format!("{parent}/")),
        "{cgroup}, not in {parent}"
    );
    ensure!(
        place(pid)? == cgroup,
        "the kernel has it in {}",
        place(pid)?
    );
    let whole = says(Path::new(&format!("/proc/{pid}/cgroup")))?;
    for line in whole.lines() {
        ensure!(line.ends_with(&format!(":/{cgroup}")), "{line}");
    }
    limits_stand(&cgroup)?;
    let instance = parent.rsplit('/').next().context("no instance")?;
    for (_, mount) in cgroup_mounts()? {
        let at_root = mount.join("paddock").join(instance);
        ensure!(!at_root.exists(), "{} is there too", at_root.display());
    }
    // Its slot is found by its cgroup. The tombstone of what is gone has the last count.
    let line = ["run", "--rm", "--name", "counted", "--cap-add", "SYS_ADMIN"];
    context.ok(&[&line[..], &["host", "unshare", "-n", "true"]].concat())?;
    eventually("the kernel half counts it", || {
        let labels = [("container", "counted"), ("syscall", "unshare")];
        let name = "paddock_container_namespace_calls_total";
        Ok(context.metrics()?.sum(name, &labels) >= 1.0)
    })?;

    // KillMode=process: the unit's main process goes, the others stay.
    let monitor = context.monitor_of("inside")?;
    context.stop_agent()?;
    ensure!(
        place(monitor.as_raw())? == leaf,
        "{}",
        place(monitor.as_raw())?
    );
    ensure!(place(pid)? == cgroup);
    limits_stand(&cgroup)?;
    // DelegateSubgroup=agent: the next one begins in the leaf.
    let agent = unit.agent(context, "agent")?;
    ensure!(place(agent)? == leaf);
    ensure!(context.inspect("inside")?["cgroup"] == *cgroup);
    let (second, _) = run(context, "second")?;
    ensure!(
        format!("/{second}").starts_with(&format!("{parent}/")),
        "{second}"
    );
    context.ok(&["restart", "-t", "0", "inside"])?;
    ensure!(context.inspect("inside")?["cgroup"] == *cgroup);
    limits_stand(&cgroup)?;

    context.ok(&["rm", "-f", "inside", "second"])?;
    context.stop_agent()?;
    unit.is_as_it_was()
}

/// It outlives the agent, and after its container there is nothing of paddock's.
fn the_last_monitor_gives_it_back(context: &Context) -> Result<()> {
    let unit = Unit::make()?;
    unit.mark("user.delegate", "1")?;
    unit.agent(context, "")?;
    let (cgroup, pid) = run(context, "last")?;
    ensure!(cgroup.starts_with(&unit.name), "{cgroup}");
    let monitor = context.monitor_of("last")?;
    context.stop_agent()?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    eventually("the monitor ends", || Ok(kill(monitor, None).is_err()))?;
    unit.is_as_it_was()?;
    // Its record is the next agent's to find, wherever that is.
    context.start_agent(&["--detach-on-exit"])?;
    let detail = context.inspect("last")?;
    ensure!(detail["state"] == "exited", "{detail}");
    context.ok(&["start", "last"])?;
    let cgroup = context.inspect("last")?["cgroup"].clone();
    let cgroup = cgroup.as_str().context("no cgroup")?;
    ensure!(cgroup.starts_with("paddock/"), "it runs in {cgroup}");
    limits_stand(cgroup)
}

fn a_killed_agents_is_given_back(context: &Context) -> Result<()> {
    let unit = Unit::make()?;
    unit.mark("trusted.delegate", "1")?;
    unit.agent(context, "")?;
    context.ok(&["run", "--rm", "host", "true"])?;
    // The command may end before the agent has removed the container.
    let containers = context.state.join("containers");
    eventually("it is removed", || {
        Ok(fs::read_dir(&containers)?.next().is_none())
    })?;
    ensure!(below(unit.v2())?.len() == 2, "{:?}", below(unit.v2())?);
    context.kill_agent()?;
    let socket = context.state.join("paddock.sock");
    ensure!(UnixStream::connect(&socket).is_err());
    // Its zygote goes by itself.
    thread::sleep(Duration::from_millis(500));
    context.ok(&["unload"])?;
    unit.is_as_it_was()
}

fn without_a_mark_it_is_the_root(context: &Context) -> Result<()> {
    let unit = Unit::make()?;
    let parent = || -> Result<(String, String)> {
        let report = context.json(&["check", "--format", "json"])?;
        let word = |name: &str| report[name].as_str().map(str::to_owned).context("no words");
        Ok((word("cgroup_parent")?, word("cgroup_parent_reason")?))
    };
    unit.agent(context, "")?;
    let (at, why) = parent()?;
    ensure!(
        at.starts_with("/paddock/")
            && why == format!("nobody delegated /{} to the agent", unit.name),
        "{at}: {why}"
    );
    let (cgroup, pid) = run(context, "outside")?;
    ensure!(
        place(pid)? == cgroup && cgroup.starts_with("paddock/"),
        "{cgroup}"
    );
    context.ok(&["rm", "-f", "outside"])?;
    context.stop_agent()?;

    // The trusted mark decides.
    unit.mark("user.delegate", "1")?;
    unit.mark("trusted.delegate", "0")?;
    unit.agent(context, "")?;
    let (at, why) = parent()?;
    ensure!(at.starts_with("/paddock/"), "{at}: {why}");
    context.stop_agent()?;

    if pure_v2() {
        // v2 gives no controllers to the children of a cgroup with processes of its own.
        unit.mark("trusted.delegate", "1")?;
        let mut other = std::process::Command::new("sleep").arg("300").spawn()?;
        let joined = fs::write(unit.v2().join("cgroup.procs"), other.id().to_string());
        let started = unit.agent(context, "");
        let said = parent();
        let _ = (other.kill(), other.wait());
        joined?;
        started?;
        let (at, why) = said?;
        ensure!(
            at.starts_with("/paddock/") && why.contains(&other.id().to_string()),
            "{at}: {why}"
        );
        context.stop_agent()?;
    }
    unit.is_as_it_was()
}
