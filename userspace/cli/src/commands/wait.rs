//! `paddock wait`: until containers end, then their exit codes.

use paddock_agent::api::WaitReply;

use super::{Context, for_each};
use crate::client::container_path;

/// Wait until containers end and print their exit codes
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock wait web")]
pub(crate) struct Wait {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Wait {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        for_each(context, &self.names, |client, name| {
            let reply: WaitReply = client.post(&container_path(name, "/wait"))?;
            Ok(reply.exit_code.to_string())
        })
    }
}
