//! The cgroups crate on a real kernel; the witnesses are procfs and the files themselves.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use paddock_cgroups::{
    Cgroup, CpuLimits, CpusetLimits, Error, Hierarchies, Layout, Limits, MemoryLimits, parse,
};

use crate::{
    context::{Context, cgroup_file, eventually, pure_v2},
    process::Running,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("cgroups::limits_are_in_the_files", limits_are_in_the_files),
    Scenario::new(
        "cgroups::a_process_is_in_every_hierarchy",
        a_process_is_in_every_hierarchy,
    ),
    Scenario::new("cgroups::memory_limit_kills", memory_limit_kills),
    Scenario::new("cgroups::kill_ends_a_fork_storm", kill_ends_a_fork_storm),
    Scenario::new(
        "cgroups::kill_reaches_what_left_v2",
        kill_reaches_what_left_v2,
    ),
    Scenario::new("cgroups::refusals_name_the_cause", refusals_name_the_cause),
];

const TIMEOUT: Duration = Duration::from_mins(1);

/// Killed and removed when dropped, so that a failed check leaves nothing.
struct Scratch(Cgroup);

impl Scratch {
    /// Below a name that no other run has: that of the scenario's state directory.
    fn new(context: &Context) -> Result<Self> {
        let tag = context.state.file_name().context("the state directory")?;
        let path = format!("paddock/{}/scratch", tag.to_string_lossy());
        Ok(Self(Cgroup::create(&Hierarchies::discover()?, &path)?))
    }

    fn read(&self, v2: &str, v1: (&str, &str)) -> Result<String> {
        let path = cgroup_file(self.0.path(), v2, v1);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().to_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.0.kill().and_then(|()| self.0.remove()));
    }
}

fn memory(limit: &str) -> Result<MemoryLimits> {
    Ok(MemoryLimits {
        limit: Some(parse::memory(limit)?),
        ..MemoryLimits::default()
    })
}

fn cpus(list: &str) -> CpusetLimits {
    CpusetLimits {
        cpus: Some(list.to_owned()),
        mems: None,
    }
}

/// Waits for a line on stdin, then becomes `script`: time to be put into a cgroup.
fn held(script: &str) -> Result<Running> {
    Running::start(Command::new("sh").args(["-c", &format!("read go && {script}")]))
}

fn limits_are_in_the_files(context: &Context) -> Result<()> {
    let scratch = Scratch::new(context)?;
    scratch.0.apply(&Limits {
        memory: memory("256m")?,
        cpu: CpuLimits {
            quota: Some(parse::cpus("0.5")?),
            period: Some(parse::PERIOD),
            shares: Some(1024),
            ..CpuLimits::default()
        },
        cpuset: cpus("0"),
        pids: Some(32),
        ..Limits::default()
    })?;
    let memory = scratch.read("memory.max", ("memory", "memory.limit_in_bytes"))?;
    ensure!(memory == "268435456", "{memory}");
    if pure_v2() {
        let quota = scratch.read("cpu.max", ("", ""))?;
        ensure!(quota == "50000 100000", "{quota}");
        let weight = scratch.read("cpu.weight", ("", ""))?;
        ensure!(weight == "100", "{weight}");
    } else {
        let quota = scratch.read("", ("cpu", "cpu.cfs_quota_us"))?;
        let period = scratch.read("", ("cpu", "cpu.cfs_period_us"))?;
        ensure!(quota == "50000" && period == "100000", "{quota} {period}");
        let shares = scratch.read("", ("cpu", "cpu.shares"))?;
        ensure!(shares == "1024", "{shares}");
    }
    let cpus = scratch.read("cpuset.cpus", ("cpuset", "cpuset.cpus"))?;
    ensure!(cpus == "0", "{cpus}");
    let pids = scratch.read("pids.max", ("pids", "pids.max"))?;
    ensure!(pids == "32", "{pids}");
    let stats = scratch.0.stats()?;
    ensure!(stats.memory_limit_bytes == Some(268_435_456), "{stats:?}");
    ensure!(stats.pids_limit == Some(32), "{stats:?}");
    Ok(())
}

