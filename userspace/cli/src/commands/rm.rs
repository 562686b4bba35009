//! `paddock rm`: forget containers that ended; with `-f`, end them first.

use hyper::Method;

use super::{Context, for_each};
use crate::client::container_path;

/// Remove containers that ended
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock rm web\n  \
    paddock rm -f web db    # running ones, too")]
pub(crate) struct Rm {
    /// Kill those that still run
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Rm {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        for_each(context, &self.names, |client, name| {
            client.send(
                Method::DELETE,
                &container_path(name, &format!("?force={}", self.force)),
            )?;
            Ok(name.to_owned())
        })
    }
}
