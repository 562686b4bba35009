//! `paddock-scenarios [--list | --share N/M | FILTER]`: as root, with PADDOCK_BIN and
//! PADDOCK_WORKLOAD set. `--share 1/2`: all that asks the kernel half, and every other of the rest.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};
use paddock_tests::{runner, scenarios};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let filter = args.next().unwrap_or_default();
    let mut all = scenarios::all();
    if filter == "--list" {
        for scenario in &all {
            println!("{}", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    if let Err(error) = mind_signals() {
        eprintln!("paddock-scenarios: {error:#}");
        return ExitCode::FAILURE;
    }
    let ran = if filter == "--share" {
        let Some((which, of)) = args.next().as_deref().and_then(share) else {
            eprintln!("paddock-scenarios: --share is N/M, such as 1/2");
            return ExitCode::FAILURE;
        };
        all = scenarios::share(all, which, of);
        runner::run(&all, "")
    } else {
        runner::run(&all, &filter)
    };
    if ran {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Which of how many, from 1.
fn share(text: &str) -> Option<(usize, usize)> {
    let (which, of) = text.split_once('/')?;
    let (which, of) = (which.parse().ok()?, of.parse().ok()?);
    (1..=of).contains(&which).then_some((which, of))
}

/// Below `nohup` or a shell's `&`, signals are ignored, in what scenarios start too. A handler
/// is not inherited: exec makes it the default action again.
fn mind_signals() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").context("read own status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(mask.context("no SigIgn")?.trim(), 16)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _entered = runtime.enter();
    for kind in [
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::quit(),
    ] {
        if mask & (1 << (kind.as_raw_value() - 1)) != 0 {
            // The handler outlives what would tell of the signals.
            drop(signal(kind).context("take a signal")?);
        }
    }
    Ok(())
}
