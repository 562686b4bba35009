//! `paddock ps`: containers, launched and found.

mod filter;

use std::time::SystemTime;

use paddock_agent::api::{ContainerSummary, OomVictim, Origin, State};

use serde::Deserialize as _;
use serde_json::Value;

use self::filter::Filter;
use super::Context;
use crate::{
    client::{Client, Error},
    human,
    output::{self, Format},
    table::{self, Column},
};

/// List containers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock ps\n  \
    paddock ps -a --filter status=exited --filter name=web\n  \
    paddock rm $(paddock ps -aq --filter exited=0)")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag, by docker's name"
)]
pub(crate) struct Ps {
    /// Also those that ended
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands, at any width
    #[arg(long)]
    no_trunc: bool,
    /// Only those: name=, id=, status=, label= or exited=; again: either value, both keys
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
    /// Only the last so many that were made, ended ones too
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Only the last one
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// As it came, for JSON, and as it is understood.
type Listed = (Value, ContainerSummary);

const COLUMNS: [Column; 8] = [
    Column::fixed("CONTAINER ID"),
    Column::shrinking("NAME"),
    Column::shrinking("IMAGE").spare(),
    Column::shrinking("COMMAND").spare(),
    Column::fixed("STATUS"),
    Column::optional("PORTS").spare(),
    Column::number("OOM"),
    Column::number("ESCAPES"),
];

impl Ps {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let client = context.client()?;
        let last = self.last.or(self.latest.then_some(1));
        let all = self.all || last.is_some() || self.filters.iter().any(Filter::wants_all);
        let mut listed = list(&client, &format!("/v1/containers?all={all}"))?;
        listed.retain(|(_, container)| filter::all_hold(&self.filters, container));
        if let Some(last) = last {
            listed.sort_by_key(|(_, container)| std::cmp::Reverse(container.created_at_ns));
            listed.truncate(last);
        }
        let (values, containers): (Vec<Value>, Vec<ContainerSummary>) = listed.into_iter().unzip();
        if self.format == Format::Json && !self.quiet {
            output::print_json(&values)?;
            return Ok(0);
        }
        let text = if self.quiet {
            containers
                .iter()
                .map(|container| self.id(container) + "\n")
                .collect()
        } else {
            let now = SystemTime::now();
            let rows: Vec<_> = containers
                .iter()
                .map(|container| self.row(container, now))
                .collect();
            let width = output::width().filter(|_| !self.no_trunc);
            table::render_used(&COLUMNS, &rows, width)
        };
        output::print(&text)?;
        Ok(0)
    }

    fn id(&self, container: &ContainerSummary) -> String {
        let shown = if self.no_trunc { usize::MAX } else { 12 };
        container.id.chars().take(shown).collect()
    }

    fn row(&self, container: &ContainerSummary, now: SystemTime) -> Vec<String> {
        let mut command = human::command(&container.command);
        if !self.no_trunc {
            command = table::cut(&command, 40);
        }
        vec![
            self.id(container),
            human::printable(&container.name),
            human::printable(&container.image),
            command,
            status(container, now),
            ports(container),
            container.oom_kills.to_string(),
            container.escapes.to_string(),
        ]
    }
}

/// Where no agent runs and none has left anything, there is nothing: that is an answer.
fn list(client: &Client, path: &str) -> anyhow::Result<Vec<Listed>> {
    let values: Vec<Value> = match client.get(path) {
        Err(Error::NoAgent { .. }) => return Ok(Vec::new()),
        containers => containers?,
    };
    let understood = values.into_iter().map(|value| {
        let container = ContainerSummary::deserialize(&value)?;
        Ok((value, container))
    });
    understood.collect()
}

