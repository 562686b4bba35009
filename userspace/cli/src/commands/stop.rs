//! `paddock stop`: the stop signal, some patience, SIGKILL.

use hyper::Method;

use super::{Context, for_each};
use crate::client::container_path;

/// Ask containers to end, then kill what is left; no restart policy starts them again
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  paddock stop -t 30 web")]
pub(crate) struct Stop {
    #[command(flatten)]
    how: How,
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Flags of `stop` and `restart`.
#[derive(Debug, clap::Args)]
pub(crate) struct How {
    /// Seconds before SIGKILL, -1 for ever (default: its --stop-timeout, else 10)
    #[arg(
        short = 't',
        long = "time",
        alias = "timeout",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    timeout: Option<i32>,
    /// Signal to send (default: its --stop-signal, else TERM)
    #[arg(short, long, value_name = "SIGNAL", value_parser = paddock_agent::signal::parse)]
    signal: Option<i32>,
}

impl How {
    /// The end of a request's path.
    pub(super) fn query(&self) -> String {
        let timeout = self.timeout.map(|timeout| format!("timeout={timeout}"));
        let signal = self.signal.map(|signal| format!("signal={signal}"));
        let given: Vec<String> = [timeout, signal].into_iter().flatten().collect();
        format!("?{}", given.join("&"))
    }
}

impl Stop {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        for_each(context, &self.names, |client, name| {
            let path = container_path(name, &format!("/stop{}", self.how.query()));
            client.send(Method::POST, &path)?;
            Ok(name.to_owned())
        })
    }
}
