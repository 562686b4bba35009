//! `paddock images rm`: remove names, and images that have none left.

use paddock_images::Store;

use super::{Context, interrupt::interruptible, progress::Bars};
use crate::{exit, output::print};

/// Remove images that no container uses
#[derive(Debug, clap::Args)]
pub(super) struct Rm {
    /// Names, or the beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

impl Rm {
    /// Goes on after one that fails.
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let store = Store::at(&context.data_dir);
        let mut code = 0;
        for name in &self.names {
            match interruptible(|cancel| store.remove(name, &Bars::new(), cancel)) {
                Ok(()) => print(&format!("{name}\n"))?,
                Err(error) => {
                    // The code is the same for every failure here.
                    let _ = exit::report(&error, context.verbose, exit::FAILURE);
                    code = exit::FAILURE;
                }
            }
        }
        Ok(code)
    }
}
