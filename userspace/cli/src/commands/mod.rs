//! One command a file; what they share is here.

pub(crate) mod agent;
pub(crate) mod attach;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod create;
mod event_line;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod limits;
pub(crate) mod logs;
pub(crate) mod ns;
pub(crate) mod pause;
pub(crate) mod policy;
pub(crate) mod ps;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod unload;
pub(crate) mod unpause;
pub(crate) mod update;
mod victim;
pub(crate) mod wait;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::{
    args::{Args, Command},
    client::Client,
    ephemeral,
};

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Context {
    /// Absolute.
    pub(crate) state_dir: PathBuf,
    /// Absolute.
    pub(crate) data_dir: PathBuf,
    pub(crate) verbose: bool,
}

impl Context {
    /// A client of the instance's agent. Containers that ended lie on disk, so where there are
    /// some and no agent, one is started for the question.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        if has_containers(&self.state_dir) {
            self.ensure_agent()?;
        }
        Client::new(&self.state_dir)
    }

    /// Returns when an agent listens.
    pub(crate) fn ensure_agent(&self) -> anyhow::Result<()> {
        ephemeral::ensure(&self.state_dir, &self.data_dir)
    }
}

/// Runs the command; its exit code.
pub(crate) fn dispatch(args: Args) -> anyhow::Result<u8> {
    // Sockets, cgroups and the kernel half are root's alone, so this is the one thing to say;
    // policy files and the configuration are read and nothing else.
    let reads_only = match &args.command {
        Command::Policy(policy) => !policy.wants_agent(),
        Command::Config(_) | Command::Completions(_) => true,
        _ => false,
    };
    anyhow::ensure!(
        reads_only || nix::unistd::geteuid().is_root(),
        "not root: run it as root, for instance with sudo"
    );
    let state_dir = std::path::absolute(&args.state_dir)
        .with_context(|| format!("--state-dir {}: no such path", args.state_dir.display()))?;
    let data_dir = std::path::absolute(&args.data_dir)
        .with_context(|| format!("--data-dir {}: no such path", args.data_dir.display()))?;
    let context = Context {
        state_dir,
        data_dir,
        verbose: args.is_verbose(),
    };
    match args.command {
        Command::Run(command) => command.run(&context),
        Command::Create(command) => command.run(&context),
        Command::Start(command) => command.run(&context),
        Command::Attach(command) => command.run(&context),
        Command::Restart(command) => command.run(&context),
        Command::Ps(command) => command.run(&context),
        Command::Stats(command) => command.run(&context),
        Command::Top(command) => command.run(&context),
        Command::Logs(command) => command.run(&context),
        Command::Exec(command) => command.run(&context),
        Command::Stop(command) => command.run(&context),
        Command::Kill(command) => command.run(&context),
        Command::Wait(command) => command.run(&context),
        Command::Rm(command) => command.run(&context),
        Command::Pause(command) => command.run(&context),
        Command::Unpause(command) => command.run(&context),
        Command::Update(command) => command.run(&context),
        Command::Images(command) => command.run(&context),
        Command::Pull(command) => command.run(&context),
        Command::Inspect(command) => command.run(&context),
        Command::Events(command) => command.run(&context),
        Command::Ns(command) => command.run(&context),
        Command::Check(command) => command.run(&context),
        Command::Policy(command) => command.run(&context.state_dir),
        Command::Agent(command) => command.run(&context),
        Command::Config(command) => command.run(),
        Command::Unload(command) => command.run(&context),
        Command::Completions(command) => command.run(),
    }
}

/// Does `action` for each name, prints the name of each that worked, reports each that did not,
/// and goes on: docker's way for `stop`, `kill`, `rm`.
pub(crate) fn for_each(
    context: &Context,
    names: &[String],
    mut action: impl FnMut(&Client, &str) -> anyhow::Result<String>,
) -> anyhow::Result<u8> {
    let client = context.client()?;
    let mut code = 0;
    for name in names {
        match action(&client, name) {
            Ok(text) => crate::output::print(&format!("{text}\n"))?,
            Err(error) => {
                // The code is the same for every failure here.
                let _ = crate::exit::report(&error, context.verbose, crate::exit::FAILURE);
                code = crate::exit::FAILURE;
            }
        }
    }
    Ok(code)
}

fn has_containers(state_dir: &Path) -> bool {
    std::fs::read_dir(state_dir.join("containers"))
        .is_ok_and(|mut entries| entries.next().is_some())
}
