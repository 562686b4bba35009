//! `paddock-bench-turnover CONTAINERS`: so many short containers, one after the other.
//!
//! Started by `cargo xtask bench turnover`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Result, bail};
use paddock_tests::{bench::turnover, context::Context};

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("paddock-bench-turnover: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [count] = &args[..] else {
        bail!("usage: paddock-bench-turnover CONTAINERS");
    };
    let context = Context::new()?;
    let agent = context.start_agent(&["--detach-on-exit"])?;
    let done = turnover::table(&context, agent, count.parse()?);
    let closed = context.close();
    done.and(closed)
}
