//! `paddock-bench-hooks ROUNDS CALLS [CONTAINERS FLOOD]`: what the kernel half costs calls, with
//! the agent attached and without, in turn; with the last two, also what it delivers.
//!
//! Started by `cargo xtask bench hooks`, which also boots it in a guest whose clock counts
//! instructions: there what nobody watches is to cost the same in both columns.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Result, bail};
use paddock_tests::{
    bench::{cost, flood, follow},
    context::Context,
};

/// Events a second, and for how long.
const RATE: u32 = 10_000;
const SECONDS: u32 = 10;

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
    let args: Vec<_> = std::env::args().skip(1).collect();
    let numbers: Vec<u32> = args
        .iter()
        .map(|arg| arg.parse())
        .collect::<Result<_, _>>()?;
    let context = Context::new()?;
    let done = match *numbers.as_slice() {
        [rounds, calls] => cost::table(&context, rounds, calls),
        [rounds, calls, containers, each] => cost::table(&context, rounds, calls)
            .and_then(|()| flood::table(&context, containers, each))
            .and_then(|()| follow::latency(&context, RATE, SECONDS))
            .and_then(|()| follow::delivered(&context, containers * each / 4)),
        _ => bail!("usage: paddock-bench-hooks ROUNDS CALLS [CONTAINERS FLOOD]"),
    };
    let closed = context.close();
    done.and(closed)
}
