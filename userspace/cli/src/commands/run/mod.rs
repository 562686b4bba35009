//! `paddock run`: make a container, start it, stay with it (or not, with `-d`).
//!
//! Exit codes are docker's: the workload's own, 128 + signal, 127 and 126 for a command that is
//! not there or cannot be executed, 125 for everything before.

mod flags;
mod image;
mod options;
mod request;
mod victim;

use paddock_agent::api::{Created, Root, StartedReply};

use self::{
    flags::{Fetch, Image},
    options::{FileFlags, NamespaceFlags, ProcessFlags},
    victim::Victim,
};
pub(crate) use self::{
    flags::{variable, workdir},
    request::environment,
};
use super::{Context, limits::LimitFlags};
use crate::{
    attach::{self, Attach, End, Mode},
    client::{Client, Error, container_path},
    exit,
    output::print,
};

/// Run a program in a container
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    override_usage = "paddock run [OPTIONS] IMAGE [COMMAND [ARG]...]",
    after_help = "Examples:\n  \
        paddock run --rm --memory 256m --cpus 0.5 host make test\n  \
        paddock run -d --name web -v /srv:/srv:ro nginx\n  \
        paddock run --rm -it ./rootfs sh\n  \
        paddock run --rm -it host bash"
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Run {
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
    /// Print help, rare options too
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help_all: Option<bool>,

    /// Name to call it by (default: made up)
    #[arg(long)]
    name: Option<String>,
    /// Remove it when it ends
    #[arg(long)]
    rm: bool,
    /// Run in the background and print its id
    #[arg(short, long)]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Label to find it by
    #[arg(short, long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<String>,

    /// Fetch the image also when it is here, or not at all
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "always|missing|never",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pull: Fetch,

    /// An image's name; 'host' (the host's files, changes are thrown away); or the path of a root
    /// file system
    #[arg(value_parser = flags::image)]
    image: Image,
    /// What to run in it (default: the image's own, else /bin/sh)
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,

    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    process: ProcessFlags,
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    namespaces: NamespaceFlags,
}

impl Run {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        if !self.detach {
            attach::check_input(self.interactive, self.tty)?;
        }
        let client = Client::new(&context.state_dir)?;
        let root = self.root(context)?;
        let created = self.create(context, &client, &root)?;
        if self.detach {
            let path = container_path(&created.id, "/start");
            let _: StartedReply = client.post(&path)?;
            print(&format!("{}\n", created.id))?;
            return Ok(0);
        }
        let attach = Attach {
            name: &created.name,
            monitor: &created.monitor_socket,
            terminal: self.tty,
            stdin: self.interactive,
            mode: Mode::Start,
        };
        let pump = attach.ready()?;
        let victim = self
            .limits
            .memory
            .map(|_| Victim::ask(&context.state_dir, &created.id));
        match pump.run()? {
            End::Exited(exit) => {
                let main = victim.is_some_and(|victim| victim.was_main_process(&exit));
                if let Some(line) = attach::out_of_memory(&created.name, &exit, main) {
                    exit::note(&line);
                }
                Ok(exit::from_workload(exit.exit_code))
            }
            End::Failed(failed) => {
                let program = created.command.first().map_or("", String::as_str);
                Err(attach::failed(&created.name, program, &failed).into())
            }
            End::ReaderLeft => Ok(exit::BROKEN_PIPE),
            End::Detached => Ok(0),
            End::MonitorGone => Err(attach::monitor_gone(&created.name)),
        }
    }

    /// An agent that is about to end can take the connection and not the request: asked twice.
    fn create(&self, context: &Context, client: &Client, root: &Root) -> anyhow::Result<Created> {
        let request = self.request(root.clone());
        context.ensure_agent()?;
        match client.post_json("/v1/containers", &request) {
            Err(Error::NoAgent { .. } | Error::Broken { .. }) => {
                context.ensure_agent()?;
                Ok(client.post_json("/v1/containers", &request)?)
            }
            answer => Ok(answer?),
        }
    }
}
