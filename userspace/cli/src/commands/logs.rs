//! `paddock logs`: what a container wrote, each stream to its own.

use std::io::Write as _;

use paddock_agent::api::{ContainerDetail, LogLine, State};

use super::Context;
use crate::{
    attach::{Attach, Mode},
    client::container_path,
    output::print,
};

/// Show a container's output
#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Go on with what it writes from now on
    #[arg(short, long)]
    follow: bool,
    #[arg(value_name = "NAME")]
    name: String,
}

impl Logs {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let client = context.client()?;
        if self.follow {
            let detail: ContainerDetail = client.get(&container_path(&self.name, ""))?;
            let container = detail.summary;
            if container.state != State::Exited {
                let monitor = context
                    .state_dir
                    .join("containers")
                    .join(&container.id)
                    .join("monitor.sock");
                let attach = Attach {
                    name: &container.name,
                    monitor: &monitor,
                    terminal: false,
                    stdin: false,
                    mode: Mode::Watch,
                };
                attach.ready()?.run()?;
                return Ok(0);
            }
        }
        client.lines(&container_path(&self.name, "/logs"), |line| {
            let line: LogLine = serde_json::from_str(line)?;
            if line.stream == "stderr" {
                std::io::stderr().write_all(line.text.as_bytes())?;
            } else {
                print(&line.text)?;
            }
            Ok(())
        })?;
        Ok(0)
    }
}
