//! What the measuring programs of `cargo xtask bench` share, and the tables of hooks and enforce.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::context::{Context, finish};

pub mod cost;
pub mod enforce;
pub mod flood;
pub mod follow;
pub mod turnover;

/// `run -d` of the workload, able to unshare.
fn launch(context: &Context, name: &str, command: &[&str]) -> Result<()> {
    let volume = context.workload_volume();
    let mut args = vec!["run", "-d", "--name", name, "--userns", "host"];
    args.extend(["--cap-add", "SYS_ADMIN", "-v", &volume]);
    args.extend(["host", "/run/workload"]);
    args.extend(command);
    context.ok(&args)?;
    Ok(())
}

/// Waits for its end; what it said.
fn ended(context: &Context, name: &str) -> Result<String> {
    ensure!(context.ok(&["wait", name])?.trim() == "0", "{name} failed");
    Ok(context.ok(&["logs", name])?.trim().to_owned())
}

/// One number on stdout.
fn number(command: &mut Command) -> Result<f64> {
    let output = finish(command.stdin(Stdio::null()))?;
    output
        .stdout
        .trim()
        .parse()
        .with_context(|| format!("{output:?}"))
}

/// The value that `part` of all are not above; NaN of none.
fn quantile(values: &mut [f64], thousandths: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len() * thousandths / 1000).min(values.len().saturating_sub(1));
    values.get(place).copied().unwrap_or(f64::NAN)
}

/// MiB of memory that a process has.
pub fn resident(pid: i32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut lines = status.lines();
    let kib = lines.find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = kib.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}
