//! `paddock attach`: this terminal, or these pipes, with a container that runs.

use std::path::PathBuf;

use paddock_agent::api::{ContainerDetail, Origin, State};

use super::{Context, victim};
use crate::{
    attach::{self, DetachKeys, End, Mode},
    client::container_path,
    exit,
};

/// Join a running container: its output here, this input there
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  paddock attach shell       # ctrl-p ctrl-q leaves it running")]
pub(crate) struct Attach {
    /// Keys that detach from its terminal
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::DEFAULT, value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// Only show its output
    #[arg(long)]
    no_stdin: bool,
    /// Signals go to it, unless it has a terminal; with =false they end the attaching
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    sig_proxy: bool,
    #[arg(value_name = "NAME")]
    name: String,
}

impl Attach {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let client = context.client()?;
        let detail: ContainerDetail = client.get(&container_path(&self.name, ""))?;
        let container = &detail.summary;
        anyhow::ensure!(
            container.origin == Origin::Launched,
            "{} was not started by paddock: ask what started it",
            container.name
        );
        anyhow::ensure!(
            container.state == State::Running,
            "{} does not run: `paddock start -a {}` starts it",
            container.name,
            container.name
        );
        let request = detail.request.as_ref();
        let stdin = !self.no_stdin && request.is_some_and(|request| request.stdin);
        let terminal = request.is_some_and(|request| request.terminal);
        attach::check_input(stdin, terminal)?;
        let monitor = monitor(context, &detail);
        let to = attach::Attach {
            name: &container.name,
            monitor: &monitor,
            terminal,
            stdin,
            mode: Mode::Join,
            keys: &self.detach_keys,
            sig_proxy: self.sig_proxy && !terminal,
        };
        stay(context, &detail, to)
    }
}

/// Where its monitor listens.
pub(super) fn monitor(context: &Context, detail: &ContainerDetail) -> PathBuf {
    context
        .state_dir
        .join("containers")
        .join(&detail.summary.id)
        .join("monitor.sock")
}

/// Until it ends, or this does; its exit code.
pub(super) fn stay(
    context: &Context,
    detail: &ContainerDetail,
    to: attach::Attach<'_>,
) -> anyhow::Result<u8> {
    let name = to.name;
    match to.ready()?.run()? {
        End::Exited(exit) => {
            let victim = victim::line(&context.state_dir, &detail.summary.id, name, &exit);
            if let Some(line) = victim {
                exit::note(&line);
            }
            Ok(exit::from_workload(exit.exit_code))
        }
        End::Failed(failed) => {
            let program = detail.summary.command.first();
            Err(attach::failed(name, program.map_or("", String::as_str), &failed).into())
        }
        End::ReaderLeft => Ok(exit::BROKEN_PIPE),
        End::Detached => {
            exit::note(&attach::detached(name));
            Ok(0)
        }
        End::MonitorGone => Err(attach::monitor_gone(name)),
    }
}
