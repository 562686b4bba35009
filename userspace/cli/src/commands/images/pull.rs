//! `paddock pull`: get an image.

use paddock_images::{Reference, Registries};

use super::{Context, LimitFlags, fetch};
use crate::output::print;

/// Get an image from a registry, a directory or a file
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock pull alpine:3.20\n  \
    paddock pull localhost:5000/app\n  \
    paddock pull oci:./layout:1.0\n  \
    paddock pull docker-archive:saved.tar")]
pub(crate) struct Pull {
    /// NAME[:TAG|@DIGEST], oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME]
    image: String,
    /// Speak HTTP without TLS to a registry that is not on this machine
    #[arg(long)]
    plain_http: bool,
    #[command(flatten)]
    limits: LimitFlags,
}

impl Pull {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let reference: Reference = self.image.parse()?;
        let registries = Registries {
            plain_http: self.plain_http,
        };
        let pulled = fetch(context, &reference, registries, self.limits.limits())?;
        print(&format!("{}\n", pulled.id))?;
        Ok(0)
    }
}
