//! What `cargo xtask bench hooks` and `enforce` measure, a table each.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::context::{Context, finish};

pub mod cost;
pub mod enforce;
pub mod flood;
pub mod follow;

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
