//! `paddock stop`: SIGTERM, some patience, SIGKILL.

use hyper::Method;

use super::{Context, for_each};
use crate::client::container_path;

/// Ask containers to end (SIGTERM), then kill what is left
#[derive(Debug, clap::Args)]
pub(crate) struct Stop {
    /// Seconds before SIGKILL
    #[arg(
        short = 't',
        long = "time",
        alias = "timeout",
        default_value_t = 10,
        value_name = "SECONDS"
    )]
    timeout: u32,
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Stop {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        for_each(context, &self.names, |client, name| {
            let path = container_path(name, &format!("/stop?timeout={}", self.timeout));
            client.send(Method::POST, &path)?;
            Ok(name.to_owned())
        })
    }
}
