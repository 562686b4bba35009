//! The kernel half over the agents' lives: nothing is missed or counted twice while one agent
//! follows another, of the same build or of another, and nothing stays when it is unloaded.
//!
//! Programs of another build are stood in for by `--debug-programs`: other instructions on the
//! same hooks over the same maps. What it does not show is a build whose maps differ, which
//! begins anew (docs/adr/0016).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::MapError,
    programs::{ProgramError, ProgramInfo},
    sys::SyscallError,
};

use super::{able, calls, container_closes, of_container};
use crate::{
    context::{Context, eventually},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "kernel::agent_killed_twenty_times",
        agent_killed_twenty_times,
    )
    .alone(),
    Scenario::new("kernel::upgrade_has_no_gap", upgrade_has_no_gap).alone(),
    Scenario::new(
        "kernel::killed_while_it_takes_over",
        killed_while_it_takes_over,
    )
    .alone(),
    Scenario::new(
        "kernel::leftovers_of_another_kind",
        leftovers_of_another_kind,
    )
    .alone(),
    Scenario::new("kernel::unload_leaves_nothing", unload_leaves_nothing).alone(),
];

/// Two containers that never rest: one calls unshare, one runs programs.
struct Restless<'a> {
    context: &'a Context,
    flags: PathBuf,
    /// Records of the second one before its first program.
    before: f64,
}

impl<'a> Restless<'a> {
    fn start(context: &'a Context) -> Result<Self> {
        let flags = context.state.with_extension("flags");
        fs::create_dir_all(&flags)?;
        let (volume, flag) = (
            context.workload_volume(),
            format!("{}:/flags", flags.display()),
        );
        for (name, command) in [
            ("caller", &["unshare-until", "/flags/end", "uts"][..]),
            (
                "spawner",
                &["spawn-between", "/flags/start", "/flags/end", "/bin/true"],
            ),
        ] {
            let mut args = able(name, &[&volume, &flag]);
            args.insert(1, "-d");
            args.push("/run/workload");
            args.extend(command);
            context.ok(&args)?;
        }
        // Its own exec is told by now: `run -d` returns after it.
        let before = of_container(&context.metrics()?, "spawner", "seen");
        fs::write(flags.join("start"), "")?;
        Ok(Self {
            context,
            flags,
            before,
        })
    }

    /// Each one's own count, against what the kernel half has.
    fn check(self) -> Result<()> {
        fs::write(self.flags.join("end"), "")?;
        let own = |name: &str| -> Result<u64> {
            eventually("it tells its count", || {
                Ok(self.context.ok(&["logs", name])?.contains("calls"))
            })?;
            let said = self.context.ok(&["logs", name])?;
            let (calls, rest) = said.trim().split_once(' ').context("no count")?;
            ensure!(rest == "calls, 0 refused", "{said}");
            Ok(calls.parse()?)
        };
        let (called, spawned) = (own("caller")?, own("spawner")?);
        let metrics = self.context.metrics()?;
        let counted = calls(&metrics, "caller", "unshare", "uts", "allowed");
        same("unshare", counted, called)?;
        // Each program is an exec and an exit.
        let told = of_container(&metrics, "spawner", "seen") - self.before;
        same("execs and exits", told, 2 * spawned)?;
        for name in ["caller", "spawner"] {
            ensure!(container_closes(&metrics, name), "{name}: {}", metrics.0);
        }
        ensure!(called > 1000 && spawned > 20, "{called} and {spawned} only");
        println!("    {called} calls, {spawned} programs");
        Ok(())
    }
}