/// `Up 3m`, `Up 1s, 4 restarts`, `Found, up 2h`, `Exited (0) 5s ago`, `OOM (137) 5s ago`,
/// `Restarting (1) 5s ago`.
fn status(container: &ContainerSummary, now: SystemTime) -> String {
    let ago = |at: Option<u64>| at.map(|at| human::duration(human::since(now, at)));
    let up = ago(container.started_at_ns).map_or_else(String::new, |span| format!(" {span}"));
    match (container.state, container.origin) {
        (State::Created, _) => "Created".to_owned(),
        (State::Running, Origin::Launched) => match container.restart_count {
            0 => format!("Up{up}"),
            1 => format!("Up{up}, 1 restart"),
            count => format!("Up{up}, {count} restarts"),
        },
        (State::Paused, Origin::Launched) => format!("Paused, up{up}"),
        (State::Paused, Origin::Found) => format!("Found, paused, up{up}"),
        (State::Running, Origin::Found) => format!("Found, up{up}"),
        (State::Exited | State::Restarting, _) => {
            let code = container
                .exit_code
                .map_or_else(|| "?".to_owned(), |code| code.to_string());
            let when = ago(container.finished_at_ns)
                .map_or_else(String::new, |span| format!(" {span} ago"));
            let how = if container.state == State::Restarting {
                "Restarting"
            } else if container.oom_killed {
                match &container.oom {
                    Some(oom) if oom.constraint.as_deref() == Some("host") => "Host OOM",
                    Some(oom) if oom.victim == OomVictim::Group => "Group OOM",
                    _ => "OOM",
                }
            } else {
                "Exited"
            };
            format!("{how} ({code}){when}")
        }
    }
}

/// Nothing leads to one that does not run.
fn ports(container: &ContainerSummary) -> String {
    if !matches!(container.state, State::Running | State::Paused) {
        return String::new();
    }
    let all: Vec<String> = container.ports.iter().map(ToString::to_string).collect();
    all.join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    pub(in crate::commands) fn container(state: State, origin: Origin) -> ContainerSummary {
        ContainerSummary {
            id: "ab12".repeat(16),
            name: "greedy".into(),
            image: "host".into(),
            command: vec![
                "sh".into(),
                "-c".into(),
                "\u{1b}[31m: a rather long command line for a table".into(),
            ],
            origin,
            parent: None,
            state,
            pid: None,
            created_at_ns: 1,
            started_at_ns: Some(40_000_000_000),
            finished_at_ns: (state == State::Exited).then_some(95_000_000_000),
            exit_code: (state == State::Exited).then_some(137),
            oom_killed: state == State::Exited,
            oom: None,
            oom_kills: 1,
            restart_count: 0,
            escapes: 0,
            ports: vec![],
            labels: vec![],
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(100)
    }

    #[test]
    fn status_says_state_and_since_when() {
        let said = |state, origin| status(&container(state, origin), now());
        assert_eq!(said(State::Created, Origin::Launched), "Created");
        assert_eq!(said(State::Running, Origin::Launched), "Up 1m");
        assert_eq!(said(State::Running, Origin::Found), "Found, up 1m");
        assert_eq!(said(State::Exited, Origin::Launched), "OOM (137) 5s ago");
        let mut again = container(State::Restarting, Origin::Launched);
        (again.exit_code, again.finished_at_ns) = (Some(3), Some(95_000_000_000));
        assert_eq!(status(&again, now()), "Restarting (3) 5s ago");
        again.state = State::Running;
        again.restart_count = 2;
        assert_eq!(status(&again, now()), "Up 1m, 2 restarts");
    }

    #[test]
    fn a_row_fits_80_columns_and_is_safe_to_show() {
        let ps = Ps {
            all: true,
            quiet: false,
            no_trunc: false,
            filters: vec![],
            last: None,
            latest: false,
            format: Format::Table,
        };
        let rows = vec![ps.row(&container(State::Exited, Origin::Launched), now())];
        let text = table::render_used(&COLUMNS, &rows, Some(80));
        assert!(!text.contains("PORTS"), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        let wide = Ps {
            no_trunc: true,
            ..ps
        };
        let mut served = container(State::Running, Origin::Launched);
        let ports = [
            r#"{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}"#,
            r#"{"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "::1"}"#,
        ];
        served.ports = ports
            .map(|port| serde_json::from_str(port).unwrap())
            .to_vec();
        let rows = vec![wide.row(&served, now())];
        let text = table::render_used(&COLUMNS, &rows, None);
        assert!(
            text.contains("0.0.0.0:8080->80/tcp, [::1]:53->53/udp"),
            "{text}"
        );
        assert!(
            text.contains(&"ab12".repeat(16)) && text.contains("for a table"),
            "{text}"
        );
    }
}
