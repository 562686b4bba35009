//! `paddock unpause`: let a paused container go on.

use hyper::Method;

use super::{Context, for_each};
use crate::client::container_path;

/// Let paused containers go on
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock unpause web")]
pub(crate) struct Unpause {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Unpause {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        for_each(context, &self.names, |client, name| {
            client.send(Method::POST, &container_path(name, "/unpause"))?;
            Ok(name.to_owned())
        })
    }
}
