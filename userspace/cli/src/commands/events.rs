//! `paddock events`: what containers do to their walls, as it happens.
//!
//! In a table each event is one line that fits the terminal; JSON lines are the agent's own. A
//! follower whose agent ends waits for the next one and goes on after the last event it saw.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::StatusCode;

use super::{
    Context,
    event_line::{fit, line, paint, row},
};
use crate::{
    client::{Client, End, Error, encode},
    human,
    output::{self, Format, print},
    times,
};

/// Show what happened to containers
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Only this container's
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Only of these kinds, such as oom_kill or denial
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kind: Vec<String>,
    /// Only what was judged so: benign, notable, escape_attempt, escape
    #[arg(long, value_name = "VERDICT", value_delimiter = ',')]
    verdict: Vec<String>,
    /// Not what is older: a time, seconds since 1970, or a time ago such as 10m
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    since: Option<u64>,
    /// Not what is newer; --follow ends there
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    until: Option<u64>,
    /// What came after the event with this id, also from earlier agents; tells what is missing
    #[arg(long, value_name = "ID", conflicts_with_all = ["all", "last"])]
    after: Option<u64>,
    /// All that is stored
    #[arg(long, conflicts_with = "last")]
    all: bool,
    /// Only the last ones
    #[arg(short = 'n', long = "last", value_name = "NUMBER")]
    last: Option<u32>,
    /// JSON is one event a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How long a follower waits for the next agent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of a line, all that a cursor needs.
#[derive(serde::Deserialize)]
struct Id {
    id: u64,
}

impl Events {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let client = Client::new(&context.state_dir)?;
        let table = self.format != Format::Json;
        let mut header = table.then(|| row("TIME (UTC)", "CONTAINER", "VERDICT", "RESULT", "WHAT"));
        if table && self.follow && std::io::stderr().is_terminal() {
            // Only a hint that silence is no fault.
            say("waiting for events, Ctrl-C ends");
        }
        let colour = output::colour();
        self.read(&client, |text| {
            if !table {
                return Ok(print(&format!("{text}\n"))?);
            }
            let shown = match serde_json::from_str(text) {
                Ok(event) => paint(&fit(&line(&event), output::width()), &event, colour),
                // Of a newer agent.
                Err(_) => human::printable(text),
            };
            let header = header
                .take()
                .map_or_else(String::new, |header| fit(&header, output::width()) + "\n");
            print(&format!("{header}{shown}\n"))?;
            Ok(())
        })?;
        Ok(0)
    }

    /// From one agent to the next, as long as one follows.
    fn read(
        &self,
        client: &Client,
        mut show: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut cursor = None;
        let mut again = false;
        // Said, and nothing was heard since.
        let mut said = false;
        loop {
            let read = client.lines(&self.path(cursor), |text| {
                if let Ok(Id { id }) = serde_json::from_str(text) {
                    cursor = cursor.max(Some(id));
                    said = false;
                }
                show(text)
            });
            match read {
                Ok(End::Reader) => return Ok(()),
                Ok(End::Answer) if !self.follow || self.is_over() => return Ok(()),
                Err(error) if again && is_begun_anew(&error) => {
                    say(&format!("{error}: reading from the first on"));
                    cursor = Some(0);
                    continue;
                }
                Err(error) if !(self.follow && is_gone(&error, again)) => return Err(error),
                Ok(End::Answer) | Err(_) => {}
            }
            again = true;
            if !std::mem::replace(&mut said, true) {
                say(&cursor.map_or_else(
                    || "paddock: the agent ended, waiting for the next one".to_owned(),
                    |id| {
                        format!(
                            "paddock: the agent ended, waiting for the next one to go on after event {id}"
                        )
                    },
                ));
            }
            if client.wait_for_agent(PATIENCE)? == End::Reader {
                return Ok(());
            }
        }
    }

    fn is_over(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_nanos());
        self.until.is_some_and(|until| u128::from(until) <= now)
    }

    /// `cursor`: what was seen already.
    fn path(&self, cursor: Option<u64>) -> String {
        let mut path = format!("/v1/events?follow={}", self.follow);
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let words = |words: &[String]| (!words.is_empty()).then(|| words.join(","));
        let fresh = cursor.is_none();
        for (key, value) in [
            ("container", self.container.clone()),
            ("kind", words(&self.kind)),
            ("verdict", words(&self.verdict)),
            ("since_ns", number(self.since)),
            ("until_ns", number(self.until)),
            ("after", number(cursor.or(self.after))),
            ("all", (fresh && self.all).then(|| "true".to_owned())),
            ("last", number(self.last.filter(|_| fresh).map(u64::from))),
        ] {
            if let Some(value) = value {
                let _ = write!(path, "&{key}={}", encode(&value));
            }
        }
        path
    }
}

fn say(line: &str) {
    // Whoever closed stderr does not want to know.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The agent ended while it was read from, or, once that was so, before it could be again.
fn is_gone(error: &anyhow::Error, again: bool) -> bool {
    match error.downcast_ref() {
        Some(Error::Broken { .. }) => true,
        Some(Error::NoAgent { .. }) => again,
        _ => false,
    }
}

/// The agent does not know of the cursor's event.
fn is_begun_anew(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(Error::Refused {
            status: StatusCode::CONFLICT,
            ..
        })
    )
}
