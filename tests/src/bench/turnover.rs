//! Many short containers, one after the other, of which every eleventh is killed for its memory and
//! every thirteenth joins a namespace of the host's: what the agent's memory and its series come to,
//! and whether each kill and each escape was told and counted.

use std::{collections::BTreeSet, fs, time::Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::resident;
use crate::{
    context::Context,
    metrics::Metrics,
    scenarios::kernel::{able, host_way},
};

const KILLED: usize = 11;
const ESCAPES: usize = 13;
/// Lines of the table.
const LOOKS: usize = 10;

/// Prints the table; fails where one was not told.
pub fn table(context: &Context, agent: i32, count: usize) -> Result<()> {
    println!(
        "{:>10} {:>8} {:>8} {:>8} {:>6}",
        "containers", "ms each", "RSS MiB", "series", "files"
    );
    let before = kernels_kills()?;
    let (mut killed, mut escaped) = (BTreeSet::new(), BTreeSet::new());
    let mut since = Instant::now();
    let step = count.div_ceil(LOOKS);
    for place in 1..=count {
        let name = format!("short-{place}");
        // One of both kinds is killed.
        if place % KILLED == 0 {
            kill(context, &name)?;
            killed.insert(name);
        } else if place % ESCAPES == 0 {
            escape(context, &name)?;
            escaped.insert(name);
        } else {
            context.ok(&["run", "--rm", "--name", &name, "host", "true"])?;
        }
        if place % step == 0 {
            let took = since.elapsed().as_secs_f64() * 1e3;
            let metrics = context.metrics()?;
            println!(
                "{place:>10} {:>8.1} {:>8.1} {:>8} {:>6}",
                took / f64::from(u32::try_from(step)?),
                resident(agent)?,
                series(&metrics),
                fs::read_dir(format!("/proc/{agent}/fd"))?.count()
            );
            since = Instant::now();
        }
    }
    let by_kernel = kernels_kills()? - before;
    ensure!(
        by_kernel == killed.len(),
        "the kernel killed {by_kernel}, not {}",
        killed.len()
    );
    let told = told(context, &["--kind", "oom_kill"])?;
    ensure!(told == killed, "kills told of others: {}", told.len());
    let told = self::told(context, &["--verdict", "escape"])?;
    ensure!(told == escaped, "escapes told of others: {}", told.len());
    let metrics = context.metrics()?;
    println!(
        "\n{} kills and {} escapes told, each of its container; counted: {} and {}",
        killed.len(),
        escaped.len(),
        metrics.sum("paddock_container_oom_kills_total", &[]),
        metrics.sum("paddock_container_escapes_total", &[("outcome", "allowed")])
    );
    Ok(())
}

fn kill(context: &Context, name: &str) -> Result<()> {
    let output = context.paddock(&[
        "run",
        "--rm",
        "--name",
        name,
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "host",
        "tail",
        "/dev/zero",
    ])?;
    ensure!(output.code == Some(137), "{name}: {output:?}");
    Ok(())
}

fn escape(context: &Context, name: &str) -> Result<()> {
    let (volume, way) = (context.workload_volume(), host_way("uts"));
    let mut args = able(name, &[&volume, &way]);
    args.insert(1, "--rm");
    args.extend(["/run/workload", "setns-loop", "/run/ns", "uts", "1"]);
    context.ok(&args).map(drop)
}

/// Whose events of a kind there are, all that are stored.
fn told(context: &Context, which: &[&str]) -> Result<BTreeSet<String>> {
    let mut args = vec!["events", "--all", "--format", "json"];
    args.extend(which);
    let mut found = BTreeSet::new();
    for line in context.ok(&args)?.lines() {
        let event: Value = serde_json::from_str(line)?;
        let name = event["container"].as_str().context("nobody's")?.to_owned();
        ensure!(found.insert(name), "told twice: {line}");
    }
    Ok(found)
}

fn series(metrics: &Metrics) -> usize {
    let lines = metrics.0.lines();
    lines.filter(|line| !line.starts_with('#')).count()
}

/// Of the whole machine, as it counts them.
fn kernels_kills() -> Result<usize> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .context("no oom_kill")?;
    Ok(count.trim().parse()?)
}
