//! `paddock-bench-enforce ROUNDS CALLS SWAPS`: what a policy in force costs, and a swap.
//!
//! Started by `cargo xtask bench enforce`, which also boots it in guests whose clocks count
//! instructions.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Result, bail};
use paddock_tests::{bench::enforce, context::Context};

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("paddock-bench-enforce: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let numbers: Vec<u32> = std::env::args()
        .skip(1)
        .map(|arg| arg.parse())
        .collect::<Result<_, _>>()?;
    let [rounds, calls, swaps] = *numbers.as_slice() else {
        bail!("usage: paddock-bench-enforce ROUNDS CALLS SWAPS");
    };
    let context = Context::new()?;
    let done = enforce::table(&context, rounds, calls, swaps);
    let closed = context.close();
    done.and(closed)
}
