//! What each kernel gives: the tables `tests/kernels.toml` and `tests/verifier.toml` against
//! what `paddock check` finds out by trying.
//!
//! A host that nobody
//! has written down is held to what holds anywhere: what does not serve says why.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::kernel::{able, calls, equal};
use crate::{
    context::{Context, eventually},
    kernels::{is_guest, release, release_numbers, section},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "portability::rungs_are_those_of_the_table",
        rungs_are_those_of_the_table,
    )
    .alone(),
    Scenario::new(
        "portability::verifier_takes_what_it_took",
        verifier_takes_what_it_took,
    )
    .alone(),
    Scenario::new(
        "portability::memory_is_named_and_bounded",
        memory_is_named_and_bounded,
    )
    .alone(),
    Scenario::new(
        "portability::lowest_rung_and_a_successor",
        lowest_rung_and_a_successor,
    )
    .alone(),
];

const KERNELS: &str = include_str!("../../kernels.toml");
const VERIFIER: &str = include_str!("../../verifier.toml");
/// By default, of all maps and rings.
const MEMORY: u64 = 32 << 20;
/// Linux 5.10 counts what hash maps could hold.
const MEMORY_IF_FULL: u64 = 48 << 20;
/// The verifier gives up at this.
const STEPS: u64 = 1_000_000;

/// Capability to its rung and what refused better ones.
type Rungs = BTreeMap<String, String>;

fn rungs_are_those_of_the_table(context: &Context) -> Result<()> {
    let alone = context.json(&["check", "--format", "json"])?;
    context.start_agent(&["--detach-on-exit"])?;
    let agent = context.json(&["check", "--format", "json"])?;
    for report in [&alone, &agent] {
        let found = rungs(report)?;
        let mut tables: BTreeMap<String, Rungs> = toml::from_str(KERNELS)?;
        let mut wanted = tables.remove("default").context("no [default]")?;
        match tables.remove(&section()?) {
            Some(own) => wanted.extend(own),
            None if is_guest() => {}
            None => return says_why(&found),
        }
        let wrong: Vec<String> = found
            .iter()
            .filter(|(name, line)| !wanted.get(*name).is_some_and(|want| fits(line, want)))
            .map(|(name, line)| format!("{name} = {line:?}"))
            .chain(
                wanted
                    .keys()
                    .filter(|name| !found.contains_key(*name))
                    .map(|name| format!("{name} is no capability")),
            )
            .collect();
        ensure!(
            wrong.is_empty(),
            "tests/kernels.toml, [default] or [{:?}]: {}",
            section()?,
            wrong.join("; ")
        );
    }
    Ok(())
}

/// As the table has it: `tracepoint; fentry EPERM`, the reason in place of an errno where
/// there is none.
fn rungs(report: &Value) -> Result<Rungs> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = report["capabilities"].as_array().context("none")?;
    let line = |status: &Value| {
        let refused = status["refused"].as_array().into_iter().flatten();
        let mut words = vec![status["rung"].as_str().unwrap_or("off").to_owned()];
        words.extend(refused.map(|refusal| {
            let why = refusal["errno"].as_str();
            let why = why.map_or_else(|| text(&refusal["reason"]), str::to_owned);
            format!("{} {why}", text(&refusal["rung"]))
        }));
        words.join("; ")
    };
    Ok(all
        .iter()
        .map(|status| (text(&status["capability"]), line(status)))
        .collect())
}

/// A reason may be cut short in the table.
fn fits(found: &str, wanted: &str) -> bool {
    let (found, wanted): (Vec<_>, Vec<_>) =
        (found.split("; ").collect(), wanted.split("; ").collect());
    found.len() == wanted.len()
        && found.first() == wanted.first()
        && found
            .iter()
            .zip(&wanted)
            .all(|(found, wanted)| found.starts_with(wanted))
}

fn says_why(found: &Rungs) -> Result<()> {
    for (name, line) in found {
        ensure!(line != "off" && !line.ends_with(' '), "{name}: {line:?}");
    }
    Ok(())
}

/// `verifier.toml`, as `cargo xtask verifier --update` writes it.
#[derive(Debug, Deserialize)]
struct Verifier {
    /// What compiled the programs then.
    compiler: String,
    #[serde(flatten)]
    kernels: BTreeMap<String, Taken>,
}

