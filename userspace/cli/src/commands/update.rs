//! `paddock update`: other limits for containers that run. All of a container's are changed, or
//! none; they stay over the agent's end.

use super::{Context, for_each, limits::LimitFlags};
use crate::client::container_path;

/// Change limits of running containers
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: paddock update --memory 512m --cpus 1.5 web")]
pub(crate) struct Update {
    #[command(flatten)]
    limits: LimitFlags,
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Update {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let limits = self.limits.limits();
        anyhow::ensure!(
            limits != paddock_cgroups::Limits::default(),
            "no limit given: 'paddock update --help' lists them"
        );
        for_each(context, &self.names, |client, name| {
            let _: paddock_cgroups::Limits =
                client.post_json(&container_path(name, "/update"), &limits)?;
            Ok(name.to_owned())
        })
    }
}
