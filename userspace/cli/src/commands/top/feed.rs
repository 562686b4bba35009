//! What `top` asks the agent, on a thread of its own: an agent that is slow, stopped or gone holds
//! back no key.
//!
//! Where none answers, it says so and asks again at the next beat.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use paddock_agent::{
    api::{ContainerDetail, ContainerStats, ContainerSummary, LogLine},
    event::{Event, Kind, Verdict},
};

use super::{
    Message,
    model::{LINES, Line, TextKind, Weight},
};
use crate::{
    client::{Client, Error, container_path, encode},
    commands::event_line,
    human,
};

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a log costs to read is at most this part of the time.
const SHARE: u32 = 20;

/// What the screen wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Stopped ones, too.
    pub(super) all: bool,
    /// One container's, by its id.
    pub(super) one: Option<(String, Look)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All about it, and its events.
    Single,
    Text(TextKind),
}

#[derive(Debug)]
pub(super) enum Ask {
    Look(Wish),
    Kill {
        id: String,
        name: String,
        signal: i32,
    },
}

/// What the agent said.
#[derive(Debug)]
pub(super) enum News {
    All(Vec<ContainerStats>, Vec<ContainerSummary>),
    Detail(Box<ContainerDetail>),
    Lines(String, TextKind, Vec<Line>),
    /// What became of a kill.
    Said(String),
    /// Nobody answers, and why.
    Gone(String),
}

#[derive(Debug)]
pub(super) struct Feed {
    client: Client,
    every: Duration,
    to: Sender<Message>,
    wish: Wish,
    /// The newest event that has been told; none before the first.
    told: Option<u64>,
    /// No log is read before.
    log_due: Option<Instant>,
}

/// Nobody wants to hear any more.
struct Left;

impl Feed {
    pub(super) fn new(client: Client, every: Duration, to: Sender<Message>) -> Self {
        Self {
            client,
            every,
            to,
            wish: Wish::default(),
            told: None,
            log_due: None,
        }
    }