/// On one kernel.
#[derive(Debug, Deserialize)]
struct Taken {
    /// `uname -r` of the kernel that said so.
    release: String,
    programs: BTreeMap<String, Outcome>,
}

/// Steps (before 5.16 instructions), or why there are none.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Outcome {
    Taken(u64),
    Refused(String),
}

fn verifier_takes_what_it_took(context: &Context) -> Result<()> {
    let release = release()?;
    let mut table: Verifier = toml::from_str(VERIFIER)?;
    let known = table.kernels.remove(&section()?);
    let compiler = std::env::var("PADDOCK_EBPF_COMPILER").unwrap_or_default();
    let same = known
        .as_ref()
        .is_some_and(|known| known.release == release && table.compiler == compiler);
    let mut wanted = known.map(|known| known.programs);
    let all = context.json(&["check", "--programs", "--format", "json"])?;
    let mut wrong = Vec::new();
    for one in all.as_array().context("no list")? {
        let name = one["program"].as_str().context("no name")?;
        let found = taken(one)?;
        if let Outcome::Taken(steps) = found {
            ensure!(steps < STEPS, "{name}: {steps} steps");
        }
        let Some(wanted) = wanted.as_mut() else {
            continue;
        };
        match wanted.remove(name) {
            Some(want) if want == found || (!same && alike(&want, &found)) => {}
            want => wrong.push(format!("{name}: {found:?} instead of {want:?}")),
        }
    }
    wrong.extend(
        wanted
            .into_iter()
            .flatten()
            .map(|(name, _)| format!("{name} is no program")),
    );
    ensure!(
        wrong.is_empty(),
        "tests/verifier.toml, [{:?}]; `cargo xtask verifier --update` writes it anew: {}",
        section()?,
        wrong.join("; ")
    );
    Ok(())
}

fn taken(one: &Value) -> Result<Outcome> {
    let count = one["steps"].as_u64().or(one["instructions"].as_u64());
    if let Some(count) = count {
        return Ok(Outcome::Taken(count));
    }
    let reason = one["reason"].as_str().context("neither count nor reason")?;
    Ok(Outcome::Refused(match one["errno"].as_str() {
        Some(errno) => format!("{errno}: {reason}"),
        None => reason.to_owned(),
    }))
}

/// By another compiler, or on another release of the same series, as Debian updates both:
/// refused by the same errno, or no more than twice as much.
fn alike(a: &Outcome, b: &Outcome) -> bool {
    let errno = |text: &str| text.split(':').next().map(str::to_owned);
    match (a, b) {
        (Outcome::Taken(a), Outcome::Taken(b)) => *a.max(b) <= 2 * *a.min(b),
        (Outcome::Refused(a), Outcome::Refused(b)) => errno(a) == errno(b),
        _ => false,
    }
}

/// The kernel's own figures by the agent's descriptors are the witness.
fn memory_is_named_and_bounded(context: &Context) -> Result<()> {
    let pid = context.start_agent(&["--detach-on-exit"])?;
    let report = context.json(&["check", "--format", "json"])?;
    let total = report["memory"]["total_bytes"].as_u64().context("total")?;
    let counts_full = fs::read_to_string("/proc/sys/kernel/osrelease")?.starts_with("5.10.");
    let most = if counts_full { MEMORY_IF_FULL } else { MEMORY };
    let maps = report["memory"]["maps"].as_array().context("maps")?;
    let mut named: Vec<u64> = maps
        .iter()
        .filter_map(|map| map["bytes"].as_u64())
        .collect();
    ensure!(
        total == named.iter().sum::<u64>() && total <= most,
        "{total} of {most}: {maps:?}"
    );
    for ring in ["CRITICAL", "EVENTS"] {
        let bytes = maps.iter().find(|map| map["map"] == ring);
        let bytes = bytes.and_then(|map| map["bytes"].as_u64());
        ensure!(
            bytes.is_some_and(|bytes| bytes >= 1 << 18),
            "{ring}: {maps:?}"
        );
    }
    let held = maps_of(pid)?;
    ensure!(held.len() >= 8, "the agent holds {held:?}");
    for (id, bytes) in held {
        let place = named.iter().position(|named| *named == bytes);
        let place = place.with_context(|| format!("map {id} of {bytes} bytes: {maps:?}"))?;
        named.swap_remove(place);
    }
    Ok(())
}

