//! The cgroups crate on a real kernel; the witnesses are procfs and the files themselves.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use paddock_cgroups::{Cgroup, Error, Hierarchies, Layout, Limits, parse};

use crate::{Ctx, Running, Scenario, context::wait_until};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "cgroups_limits_are_in_the_files",
        run: limits_are_in_the_files,
    },
    Scenario {
        name: "cgroups_a_process_is_in_every_hierarchy",
        run: a_process_is_in_every_hierarchy,
    },
    Scenario {
        name: "cgroups_memory_limit_kills",
        run: memory_limit_kills,
    },
    Scenario {
        name: "cgroups_kill_ends_a_fork_storm",
        run: kill_ends_a_fork_storm,
    },
    Scenario {
        name: "cgroups_kill_reaches_what_left_v2",
        run: kill_reaches_what_left_v2,
    },
    Scenario {
        name: "cgroups_refusals_name_the_cause",
        run: refusals_name_the_cause,
    },
];

const TIMEOUT: Duration = Duration::from_secs(20);

/// Killed and removed when dropped, so that a failed check leaves nothing.
struct Scratch(Cgroup);

impl Scratch {
    fn new(ctx: &Ctx, name: &str) -> Result<Self> {
        let hierarchies = Hierarchies::discover()?;
        Ok(Self(Cgroup::create(
            &hierarchies,
            &format!("paddock/{}/{name}", ctx.tag),
        )?))
    }

    /// A file as the kernel shows it, found without paddock: by where Debian mounts things.
    fn read(&self, ctx: &Ctx, v1: &str, v2: &str) -> Result<String> {
        let file = match ctx.layout {
            Layout::V2 => Path::new("/sys/fs/cgroup").join(self.0.path()).join(v2),
            Layout::V1 | Layout::Hybrid => {
                let controller = v1.split('.').next().unwrap_or(v1);
                let mount = Path::new("/sys/fs/cgroup").join(controller);
                mount.join(self.0.path()).join(v1)
            }
        };
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        Ok(text.trim().to_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.0.kill().and_then(|()| self.0.remove()));
    }
}

/// Waits for a line on stdin, then becomes `script`: time to be put into a cgroup.
fn held(script: &str) -> Result<Running> {
    Running::start(Command::new("sh").args(["-c", &format!("read go && {script}")]))
}

fn limits_are_in_the_files(ctx: &Ctx) -> Result<()> {
    let scratch = Scratch::new(ctx, "limits")?;
    scratch.0.apply(&Limits {
        memory: Some(parse::memory("256m")?),
        memory_swap: None,
        cpu_quota: Some(parse::cpus("0.5")?),
        cpu_shares: Some(1024),
        cpuset_cpus: Some("0".to_owned()),
        pids: Some(32),
    })?;
    let read = |v1, v2| scratch.read(ctx, v1, v2);
    ensure!(read("memory.limit_in_bytes", "memory.max")? == "268435456");
    match ctx.layout {
        Layout::V2 => {
            ensure!(read("", "cpu.max")? == "50000 100000");
            ensure!(read("", "cpu.weight")? == "100");
        }
        Layout::V1 | Layout::Hybrid => {
            ensure!(read("cpu.cfs_quota_us", "")? == "50000");
            ensure!(read("cpu.cfs_period_us", "")? == "100000");
            ensure!(read("cpu.shares", "")? == "1024");
        }
    }
    ensure!(read("cpuset.cpus", "cpuset.cpus")? == "0");
    ensure!(read("pids.max", "pids.max")? == "32");
    let stats = scratch.0.stats()?;
    ensure!(stats.memory_limit_bytes == Some(268_435_456), "{stats:?}");
    ensure!(stats.pids_limit == Some(32), "{stats:?}");
    Ok(())
}

