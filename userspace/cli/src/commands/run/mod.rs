//! `paddock run`: make a container, start it, stay with it (or not, with `-d`).
//!
//! Exit codes are docker's: the workload's own, 128 + signal, 127 and 126 for a command that is
//! not there or cannot be executed, 125 for everything before.

mod cidfile;
mod env_file;
mod flags;
mod image;
mod options;
mod profile;
mod request;

use std::{path::PathBuf, time::Duration};

use paddock_agent::api::{CreateRequest, Created, Profile, StartedReply, WaitReply};
use paddock_runtime::record::Exit;

use self::{
    cidfile::IdFile,
    flags::{Fetch, Image},
    options::{FileFlags, LifeFlags, NamespaceFlags, ProcessFlags},
};
pub(crate) use self::{
    flags::{user, variable, workdir},
    request::environment,
};
use super::{Context, limits::LimitFlags, victim};
use crate::{
    attach::{self, Attach, DetachKeys, End, Mode},
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
        paddock run --rm -it host bash\n  \
        paddock run -d --restart on-failure:5 ./rootfs /bin/server"
)]
pub(crate) struct Run {
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
    /// Print help, rare options too
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help_all: Option<bool>,
    /// Run in the background and print its id
    #[arg(short, long)]
    detach: bool,
    /// Keys that detach from its terminal
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::DEFAULT, value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// Tell on stderr each step that was done for it, and when (see docs/guides/how-a-container-starts.md)
    #[arg(long, conflicts_with = "detach")]
    trace_steps: bool,
    #[command(flatten)]
    recipe: Recipe,
}

/// What `run` and `create` make a container from.
#[derive(Debug, clap::Args)]
pub(crate) struct Recipe {
    /// Name to call it by (default: made up)
    #[arg(long)]
    name: Option<String>,
    /// Remove it when it ends
    #[arg(long)]
    rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Label to find it by
    #[arg(short, long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<String>,
    /// Defaults to start from: default, or hardened (see docs/guides/hardened.md)
    #[arg(long, value_name = "default|hardened", value_parser = profile::parse, default_value = "default", hide_default_value = true)]
    profile: Profile,
    /// Write its id to this new file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,

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
    life: LifeFlags,
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
        let recipe = &self.recipe;
        if !self.detach {
            attach::check_input(recipe.interactive, recipe.tty)?;
        }
        let created = recipe.create(context, true, self.trace_steps)?;
        if self.detach {
            let path = container_path(&created.id, "/start");
            let _: StartedReply = Client::new(&context.state_dir)?.post(&path)?;
            print(&format!("{}\n", created.id))?;
            return Ok(0);
        }
        let attach = Attach {
            name: &created.name,
            monitor: &created.monitor_socket,
            terminal: recipe.tty,
            stdin: recipe.interactive,
            mode: Mode::Start,
            keys: &self.detach_keys,
            sig_proxy: true,
        };
        match attach.ready()?.run()? {
            End::Exited(exit) => {
                let victim = victim::line(&context.state_dir, &created.id, &created.name, &exit);
                if let Some(line) = victim {
                    exit::note(&line);
                }
                if recipe.rm {
                    until_removed(context, &created.id, &exit);
                }
                Ok(exit::from_workload(exit.exit_code))
            }
            End::Failed(failed) => {
                let program = created.command.first().map_or("", String::as_str);
                Err(attach::failed(&created.name, program, &failed).into())
            }
            End::ReaderLeft => Ok(exit::BROKEN_PIPE),
            End::Detached => {
                exit::note(&attach::detached(&created.name));
                Ok(0)
            }
            End::MonitorGone => Err(attach::monitor_gone(&created.name)),
        }
    }
}

/// As docker's: then nothing of it is there, and its name is free. The monitor has told of the end,
/// maybe before the agent knows of it, which may also be gone.
fn until_removed(context: &Context, id: &str, exit: &Exit) {
    const PATIENCE: Duration = Duration::from_secs(10);
    let path = container_path(id, &format!("/wait?ended_at_ns={}", exit.finished_at_ns));
    if let Ok(client) = Client::new(&context.state_dir) {
        let _: Result<WaitReply, _> = client.post_within(&path, PATIENCE);
    }
}

impl Recipe {
    /// Makes it; with `prepare`, up to its start; with `trace`, to be told of each step.
    pub(crate) fn create(
        &self,
        context: &Context,
        prepare: bool,
        trace: bool,
    ) -> anyhow::Result<Created> {
        self.check_profile()?;
        let cidfile = self.cidfile.as_deref().map(IdFile::new).transpose()?;
        let created = self.ask(context, prepare, trace)?;
        if let Some(cidfile) = cidfile {
            cidfile.write(&created.id)?;
        }
        Ok(created)
    }

    /// There may be no agent yet, and one that is about to end can take the connection and not
    /// the request: asked again.
    fn ask(&self, context: &Context, prepare: bool, trace: bool) -> anyhow::Result<Created> {
        const TIMES: u32 = 3;
        let client = Client::new(&context.state_dir)?;
        let request = CreateRequest {
            trace,
            ..self.request(self.root(context)?)
        };
        let path = format!("/v1/containers?prepare={prepare}");
        for _ in 1..TIMES {
            match client.post_json(&path, &request) {
                Err(Error::NoAgent { .. } | Error::Broken { .. }) => context.ensure_agent()?,
                answer => return Ok(answer?),
            }
        }
        Ok(client.post_json(&path, &request)?)
    }
}