/// Bytes by a map's id, of those that a process has descriptors of.
fn maps_of(pid: i32) -> Result<BTreeMap<u64, u64>> {
    const RING: u64 = 27;
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let number = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        let (Some(id), Some(kind)) = (number("map_id:"), number("map_type:")) else {
            continue;
        };
        let told = number("memlock:").context("no memlock")?;
        let size = number("max_entries:").filter(|_| kind == RING);
        found.insert(id, told.max(size.unwrap_or(0)));
    }
    Ok(found)
}

/// Plain tracepoints serve on every kernel. Their programs go on without an agent where their
/// links can be pinned; before 5.15 they do not, `check` says so, and the next agent hangs the
/// same programs up again: nothing that was counted is lost.
fn lowest_rung_and_a_successor(context: &Context) -> Result<()> {
    let forced = ["setns", "unshare", "clone", "oom"].map(|name| format!("{name}=tracepoint"));
    let mut agent: Vec<&str> = Vec::new();
    for rung in &forced {
        agent.extend(["--force-rung", rung]);
    }
    context.start_agent(&agent)?;
    let pinnable = release_numbers()? >= (5, 15);
    let report = context.json(&["check", "--format", "json"])?;
    for status in report["capabilities"].as_array().context("none")? {
        let name = status["capability"].as_str().unwrap_or_default();
        if forced.contains(&format!("{name}=tracepoint")) {
            ensure!(
                status["rung"] == "tracepoint" && status["caveat"].is_null() == pinnable,
                "{status}"
            );
        }
    }
    let flags = context.state.with_extension("flags");
    fs::create_dir(&flags)?;
    let counted = count_over_a_death(context, &agent, &flags);
    fs::remove_dir_all(&flags)?;
    let want = if pinnable { 29 + 31 + 37 } else { 29 + 37 };
    equal("unshare", counted?, want)
}

/// 29 calls with an agent, 31 without one, 37 with the next.
fn count_over_a_death(context: &Context, agent: &[&str], flags: &Path) -> Result<f64> {
    let workload = context.workload_volume();
    let volume = format!("{}:/flags", flags.display());
    let mut args = able("lowest", &[&workload, &volume]);
    args.insert(1, "-d");
    args.extend([
        "sh",
        "-c",
        "for n in 29 31 37; do until [ -e /flags/$n ]; do sleep 0.1; done; \
         /run/workload unshare-loop uts $n; echo > /flags/$n.done; done; sleep 600",
    ]);
    context.ok(&args)?;
    let turn = |count: u32| {
        fs::write(flags.join(count.to_string()), "")?;
        eventually("a loop", || {
            Ok(flags.join(format!("{count}.done")).exists())
        })
    };
    turn(29)?;
    context.kill_agent()?;
    turn(31)?;
    let mut last = agent.to_vec();
    last.push("--detach-on-exit");
    context.start_agent(&last)?;
    turn(37)?;
    Ok(calls(
        &context.metrics()?,
        "lowest",
        "unshare",
        "uts",
        "allowed",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_may_be_cut_but_no_rung_left_out() {
        let found = "tracepoint; fentry EPERM; kprobe no such thing here";
        assert!(fits(found, "tracepoint; fentry EPERM; kprobe no such"));
        assert!(!fits(found, "tracepoint; fentry EPERM"));
        assert!(!fits(found, "trace; fentry EPERM; kprobe no such"));
        assert!(!fits("off", "tracepoint"));
    }

    #[test]
    fn tables_are_well_formed() {
        let kernels: BTreeMap<String, Rungs> = toml::from_str(KERNELS).unwrap();
        assert!(kernels.contains_key("default"));
        let verifier: Verifier = toml::from_str(VERIFIER).unwrap();
        assert!(
            verifier
                .kernels
                .values()
                .all(|kernel| !kernel.programs.is_empty())
        );
    }

    #[test]
    fn another_release_may_differ_within_bounds() {
        let taken = |count| Outcome::Taken(count);
        let refused = |text: &str| Outcome::Refused(text.to_owned());
        assert!(alike(&taken(1000), &taken(1990)));
        assert!(!alike(&taken(1000), &taken(2200)));
        assert!(alike(&refused("EPERM: a"), &refused("EPERM: b")));
        assert!(!alike(&refused("EPERM: a"), &refused("EINVAL: a")));
        assert!(!alike(&refused("EPERM: a"), &taken(1)));
    }
}
