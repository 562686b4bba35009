//! The runtime alone, without the rest of `paddock`: quick to build while working on it.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    paddock_oci::main(&words)
}
