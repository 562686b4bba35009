//! `paddock restart`: stop, then start.

use paddock_agent::api::StartedReply;

use super::{Context, for_each, stop::How};
use crate::client::container_path;

/// Stop containers as `stop` does, and start them again
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  paddock restart -t 3 web")]
pub(crate) struct Restart {
    #[command(flatten)]
    how: How,
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Restart {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        for_each(context, &self.names, |client, name| {
            let path = container_path(name, &format!("/restart{}", self.how.query()));
            let _: StartedReply = client.post(&path)?;
            Ok(name.to_owned())
        })
    }
}
