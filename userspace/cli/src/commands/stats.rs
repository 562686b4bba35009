//! `paddock stats`: what running containers use.
//!
//! The first answer comes at once, since the agent has looked before; on a terminal it is
//! followed by another each second.

use std::{io::IsTerminal as _, thread, time::Duration};

use paddock_agent::api::ContainerStats;
use serde::Deserialize as _;
use serde_json::Value;

use super::Context;
use crate::{
    client::{Client, Error, encode},
    human,
    output::{self, Format},
    table::{self, Column},
};

const EVERY: Duration = Duration::from_secs(1);
/// To the first cell; what is below goes.
const FROM_THE_TOP: &str = "\x1b[H";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_LINE: &str = "\x1b[K\n";

/// Show what containers use: on a terminal again each second, else once
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock stats\n  \
    paddock stats --no-stream web db\n  \
    paddock stats --format json")]
pub(crate) struct Stats {
    /// Once, on a terminal, too
    #[arg(long)]
    no_stream: bool,
    /// Names whole, at any width
    #[arg(long)]
    no_trunc: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only these; else all that run
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

const COLUMNS: [Column; 10] = [
    Column::shrinking("NAME"),
    Column::number("CPU %"),
    Column::number("MEMORY / LIMIT"),
    Column::number("MEM %").spare(),
    Column::number("PSI %").spare(),
    Column::optional("READ / WRITTEN"),
    Column::optional("RECEIVED / SENT"),
    Column::number("PIDS"),
    Column::number("OOM"),
    Column::number("ESCAPES"),
];
/// What is left out below so many columns of a terminal: disk, then network.
const WIDE: [(usize, usize); 2] = [(5, 100), (6, 120)];

impl Stats {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let client = context.client()?;
        let streams =
            !self.no_stream && self.format == Format::Table && std::io::stdout().is_terminal();
        if !streams {
            let values = self.read(&client)?;
            if self.format == Format::Json {
                output::print_json(&values)?;
            } else {
                output::print(&self.table(values)?)?;
            }
            return Ok(0);
        }
        output::print(&format!("{FROM_THE_TOP}{CLEAR_BELOW}"))?;
        loop {
            let table = self.table(self.read(&client)?)?;
            // Line by line over what was there: nothing flickers.
            let lines = table.replace('\n', CLEAR_LINE);
            output::print(&format!("{FROM_THE_TOP}{lines}{CLEAR_BELOW}"))?;
            thread::sleep(EVERY);
        }
    }

    /// Where no agent runs, nothing does: that is an answer.
    fn read(&self, client: &Client) -> anyhow::Result<Vec<Value>> {
        if self.names.is_empty() {
            return match client.get("/v1/stats") {
                Err(Error::NoAgent { .. }) => Ok(Vec::new()),
                all => Ok(all?),
            };
        }
        let mut found = Vec::new();
        for name in &self.names {
            let one: Value = client.get(&format!("/v1/containers/{}/stats", encode(name)))?;
            anyhow::ensure!(!one.is_null(), "{name} is not running");
            found.push(one);
        }
        Ok(found)
    }

    fn table(&self, values: Vec<Value>) -> anyhow::Result<String> {
        let width = output::width().filter(|_| !self.no_trunc);
        let rows = values.into_iter().map(|value| {
            let stats = ContainerStats::deserialize(value)?;
            let mut row = row(&stats);
            for (column, least) in WIDE {
                if width.is_some_and(|width| width < least) {
                    row[column].clear();
                }
            }
            Ok(row)
        });
        let rows: Vec<_> = rows.collect::<Result<_, serde_json::Error>>()?;
        Ok(table::render_used(&COLUMNS, &rows, width))
    }
}

fn row(one: &ContainerStats) -> Vec<String> {
    let stats = &one.stats;
    let used = stats.memory_working_set_bytes;
    let of_limit = used.zip(stats.memory_limit_bytes.filter(|limit| *limit > 0));
    vec![
        human::printable(&one.name),
        one.cpu_percent
            .map_or_else(absent, |percent| format!("{percent:.1}")),
        format!(
            "{} / {}",
            used.map_or_else(absent, human::bytes),
            stats.memory_limit_bytes.map_or_else(absent, human::bytes)
        ),
        of_limit.map_or_else(absent, |(used, limit)| {
            tenths(used.saturating_mul(1000) / limit)
        }),
        pressure(one).map_or_else(absent, |hundredths| tenths(u64::from(hundredths) / 10)),
        format!(
            "{} / {}",
            stats.totals.io_read_bytes.map_or_else(absent, human::bytes),
            stats
                .totals
                .io_write_bytes
                .map_or_else(absent, human::bytes)
        ),
        one.network.map_or_else(String::new, |network| {
            format!(
                "{} / {}",
                human::bytes(network.received_bytes),
                human::bytes(network.sent_bytes)
            )
        }),
        stats
            .pids_current
            .map_or_else(absent, |count| count.to_string()),
        one.oom_kills.to_string(),
        one.escapes.to_string(),
    ]
}

/// What it waits for most: of the last ten seconds.
fn pressure(one: &ContainerStats) -> Option<u32> {
    let stats = &one.stats;
    let all = [
        stats.cpu_waiting_avg10,
        stats.memory_waiting_avg10,
        stats.io_waiting_avg10,
    ];
    all.into_iter().flatten().max()
}

fn tenths(count: u64) -> String {
    format!("{}.{}", count / 10, count % 10)
}

/// The host does not count it, or there is no limit.
fn absent() -> String {
    "-".to_owned()
}
