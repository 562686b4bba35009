//! `paddock agent`: the daemon, in the foreground.

use super::Context;

/// Watch every container and serve the others' commands
#[derive(Debug, clap::Args)]
pub(crate) struct Agent {
    /// Where metrics are served; port 0 takes a free one
    #[arg(
        long = "web.listen-address",
        default_value = "127.0.0.1:9750",
        value_name = "ADDRESS"
    )]
    web_listen_address: String,
    /// Take the kernel half down at the end, instead of leaving it counting
    #[arg(long)]
    detach_on_exit: bool,
    /// End when nothing runs and nobody asks
    #[arg(long, hide = true)]
    ephemeral: bool,
}

impl Agent {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let _ = (self, context);
        anyhow::bail!("not there yet")
    }
}
