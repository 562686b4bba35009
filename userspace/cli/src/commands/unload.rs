//! `paddock unload`: end the agent and take everything of the kernel half down.
//!
//! Containers that run go on, unwatched.

use super::Context;

/// End the agent and remove its programs and maps from the kernel
#[derive(Debug, clap::Args)]
pub(crate) struct Unload {}

impl Unload {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let _ = (self, context);
        anyhow::bail!("not there yet")
    }
}
