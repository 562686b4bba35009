//! `paddock images ls`: names, ids, ages, sizes.

use std::time::SystemTime;

use paddock_images::{Reference, Store, Summary};

use super::Context;
use crate::{
    human,
    output::{self, Format},
    table::{self, Column},
};

/// List images
#[derive(Debug, clap::Args)]
pub(super) struct Ls {
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and names, at any width
    #[arg(long)]
    no_trunc: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const COLUMNS: [Column; 4] = [
    Column::shrinking("IMAGE"),
    Column::fixed("IMAGE ID"),
    Column::fixed("PULLED").spare(),
    Column::number("SIZE"),
];

impl Ls {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let images = Store::at(&context.data_dir).list()?;
        if self.quiet {
            let ids: String = images.iter().map(|image| self.id(image) + "\n").collect();
            output::print(&ids)?;
        } else if self.format == Format::Json {
            output::print_json(&images)?;
        } else {
            let now = SystemTime::now();
            let rows: Vec<_> = images
                .iter()
                .flat_map(|image| self.rows(image, now))
                .collect();
            let width = output::width().filter(|_| !self.no_trunc);
            output::print(&table::render_used(&COLUMNS, &rows, width))?;
        }
        Ok(0)
    }

    fn id(&self, image: &Summary) -> String {
        if self.no_trunc {
            image.id.to_string()
        } else {
            image.id.short()
        }
    }

    /// One for each name.
    fn rows(&self, image: &Summary, now: SystemTime) -> Vec<Vec<String>> {
        let row = |name: &str| {
            vec![
                human::printable(name),
                self.id(image),
                human::duration(human::since(now, image.pulled_at_ns)) + " ago",
                human::bytes(image.size),
            ]
        };
        if image.names.is_empty() {
            return vec![row("<none>")];
        }
        let names = image.names.iter();
        names.map(|name| row(Reference::familiar(name))).collect()
    }
}
