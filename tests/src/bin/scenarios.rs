//! `paddock-scenarios [--list] [FILTER…]`: exit code 0 when all that ran passed.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use paddock_tests::{runner, scenarios};

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).collect();
    let all = scenarios::all();
    if filters.first().is_some_and(|arg| arg == "--list") {
        for scenario in all {
            println!("{}", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    match runner::run(&all, &filters) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("paddock-scenarios: {error:#}");
            ExitCode::FAILURE
        }
    }
}
