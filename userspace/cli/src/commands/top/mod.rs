//! `paddock top`: what containers use, again each second, on the whole terminal.
//!
//! [`feed`] asks the agent, [`screen`] has the terminal, [`keys`] and news change the [`model`],
//! [`view`] draws it. It draws when something came, and only the cells that changed are written.

mod feed;
mod keys;
mod model;
mod row;
mod screen;
mod view;

use std::{
    io::IsTerminal as _,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use ratatui::crossterm::event::Event;

use self::{
    feed::{Ask, Feed, Look, News, Wish},
    keys::Effect,
    model::{Link, Model, Screen, Sort},
    view::View,
};
use super::Context;
use crate::output;

/// Show what containers use on the whole terminal, and look closer
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock top\n  \
    paddock top --sort mem --filter web --interval 5\n\n\
    Keys: s sort, r reverse, f filter, a stopped ones too, t tree, Enter one container, l logs,\n\
    e events, K kill, h help, q quit")]
pub(crate) struct Top {
    /// Largest first
    #[arg(long, value_enum, value_name = "FIELD", default_value_t)]
    sort: Sort,
    /// Only those with this in their name or image
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,
    /// Seconds between two looks, from 0.5
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    seconds
        .filter(|seconds| (0.5..=3600.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected seconds, 0.5 to 3600".to_owned())
}

/// What wakes it.
#[derive(Debug)]
enum Message {
    Typed(Event),
    News(News),
    Signal(Signal),
    /// A part of it ended that should not.
    Broken(&'static str),
}

/// Tells when its thread ends, by a panic too.
#[derive(Debug)]
struct Ended(Sender<Message>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody listens any more when `top` itself ended.
        let _ = self.0.send(Message::Broken("what asks the agent"));
    }
}

impl Top {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        anyhow::ensure!(
            std::io::stdout().is_terminal() && std::io::stdin().is_terminal(),
            "top wants a terminal; `paddock stats` says the same once, anywhere"
        );
        let client = context.client()?;
        let (to, messages) = channel();
        let (asks, asked) = channel();
        screen::listen(&to).context("cannot take signals")?;
        let feed = Feed::new(client, self.interval, to.clone());
        thread::spawn(move || {
            let _ended = Ended(to);
            feed.run(&asked);
        });
        let model = Model::new(self.sort, self.filter.clone());
        let mut terminal = screen::Screen::enter().context("cannot take the terminal over")?;
        show(model, &mut terminal, &messages, &asks)
    }
}

/// Until somebody ends it; its exit code.
fn show(
    mut model: Model,
    screen: &mut screen::Screen,
    messages: &Receiver<Message>,
    asks: &Sender<Ask>,
) -> anyhow::Result<u8> {
    let mut view = View::new(output::colour());
    loop {
        let drawn = screen
            .terminal
            .draw(|frame| view.draw(frame, &model, SystemTime::now()));
        drawn.context("cannot draw")?;
        let first = messages.recv().context("nothing wakes it any more")?;
        for message in std::iter::once(first).chain(messages.try_iter()) {
            let effect = match message {
                Message::Typed(Event::Key(key)) => keys::press(&mut model, key),
                Message::Typed(_) => None,
                Message::News(news) => {
                    take(&mut model, news);
                    None
                }
                Message::Signal(signal) => return Ok(ended_by(signal)),
                Message::Broken(part) => anyhow::bail!("{part} ended"),
            };
            let ask = match effect {
                None => None,
                Some(Effect::Quit) => return Ok(0),
                Some(Effect::Look) => Some(Ask::Look(wanted(&model))),
                Some(Effect::Suspend) => {
                    screen.suspend().context("cannot stop and go on")?;
                    None
                }
                Some(Effect::Kill { id, name, signal }) => Some(Ask::Kill { id, name, signal }),
            };
            if let Some(ask) = ask {
                // That nobody takes it is told by a message.
                let _ = asks.send(ask);
            }
        }
    }
}

fn take(model: &mut Model, news: News) {
    match news {
        News::All(stats, others) => model.take(stats, others),
        News::Detail(detail) => model.take_detail(*detail),
        News::Lines(id, kind, lines) => model.take_lines(&id, kind, lines),
        News::Said(what) => model.message = Some(what),
        News::Gone(why) => model.link = Link::Gone(why),
    }
}

fn wanted(model: &Model) -> Wish {
    Wish {
        all: model.all,
        one: match &model.screen {
            Screen::Table => None,
            Screen::Single(one) => Some((one.id.clone(), Look::Single)),
            Screen::Text(text) => Some((text.id.clone(), Look::Text(text.kind))),
        },
    }
}

/// As a shell says it. A terminal's Ctrl-C is a key here, and no signal.
fn ended_by(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_seconds() {
        assert_eq!(interval("2.5"), Ok(Duration::from_millis(2500)));
        for wrong in ["0", "0.1", "-1", "nan", "inf", "1s", "", "1e9"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