fn a_process_is_in_every_hierarchy(ctx: &Ctx) -> Result<()> {
    let scratch = Scratch::new(ctx, "attach")?;
    let process = held("true")?;
    scratch.0.attach(process.pid())?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", process.pid()))?;
    let expected = format!("/{}", scratch.0.path());
    for line in text.lines() {
        let path = line.splitn(3, ':').nth(2).unwrap_or("");
        // v2's line is there even where v2 is not mounted.
        if path != expected && !(line.starts_with("0::") && ctx.layout == Layout::V1) {
            bail!("{line} is not in {expected}");
        }
    }
    ensure!(scratch.0.pids()? == [process.pid()]);
    Ok(())
}

fn memory_limit_kills(ctx: &Ctx) -> Result<()> {
    let scratch = Scratch::new(ctx, "memory")?;
    scratch.0.apply(&Limits {
        memory: Some(parse::memory("32m")?),
        memory_swap: scratch.0.accounts_swap().then_some(32 << 20),
        ..Limits::default()
    })?;
    let workload = ctx.workload()?;
    let mut process = held(&format!("exec {} alloc 96m", workload.display()))?;
    scratch.0.attach(process.pid())?;
    process.write_line("go")?;
    process.wait(TIMEOUT)?.expect(137)?;
    let events = scratch.read(ctx, "memory.oom_control", "memory.events")?;
    ensure!(
        events.lines().any(|line| line == "oom_kill 1"),
        "the kernel counts: {events}"
    );
    ensure!(scratch.0.stats()?.memory_oom_kills == Some(1));
    Ok(())
}

fn kill_ends_a_fork_storm(ctx: &Ctx) -> Result<()> {
    let scratch = Scratch::new(ctx, "storm")?;
    scratch.0.apply(&Limits {
        pids: Some(64),
        ..Limits::default()
    })?;
    let mut process = held("while :; do (sleep 0.01; sleep 60) & done 2>/dev/null")?;
    scratch.0.attach(process.pid())?;
    process.write_line("go")?;
    wait_until("a dozen processes", TIMEOUT, || {
        Ok(scratch.0.pids()?.len() > 12)
    })?;
    scratch.0.kill()?;
    ensure!(scratch.0.pids()?.is_empty());
    process.wait(TIMEOUT)?.expect(137)?;
    scratch.0.remove()?;
    ensure!(scratch.0.v1_dirs().iter().all(|dir| !dir.exists()));
    Ok(())
}

/// On hybrid hosts only v1 knows this process then, so `cgroup.kill` cannot reach it.
fn kill_reaches_what_left_v2(ctx: &Ctx) -> Result<()> {
    let scratch = Scratch::new(ctx, "away")?;
    let process = held("true")?;
    scratch.0.attach(process.pid())?;
    if ctx.layout == Layout::Hybrid {
        let unified = Hierarchies::discover()?
            .unified()
            .map(PathBuf::from)
            .context("a hybrid host has v2")?;
        fs::write(unified.join("cgroup.procs"), process.pid().to_string())?;
    }
    scratch.0.kill()?;
    process.wait(TIMEOUT)?.expect(137)?;
    Ok(())
}

fn refusals_name_the_cause(ctx: &Ctx) -> Result<()> {
    let scratch = Scratch::new(ctx, "refused")?;
    let again = Cgroup::create(&Hierarchies::discover()?, scratch.0.path());
    ensure!(
        again.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EEXIST)),
        "a second cgroup of the same path"
    );
    let absent = scratch.0.apply(&Limits {
        cpuset_cpus: Some("0-4095".to_owned()),
        ..Limits::default()
    });
    ensure!(matches!(absent, Err(Error::Limit { .. })), "{absent:?}");
    if ctx.layout != Layout::V2 {
        // v2 reclaims and kills instead of refusing.
        let workload = ctx.workload()?;
        let mut process = held(&format!("exec {} alloc 32m 60", workload.display()))?;
        scratch.0.attach(process.pid())?;
        process.write_line("go")?;
        wait_until("32 MiB in use", TIMEOUT, || {
            Ok(process.stdout().contains("allocated"))
        })?;
        let below = scratch.0.apply(&Limits {
            memory: Some(1 << 20),
            ..Limits::default()
        });
        ensure!(
            matches!(below, Err(Error::BelowUse { usage, .. }) if usage > 32 << 20),
            "{below:?}"
        );
    }
    Ok(())
}
