//! The `paddock` binary: the command line, and by `argv[0]` the launcher's zygote or the OCI
//! runtime.
//!
//! Works wherever the other crates do. A failure is one line on stderr and an exit code by
//! docker's rules (see [`exit`]).
#![forbid(unsafe_code)]

mod args;
mod attach;
mod client;
mod commands;
mod complete;
mod config;
mod ephemeral;
mod exit;
mod human;
#[cfg(test)]
mod man;
mod output;
mod table;
mod times;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: the zygote is to stay small, single-threaded and free of clap.
    if std::env::args_os()
        .next()
        .is_some_and(|name| name == paddock_runtime::zygote::ARGV0)
    {
        paddock_runtime::zygote::serve();
    }
    if std::env::args_os()
        .next()
        .is_some_and(|name| name == paddock_agent::canary::ARGV0)
    {
        return if paddock_agent::canary::perform(std::env::args_os().skip(1)) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    // Single-threaded too, and with a command line of its own.
    let mut words: Vec<_> = std::env::args_os().collect();
    if words
        .first()
        .is_some_and(|name| paddock_oci::is_called_by(name))
    {
        return paddock_oci::main(&words.split_off(1));
    }
    if words.get(1).is_some_and(|word| word == "oci") {
        return paddock_oci::main(&words.split_off(2));
    }
    if let Some(code) = complete::answer() {
        return code;
    }
    let args = match args::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let (verbose, fallback) = (args.is_verbose(), args.failure_code());
    match commands::dispatch(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit::report(&error, verbose, fallback),
    }
}
