//! `paddock kill`: one signal to a container's first process.

use hyper::Method;

use super::{Context, for_each};
use crate::client::container_path;

/// Send a signal to containers' first process
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock kill web\n  \
    paddock kill -s HUP web db")]
pub(crate) struct Kill {
    /// By name or number; one that would end it also ends its restarts
    #[arg(short, long, default_value = "KILL", value_parser = paddock_agent::signal::parse)]
    signal: i32,
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Kill {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        for_each(context, &self.names, |client, name| {
            let path = container_path(name, &format!("/kill?signal={}", self.signal));
            client.send(Method::POST, &path)?;
            Ok(name.to_owned())
        })
    }
}
