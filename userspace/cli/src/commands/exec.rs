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
#[command(after_help = "Examples:\n  \
    paddock exec web cat /etc/hostname\n  \
    paddock exec -it -u 1000 web sh\n  \
    paddock exec --type net web ss -ltn    # a program of the host's")]
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
    /// Join only these namespaces: cgroup, ipc, mnt, net, pid, time, user, uts (default: all)
    ///
    /// Those left out are the host's, and the container can reach through the program what is in
    /// them. Capabilities, seccomp filter, limits and cgroup stay the container's.
    ///
    /// With mnt, pid and user have to be joined too: the program is the container's.
    ///
    /// Without mnt, the program, its directory (default: /) and terminal are the host's. It runs as the host's root
    /// with the container's capabilities, which then count in the host's user namespace, and
    /// without the container's variables and user. user must be left out, and the container must
    /// have a user namespace of its own: else it could trace the program and reach the host's
    /// files.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = super::ns::kind)]
    types: Vec<String>,
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
            types: self.types.clone(),
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
            End::Failed(failed)
                if failed.exit_code == i32::from(exit::NOT_FOUND) && self.is_hosts() =>
            {
                let line = format!(
                    "{}: {command}: command not found on the host (exit {})",
                    self.name,
                    exit::NOT_FOUND
                );
                Err(exit::Coded::new(exit::NOT_FOUND, line).into())
            }
            End::Failed(failed) => Err(attach::failed(&self.name, command, &failed).into()),
            End::ReaderLeft => Ok(exit::BROKEN_PIPE),
            End::Detached => Ok(0),
            End::MonitorGone => Err(attach::monitor_gone(&self.name)),
        }
    }

    /// Whether the program is one of the host's.
    fn is_hosts(&self) -> bool {
        !self.types.is_empty() && !self.types.iter().any(|one| one == "mnt")
    }
}
