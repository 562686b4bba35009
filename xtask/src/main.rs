//! Set-up, build, run, lint and test of paddock: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod cmd;
mod dist;
mod lint;
mod man;
mod run;
mod setup;
mod test;
mod tree;
mod verifier;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{setup::Purpose, tree::Tree};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, build, run, lint and test of paddock"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Bring in what building and testing need; does only what is missing
    Setup(setup::Args),
    /// Build the kernel half and the static binaries
    Build,
    /// Build, then play the demo
    Run(run::Args),
    /// Build, then an agent under load with Prometheus and Alertmanager on loopback
    Demo(run::Args),
    /// Format, clippy, licences, alert rules
    Lint {
        /// Only those whose name contains this, such as dashboards
        name: Option<String>,
    },
    /// Lints, unit tests, scenarios on this machine and in guests
    Test(test::Args),
    /// What is handed out: binary, Debian package, bill of materials, in target/dist
    Dist(dist::Args),
    /// Measurements, side by side in one run
    Bench(bench::Args),
    /// What each kernel's verifier takes for each program, against tests/verifier.toml
    Verifier(verifier::Args),
    /// Write the manual pages, one a command, into target/man or another directory
    Man(man::Args),
    /// Boot a Debian kernel in QEMU with paddock's binaries in it
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = Tree::find().and_then(|tree| match cli.task {
        Task::Setup(args) => setup::main(&tree, &args).map(|()| 0),
        Task::Build => build::main(&tree).map(|()| 0),
        Task::Run(args) => run::main(&tree, &args).map(|()| 0),
        Task::Demo(args) => run::observed(&tree, &args).map(|()| 0),
        Task::Lint { name } => setup::prepare(&tree, Purpose::Test).and_then(|toolchain| {
            build::kernel_half(&tree, &toolchain)?;
            lint::named(&tree, &toolchain, name.as_deref().unwrap_or_default()).map(|()| 0)
        }),
        Task::Test(args) => test::main(&tree, &args),
        Task::Dist(args) => dist::main(&tree, &args).map(|()| 0),
        Task::Bench(args) => bench::main(&tree, &args),
        Task::Verifier(args) => verifier::main(&tree, &args),
        Task::Man(args) => man::main(&tree, &args).map(|()| 0),
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
