//! `paddock-demo [--observed] [--once]`, started by `cargo xtask run` and `demo`; PADDOCK_BIN names the binary.

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let once = std::env::args().any(|arg| arg == "--once");
    let Some(bin) = std::env::var_os("PADDOCK_BIN").map(PathBuf::from) else {
        eprintln!("paddock-demo: PADDOCK_BIN is not set: start the demo by `cargo xtask run`");
        return ExitCode::from(125);
    };
    if std::env::args().any(|arg| arg == "--observed") {
        return match paddock_tests::demo::observed::play(once) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("paddock-demo: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match paddock_tests::demo::play(bin, once) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("paddock-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
