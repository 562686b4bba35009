//! `paddock pause`: stop every process of a container where it is.

use hyper::Method;

use super::{Context, for_each};
use crate::client::container_path;

/// Freeze all processes of containers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock pause web")]
pub(crate) struct Pause {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Pause {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        for_each(context, &self.names, |client, name| {
            client.send(Method::POST, &container_path(name, "/pause"))?;
            Ok(name.to_owned())
        })
    }
}
