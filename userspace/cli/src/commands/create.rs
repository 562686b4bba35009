//! `paddock create`: a container as `run` makes it, not started.

use super::{Context, run::Recipe};
use crate::output::print;

/// Make a container and print its id; `start` runs it
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    override_usage = "paddock create [OPTIONS] IMAGE [COMMAND [ARG]...]",
    after_help = "Example:\n  \
        paddock create --name job --memory 256m host make test\n  \
        paddock start -a job"
)]
pub(crate) struct Create {
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
    #[command(flatten)]
    recipe: Recipe,
}

impl Create {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let created = self.recipe.create(context, false, false)?;
        print(&format!("{}\n", created.id))?;
        Ok(0)
    }
}
