//! `paddock images import`: make an image of a root file system.

use std::path::PathBuf;

use anyhow::Context as _;
use paddock_images::{Reference, Store};

use super::{Context, LimitFlags, interrupt::interruptible, progress::Bars};
use crate::output::print;

/// Make an image of a root file system
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// A directory, or a tar, perhaps compressed by gzip or zstd
    source: PathBuf,
    /// What the image is called, such as base:1.0
    name: String,
    #[command(flatten)]
    limits: LimitFlags,
}

impl Import {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let name = Reference::tag(&self.name)?;
        let shown = self.source.display();
        let source = self.source.canonicalize();
        let source = source.with_context(|| format!("{shown}: cannot import"))?;
        let store = Store::at(&context.data_dir);
        let limits = self.limits.limits();
        let imported = interruptible(|cancel| {
            paddock_images::import(&store, &source, &name, limits, &Bars::new(), cancel)
        })?;
        print(&format!("{}\n", imported.id))?;
        Ok(0)
    }
}
