//! `paddock-scenarios [--list] [FILTER]`: as root, with PADDOCK_BIN and PADDOCK_WORKLOAD set.

use std::process::ExitCode;

use paddock_tests::{runner, scenarios};

fn main() -> ExitCode {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let all = scenarios::all();
    if filter == "--list" {
        for scenario in &all {
            println!("{}", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    if runner::run(&all, &filter) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
