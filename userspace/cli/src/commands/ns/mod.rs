//! `paddock ns`: the namespaces of the whole host, and a way into them.

mod enter;

use paddock_agent::api::{NamespaceEntry, NamespaceOwner};

use super::Context;
use crate::{
    client::{Client, Error},
    human,
    output::{self, Format, print},
    table::{self, Column},
};

/// List the host's namespaces and whose they are, or enter some
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
        paddock ns --type net\n  \
        paddock ns --container web\n  \
        paddock ns enter web --type net -- ss -ltn"
)]
pub(crate) struct Ns {
    #[command(subcommand)]
    enter: Option<Within>,
    /// Only these types: cgroup, ipc, mnt, net, pid, time, user, uts
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = kind)]
    types: Vec<String>,
    /// Only those that this container is in
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Whole commands, at any width
    #[arg(long)]
    no_trunc: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum Within {
    Enter(enter::Enter),
}

const COLUMNS: [Column; 8] = [
    Column::number("NAMESPACE"),
    Column::fixed("TYPE"),
    Column::fixed("WHOSE"),
    Column::shrinking("CONTAINERS"),
    Column::number("PROCS").spare(),
    Column::number("PID"),
    Column::number("UID").spare(),
    Column::shrinking("COMMAND"),
];

/// The types that have a file in /proc/PID/ns.
pub(super) const TYPES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

pub(super) fn kind(text: &str) -> Result<String, String> {
    if TYPES.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("expected one of {}", TYPES.join(", ")))
    }
}

impl Ns {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        if let Some(Within::Enter(enter)) = &self.enter {
            return enter.run(context);
        }
        let all: Vec<NamespaceEntry> = match Client::new(&context.state_dir)?.get("/v1/namespaces")
        {
            Err(Error::NoAgent { .. }) => paddock_agent::ns::list()?,
            all => all?,
        };
        let chosen: Vec<_> = all.into_iter().filter(|entry| self.wants(entry)).collect();
        match self.format {
            Format::Json => output::print_json(&chosen)?,
            Format::Table => {
                let rows: Vec<_> = chosen.iter().map(|entry| self.row(entry)).collect();
                let width = output::width().filter(|_| !self.no_trunc);
                print(&table::render_used(&COLUMNS, &rows, width))?;
            }
        }
        Ok(0)
    }

    fn wants(&self, entry: &NamespaceEntry) -> bool {
        (self.types.is_empty() || self.types.contains(&entry.namespace))
            && self
                .container
                .as_ref()
                .is_none_or(|name| entry.containers.contains(name))
    }

    fn row(&self, entry: &NamespaceEntry) -> Vec<String> {
        let owner = match entry.owner {
            NamespaceOwner::Host => "host",
            NamespaceOwner::Own => "own",
            NamespaceOwner::Shared => "shared",
            NamespaceOwner::Other => "other",
        };
        let mut command = human::printable(&entry.command);
        if !self.no_trunc {
            command = table::cut(&command, 40);
        }
        vec![
            entry.inode.to_string(),
            entry.namespace.clone(),
            owner.to_owned(),
            human::printable(&entry.containers.join(",")),
            entry.processes.to_string(),
            entry.pid.to_string(),
            entry.user.to_string(),
            command,
        ]
    }
}
