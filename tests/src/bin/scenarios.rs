//! `paddock-scenarios [--list] [FILTER]`: as root, with PADDOCK_BIN and PADDOCK_WORKLOAD set.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};
use paddock_tests::{runner, scenarios};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let all = scenarios::all();
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
    if runner::run(&all, &filter) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
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
