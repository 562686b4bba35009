//! `paddock start`: run a container again, or for the first time; attached with `-a`.

use paddock_agent::api::{ContainerDetail, Created, StartedReply, State};

use super::{Context, attach, for_each};
use crate::{
    attach::{Attach, DetachKeys, Mode, check_input},
    client::container_path,
};

/// Start containers that were created or have ended
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  paddock start web db\n  paddock start -a job")]
pub(crate) struct Start {
    /// Show its output and end as it does; one container
    #[arg(short, long)]
    attach: bool,
    /// Pass standard input on, if it was made with -i; with --attach
    #[arg(short, long)]
    interactive: bool,
    /// Keys that detach from its terminal
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::DEFAULT, value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Start {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        if !self.attach && !self.interactive {
            return for_each(context, &self.names, |client, name| {
                let _: StartedReply = client.post(&container_path(name, "/start"))?;
                Ok(name.to_owned())
            });
        }
        let [name] = &self.names[..] else {
            anyhow::bail!("-a and -i take one container: it is the one that is shown here");
        };
        let client = context.client()?;
        let detail: ContainerDetail = client.get(&container_path(name, ""))?;
        let request = detail.request.as_ref();
        let stdin = self.interactive && request.is_some_and(|request| request.stdin);
        let terminal = request.is_some_and(|request| request.terminal);
        check_input(stdin, terminal)?;
        let running = detail.summary.state == State::Running;
        let monitor = if running {
            attach::monitor(context, &detail)
        } else {
            let created: Created = client.post(&container_path(name, "/prepare"))?;
            created.monitor_socket
        };
        let to = Attach {
            name: &detail.summary.name,
            monitor: &monitor,
            terminal,
            stdin,
            mode: if running { Mode::Join } else { Mode::Start },
            keys: &self.detach_keys,
            sig_proxy: true,
        };
        attach::stay(context, &detail, to)
    }
}
