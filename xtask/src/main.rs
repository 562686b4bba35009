//! Set-up, build, run and test of paddock: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod build;
mod cmd;
mod tree;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::tree::Tree;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Set-up, build, run and test of paddock")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Boot a Debian kernel in QEMU with paddock's binaries in it
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = Tree::find().and_then(|tree| match cli.task {
        Task::Vm(args) => vm::main(&tree, &args),
    });
    match done {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
