//! `paddock inspect`: everything the agent knows of containers, as one JSON array.

use super::Context;
use crate::{client::container_path, exit, output};

/// Show all there is to know about containers, as JSON
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock inspect web\n  \
    paddock inspect web | jq .[0].limits")]
pub(crate) struct Inspect {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Inspect {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let client = context.client()?;
        let mut found = Vec::new();
        let mut code = 0;
        for name in &self.names {
            // Passed on as it came: an agent newer than this client loses nothing.
            match client.get::<serde_json::Value>(&container_path(name, "")) {
                Ok(detail) => found.push(detail),
                Err(error) => {
                    let _ = exit::report(&error.into(), context.verbose, exit::FAILURE);
                    code = exit::FAILURE;
                }
            }
        }
        output::print_json(&found)?;
        Ok(code)
    }
}
