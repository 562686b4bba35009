//! `paddock-install-test`: the package's steps, in a guest with systemd that is thrown away.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use paddock_tests::{install, runner};

fn main() -> ExitCode {
    if std::env::var_os("PADDOCK_THROWN_AWAY").is_none() {
        eprintln!(
            "paddock-install-test: installs and purges packages; run it by `cargo xtask test`"
        );
        return ExitCode::FAILURE;
    }
    if runner::in_order(install::STEPS) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