    /// Until the other end of either channel goes.
    pub(super) fn run(mut self, asks: &Receiver<Ask>) {
        let mut due = Instant::now();
        loop {
            let now = Instant::now();
            if now >= due {
                due = now + self.every;
                if self.beat().is_err() {
                    return;
                }
            }
            let wait = due.saturating_duration_since(Instant::now());
            let done = match asks.recv_timeout(wait) {
                Ok(Ask::Look(wish)) => self.turn(wish),
                Ok(Ask::Kill { id, name, signal }) => self.kill(&id, &name, signal),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if done.is_err() {
                return;
            }
        }
    }

    fn turn(&mut self, wish: Wish) -> Result<(), Left> {
        let others = self.wish.all != wish.all;
        // The screen begins anew, too.
        (self.told, self.log_due) = (None, None);
        self.wish = wish;
        if others { self.beat() } else { self.of_one() }
    }

    fn beat(&mut self) -> Result<(), Left> {
        let all = self.client.get_within("/v1/stats", PATIENCE);
        let others = if self.wish.all && all.is_ok() {
            self.client.get_within("/v1/containers?all=true", PATIENCE)
        } else {
            Ok(Vec::new())
        };
        match all.and_then(|all| Ok((all, others?))) {
            Ok((all, others)) => {
                self.tell(News::All(all, others))?;
                self.of_one()
            }
            Err(error) => self.tell(News::Gone(why(&error))),
        }
    }

    fn of_one(&mut self) -> Result<(), Left> {
        let Some((id, look)) = self.wish.one.clone() else {
            return Ok(());
        };
        match look {
            Look::Single => {
                // One that is gone keeps what was said of it.
                if let Ok(detail) = self.client.get_within(&container_path(&id, ""), PATIENCE) {
                    self.tell(News::Detail(detail))?;
                }
                self.events(id)
            }
            Look::Text(TextKind::Events) => self.events(id),
            Look::Text(TextKind::Logs) => self.log(id),
        }
    }

    fn events(&mut self, id: String) -> Result<(), Left> {
        let from = self
            .told
            .map_or_else(|| format!("last={LINES}"), |told| format!("after={told}"));
        let path = format!("/v1/events?container={}&{from}", encode(&id));
        let mut events = Vec::new();
        let told = self.client.lines_within(&path, PATIENCE, |text| {
            if let Ok(event) = serde_json::from_str::<Event>(text) {
                self.told = self.told.max(Some(event.id));
                events.push((event.time_ns, event_line(&event)));
            }
        });
        match told {
            Ok(()) => {
                // What the kernel half saw is told after what the agent did meanwhile.
                events.sort_by_key(|(time_ns, _)| *time_ns);
                let lines = events.into_iter().map(|(_, line)| line).collect();
                self.tell(News::Lines(id, TextKind::Events, lines))
            }
            // An agent that begins anew does not know the event that was told last.
            Err(Error::Refused {
                status: StatusCode::CONFLICT,
                ..
            }) => {
                self.told = Some(0);
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    /// All of it each time, the last of it kept; the larger the log, the more seldom.
    fn log(&mut self, id: String) -> Result<(), Left> {
        let began = Instant::now();
        if self.log_due.is_some_and(|due| began < due) {
            return Ok(());
        }
        let mut lines = std::collections::VecDeque::new();
        let path = container_path(&id, "/logs");
        let told = self.client.lines_within(&path, PATIENCE, |text| {
            if let Ok(line) = serde_json::from_str::<LogLine>(text) {
                if lines.len() == LINES {
                    lines.pop_front();
                }
                lines.push_back(log_line(&line));
            }
        });
        self.log_due = Some(Instant::now() + began.elapsed() * SHARE);
        let lines = match told {
            Ok(()) => lines.into(),
            // A found one has no log here: that is an answer.
            Err(error) => vec![Line {
                text: why(&error),
                weight: Weight::Notable,
            }],
        };
        self.tell(News::Lines(id, TextKind::Logs, lines))
    }

    fn kill(&mut self, id: &str, name: &str, signal: i32) -> Result<(), Left> {
        let path = container_path(id, &format!("/kill?signal={signal}"));
        let said = match self.client.send_within(Method::POST, &path, PATIENCE) {
            Ok(()) => format!("{}: sent signal {signal}", human::printable(name)),
            Err(error) => format!("{}: {}", human::printable(name), why(&error)),
        };
        self.tell(News::Said(said))?;
        self.beat()
    }

    fn tell(&self, news: News) -> Result<(), Left> {
        self.to.send(Message::News(news)).map_err(|_| Left)
    }
}

/// In one line.
fn why(error: &Error) -> String {
    let cause = std::error::Error::source(error);
    let line = match error {
        // Where it was to be is known, and a line is short.
        Error::NoAgent { .. } => "no agent answers".to_owned(),
        Error::NoAccess { .. } => "no access to the agent".to_owned(),
        Error::Broken { op, .. } => {
            cause.map_or_else(|| (*op).to_owned(), |cause| format!("{op}: {cause}"))
        }
        Error::Refused { message, .. } => message.clone(),
    };
    human::single_line(&line)
}

fn event_line(event: &Event) -> Line {
    let weight = match &event.kind {
        Kind::NamespaceCall { verdict, .. } | Kind::Activity { verdict, .. } => match verdict {
            Verdict::Escape => Weight::Grave,
            Verdict::EscapeAttempt => Weight::Notable,
            _ => Weight::Usual,
        },
        Kind::Tampering { .. } => Weight::Grave,
        Kind::Denial { .. } | Kind::Reaction { .. } | Kind::OomKill { .. } => Weight::Notable,
        _ => Weight::Usual,
    };
    let what = human::single_line(&event_line::what(&event.kind));
    Line {
        text: format!("{} {what}", human::clock(event.time_ns)),
        weight,
    }
}

fn log_line(line: &LogLine) -> Line {
    // Tabs are usual in logs and no cell shows one.
    let text = line
        .text
        .trim_end_matches(['\n', '\r'])
        .replace('\t', "    ");
    Line {
        text: human::printable(&text),
        weight: if line.stream == "stderr" {
            Weight::Notable
        } else {
            Weight::Usual
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logs_line_is_safe_to_show() {
        let line = log_line(&LogLine {
            time_ns: 1,
            stream: "stderr".into(),
            text: "a\tb\u{1b}[2J\r\n".into(),
        });
        assert_eq!(line.text, "a    b\\u{1b}[2J");
        assert_eq!(line.weight, Weight::Notable);
    }
}
