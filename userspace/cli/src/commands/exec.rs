//! `paddock exec`: one more process in a running container, attached.

use paddock_agent::api::{Created, ExecRequest};

use super::{Context, run::environment};
use crate::{
    attach::{self, Attach, DetachKeys, End, Mode},
    client::container_path,
    exit,
};

/// Run a command in a running container
#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable, or pass one on
    #[arg(short, long = "env", value_name = "KEY[=VALUE]", value_parser = super::run::variable)]
    env: Vec<String>,
    /// Directory to start in
    #[arg(short, long, value_name = "DIR", value_parser = super::run::workdir)]
    workdir: Option<String>,
    /// Keys that detach from its terminal
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::DEFAULT, value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// Who runs it (default: as in the container)
    #[arg(short, long, value_name = "UID[:GID]|NAME[:GROUP]", value_parser = super::run::user, allow_hyphen_values = true)]
    user: Option<String>,
    #[arg(value_name = "NAME")]
    name: String,
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        attach::check_input(self.interactive, self.tty)?;
        let client = context.client()?;
        let request = ExecRequest {
            args: self.command.clone(),
            env: environment(&self.env),
            cwd: self.workdir.clone(),
            user: self.user.clone(),
            terminal: self.tty,
            stdin: self.interactive,
        };
        let created: Created = client.post_json(&container_path(&self.name, "/exec"), &request)?;
        let attach = Attach {
            name: &self.name,
            monitor: &created.monitor_socket,
            terminal: self.tty,
            stdin: self.interactive,
            mode: Mode::Start,
            keys: &self.detach_keys,
            sig_proxy: true,
        };
        let command = self.command.first().map_or("", String::as_str);
        match attach.ready()?.run()? {
            End::Exited(exit) => Ok(exit::from_workload(exit.exit_code)),
            End::Failed(failed) => Err(attach::failed(&self.name, command, &failed).into()),
            End::ReaderLeft => Ok(exit::BROKEN_PIPE),
            End::Detached => Ok(0),
            End::MonitorGone => Err(attach::monitor_gone(&self.name)),
        }
    }
}
