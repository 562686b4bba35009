//! `paddock images` and `paddock pull`: what is in the store, and how it comes and goes.
//!
//! The work is done in this process, not in the agent's: images are hostile input, and need no
//! agent (docs/adr/0008).

mod import;
mod interrupt;
mod ls;
mod progress;
mod pull;
mod rm;

use paddock_images::{Limits, Pulled, Reference, Registries, Store};

use self::progress::Bars;
pub(crate) use self::pull::Pull;
use super::Context;

/// List, get, make and remove images
#[derive(Debug, clap::Args)]
pub(crate) struct Images {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    ls: ls::Ls,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Ls(ls::Ls),
    Pull(Pull),
    Import(import::Import),
    Rm(rm::Rm),
}

impl Images {
    /// Without a word more it lists, as docker's does.
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        match &self.command {
            None => self.ls.run(context),
            Some(Command::Ls(command)) => command.run(context),
            Some(Command::Pull(command)) => command.run(context),
            Some(Command::Import(command)) => command.run(context),
            Some(Command::Rm(command)) => command.run(context),
        }
    }
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct LimitFlags {
    /// Most bytes that the image may have, unpacked (default: 64g)
    #[arg(long, value_name = "BYTES", value_parser = size)]
    max_size: Option<u64>,
    /// Most files and directories that it may have (default: 4000000)
    #[arg(long, value_name = "NUMBER")]
    max_entries: Option<u64>,
}

fn size(text: &str) -> Result<u64, String> {
    paddock_cgroups::parse::size(text).map_err(|error| error.reason)
}

impl LimitFlags {
    fn limits(self) -> Limits {
        let default = Limits::default();
        Limits {
            bytes: self.max_size.unwrap_or(default.bytes),
            entries: self.max_entries.unwrap_or(default.entries),
        }
    }
}

/// Pulls with progress on stderr; Ctrl-C ends it and leaves nothing.
pub(crate) fn fetch(
    context: &Context,
    reference: &Reference,
    registries: Registries,
    limits: Limits,
) -> anyhow::Result<Pulled> {
    let store = Store::at(&context.data_dir);
    interrupt::interruptible(|cancel| {
        paddock_images::pull(&store, reference, registries, limits, &Bars::new(), cancel)
    })
}