impl Drop for Restless<'_> {
    fn drop(&mut self) {
        // Also for a scenario that failed: they would never end.
        let _ = fs::write(self.flags.join("end"), "");
        let _ = fs::remove_dir_all(&self.flags);
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn same(what: &str, saw: f64, want: u64) -> Result<()> {
    ensure!(
        (saw - want as f64).abs() < 0.5,
        "{what}: {saw} instead of {want}"
    );
    Ok(())
}

fn agent_killed_twenty_times(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let restless = Restless::start(context)?;
    for _ in 0..20 {
        context.kill_agent()?;
        context.start_agent(&[])?;
    }
    restless.check()
}

/// Other programs on the same hooks, back and forth.
fn upgrade_has_no_gap(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let restless = Restless::start(context)?;
    for round in 0..2 {
        let before = watching()?;
        context.kill_agent()?;
        ensure!(watching()? == before, "programs went with the agent");
        let other: &[&str] = if round % 2 == 0 {
            &["--debug-programs"]
        } else {
            &[]
        };
        context.start_agent(other)?;
        let after = watching()?;
        // Another agent's may be there, too; those stay.
        let new = without(&after, &before);
        let old = without(&before, &after);
        ensure!(
            new.len() == 3
                && old.len() == 3
                && new.values().sum::<u32>() != old.values().sum::<u32>(),
            "before {before:?}, after {after:?}"
        );
    }
    let log = context.agent_log();
    ensure!(
        !log.contains("anew") && !log.contains("still attached"),
        "{log}"
    );
    restless.check()
}

/// The next one starts over from wherever the last one died.
fn killed_while_it_takes_over(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let restless = Restless::start(context)?;
    context.kill_agent()?;
    for round in 1..=12 {
        let args = [
            "agent",
            "--web.listen-address",
            "127.0.0.1:0",
            "--debug-programs",
        ];
        // Every other one would only adopt.
        let args = if round % 3 == 0 { &args[..3] } else { &args };
        let mut command = context.command(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut agent = command.spawn()?;
        thread::sleep(Duration::from_millis(40 * round));
        agent.kill()?;
        agent.wait()?;
    }
    context.start_agent(&[])?;
    let log = context.agent_log();
    ensure!(
        !log.contains("anew") && !log.contains("still attached"),
        "{log}"
    );
    restless.check()
}

/// Id and translated size of the programs on fork, exec and exit, whose names are cut to the
/// same fifteen bytes.
fn watching() -> Result<BTreeMap<u32, u32>> {
    let mut found = BTreeMap::new();
    for info in loaded()? {
        if info.name_as_str() == Some("btf_sched_proce") {
            found.insert(info.id(), info.size_translated().unwrap_or_default());
        }
    }
    Ok(found)
}

fn without(all: &BTreeMap<u32, u32>, others: &BTreeMap<u32, u32>) -> BTreeMap<u32, u32> {
    let rest = all.iter().filter(|(id, _)| !others.contains_key(id));
    rest.map(|(id, size)| (*id, *size)).collect()
}

/// A manifest cut short is no reason for a gap; maps of another form are one to begin anew.
fn leftovers_of_another_kind(context: &Context) -> Result<()> {
    context.start_agent(&[])?;
    let restless = Restless::start(context)?;
    context.kill_agent()?;
    let manifest = context.state.join("bpf.json");
    let whole = fs::read(&manifest)?;
    fs::write(&manifest, &whole[..whole.len() / 2])?;
    context.start_agent(&[])?;
    restless.check()?;
    context.kill_agent()?;
    fs::remove_file(context.state.join("bpf/map_BUCKETS"))?;
    fs::remove_file(&manifest)?;
    context.start_agent(&["--detach-on-exit"])?;
    let log = context.agent_log();
    ensure!(
        log.contains("counts begin anew: no map BUCKETS is pinned"),
        "{log}"
    );
    let volume = context.workload_volume();
    let mut args = able("after", &[&volume]);
    args.extend(["/run/workload", "unshare-loop", "uts", "41"]);
    context.ok(&args)?;
    let counted = calls(&context.metrics()?, "after", "unshare", "uts", "allowed");
    same("unshare", counted, 41)
}

/// By the kernel's own lists, after an agent that was killed in the middle of its work.
fn unload_leaves_nothing(context: &Context) -> Result<()> {
    let (programs, maps) = (programs()?, maps()?);
    context.start_agent(&[])?;
    context.ok(&["run", "-d", "--name", "one", "host", "sleep", "60"])?;
    context.ok(&["rm", "-f", "one"])?;
    context.kill_agent()?;
    ensure!(
        self::programs()?.len() > programs.len() + 5 && self::maps()?.len() > maps.len() + 5,
        "nothing is there to unload"
    );
    context.ok(&["unload"])?;
    eventually("programs and maps go", || {
        Ok(self::programs()?.is_subset(&programs) && self::maps()?.is_subset(&maps))
    })?;
    // One that ended well leaves its programs, too.
    context.start_agent(&[])?;
    context.stop_agent()?;
    ensure!(
        self::programs()?.len() > programs.len() + 5,
        "it took them along"
    );
    context.ok(&["unload"])?;
    eventually("programs and maps go", || {
        Ok(self::programs()?.is_subset(&programs) && self::maps()?.is_subset(&maps))
    })?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let state = context.state.display().to_string();
    ensure!(!mounts.contains(&state), "a mount is left: {mounts}");
    for name in ["bpf", "bpf.json", "lock"] {
        ensure!(!context.state.join(name).exists(), "{name} is left");
    }
    Ok(())
}

fn programs() -> Result<BTreeSet<u32>> {
    Ok(loaded()?.iter().map(ProgramInfo::id).collect())
}

fn loaded() -> Result<Vec<ProgramInfo>> {
    let mut all = Vec::new();
    for info in aya::programs::loaded_programs() {
        match info {
            Ok(info) => all.push(info),
            // It went between its number and a descriptor for it.
            Err(ProgramError::SyscallError(error)) if is_gone(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

fn maps() -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for info in aya::maps::loaded_maps() {
        match info {
            Ok(info) => {
                ids.insert(info.id());
            }
            Err(MapError::SyscallError(error)) if is_gone(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ids)
}

fn is_gone(error: &SyscallError) -> bool {
    error.io_error.kind() == std::io::ErrorKind::NotFound
}
