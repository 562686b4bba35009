//! `paddock-bench-hooks ROUNDS CALLS`: what the kernel half costs a syscall that nobody
//! watches: getppid in a loop, with the agent attached and without, in turn.
//!
//! Started by `cargo xtask bench hooks`, which also boots it in a guest whose clock counts
//! instructions: there the two columns are to be equal.
#![forbid(unsafe_code)]

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use paddock_tests::context::{Context, finish};

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("paddock-bench-hooks: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let rounds: u32 = args
        .next()
        .context("usage: paddock-bench-hooks ROUNDS CALLS")?
        .parse()?;
    let calls = args
        .next()
        .context("usage: paddock-bench-hooks ROUNDS CALLS")?;
    let context = Context::new()?;
    // The machine settles: some kernels patch and calibrate in their first second.
    measure(&context, &calls)?;
    let (mut without, mut with, mut rung) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..rounds {
        without.push(measure(&context, &calls)?);
        context.start_agent(&["--detach-on-exit"])?;
        rung = rung_of(&context)?;
        with.push(measure(&context, &calls)?);
        context.stop_agent()?;
    }
    let (without, with) = (median(without), median(with));
    println!("rung    without ns  with ns  difference ns  ratio");
    println!(
        "{rung:<10} {without:>7.1}  {with:>7.1}  {:>13.1}  {:.4}",
        with - without,
        with / without
    );
    context.close()
}

/// Nanoseconds a call.
fn measure(context: &Context, calls: &str) -> Result<f64> {
    let mut command = Command::new(&context.workload);
    let output = finish(command.args(["getppid-loop", calls]).stdin(Stdio::null()))?;
    output
        .stdout
        .trim()
        .parse()
        .with_context(|| format!("{output:?}"))
}

fn rung_of(context: &Context) -> Result<String> {
    let report = context.json(&["check", "--format", "json"])?;
    let all = report["capabilities"]
        .as_array()
        .context("no capabilities")?;
    let setns = all
        .iter()
        .find(|one| one["capability"] == "setns")
        .context("no setns")?;
    Ok(setns["rung"].as_str().unwrap_or("off").to_owned())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