fn a_process_is_in_every_hierarchy(context: &Context) -> Result<()> {
    let scratch = Scratch::new(context)?;
    let process = held("true")?;
    scratch.0.attach(process.pid())?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", process.pid()))?;
    let expected = format!("/{}", scratch.0.path());
    for line in text.lines() {
        let path = line.splitn(3, ':').nth(2).unwrap_or("");
        // v2's line is there even where v2 is not mounted.
        let unmounted = line.starts_with("0::") && Hierarchies::discover()?.unified().is_none();
        if path != expected && !unmounted {
            bail!("{line} is not in {expected}");
        }
    }
    ensure!(scratch.0.pids()? == [process.pid()]);
    Ok(())
}

fn memory_limit_kills(context: &Context) -> Result<()> {
    let scratch = Scratch::new(context)?;
    scratch.0.apply(&Limits {
        memory: MemoryLimits {
            swap: scratch.0.accounts_swap().then_some(32 << 20),
            ..memory("32m")?
        },
        ..Limits::default()
    })?;
    let workload = context.workload.display();
    let mut process = held(&format!("exec {workload} alloc {}", 96 << 20))?;
    scratch.0.attach(process.pid())?;
    process.write_line("go")?;
    process.wait(TIMEOUT)?.expect(137)?;
    let events = scratch.read("memory.events", ("memory", "memory.oom_control"))?;
    ensure!(
        events.lines().any(|line| line == "oom_kill 1"),
        "the kernel counts: {events}"
    );
    ensure!(scratch.0.stats()?.totals.memory_oom_kills == Some(1));
    Ok(())
}

fn kill_ends_a_fork_storm(context: &Context) -> Result<()> {
    let scratch = Scratch::new(context)?;
    scratch.0.apply(&Limits {
        pids: Some(512),
        ..Limits::default()
    })?;
    // Slow enough that the limit, which would end the shell by itself, is far away.
    let mut process = held("while :; do (sleep 0.01; sleep 60) & sleep 0.02; done")?;
    scratch.0.attach(process.pid())?;
    process.write_line("go")?;
    eventually("a dozen processes", || Ok(scratch.0.pids()?.len() > 12))?;
    scratch.0.kill()?;
    ensure!(scratch.0.pids()?.is_empty());
    process.wait(TIMEOUT)?.expect(137)?;
    scratch.0.remove()?;
    ensure!(scratch.0.v1_tasks().iter().all(|tasks| !tasks.exists()));
    Ok(())
}

/// On hybrid hosts only v1 knows this process then, so `cgroup.kill` cannot reach it.
fn kill_reaches_what_left_v2(context: &Context) -> Result<()> {
    let scratch = Scratch::new(context)?;
    let process = held("true")?;
    scratch.0.attach(process.pid())?;
    let hierarchies = Hierarchies::discover()?;
    if hierarchies.layout() == Layout::Hybrid {
        let unified = hierarchies.unified().map(Path::to_owned);
        let root: PathBuf = unified.context("a hybrid host has v2")?;
        fs::write(root.join("cgroup.procs"), process.pid().to_string())?;
    }
    scratch.0.kill()?;
    process.wait(TIMEOUT)?.expect(137)?;
    Ok(())
}

fn refusals_name_the_cause(context: &Context) -> Result<()> {
    let scratch = Scratch::new(context)?;
    let again = Cgroup::create(&Hierarchies::discover()?, scratch.0.path());
    ensure!(
        again.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EEXIST)),
        "a second cgroup of the same path"
    );
    let absent = scratch.0.apply(&Limits {
        cpuset: cpus("0-4095"),
        ..Limits::default()
    });
    ensure!(matches!(absent, Err(Error::Limit { .. })), "{absent:?}");
    if pure_v2() {
        // v2 reclaims and kills instead of refusing.
        return Ok(());
    }
    let fill = r"x=$(head -c 40000000 /dev/zero | tr '\0' a); echo filled; sleep 60";
    let mut process = held(fill)?;
    scratch.0.attach(process.pid())?;
    process.write_line("go")?;
    eventually("40 MB in use", || Ok(process.stdout().contains("filled")))?;
    let below = scratch.0.apply(&Limits {
        memory: memory("1m")?,
        ..Limits::default()
    });
    ensure!(
        matches!(below, Err(Error::BelowUse { usage, .. }) if usage > 40_000_000),
        "{below:?}"
    );
    Ok(())
}
