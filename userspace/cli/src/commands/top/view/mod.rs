//! The model, drawn: a title, the table or one container, a line of keys, and what is over them.

mod overlay;
mod single;
mod table;
mod text;
mod theme;
mod words;

use std::time::SystemTime;

use paddock_agent::api::{Origin, State};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::Paragraph,
};

use self::theme::Theme;
use super::model::{Link, Model, Overlay, Screen, TextKind};
use crate::human;

/// What is kept from one frame to the next.
#[derive(Debug)]
pub(super) struct View {
    theme: Theme,
    /// Lines of the table above the screen.
    offset: usize,
}

impl View {
    pub(super) fn new(colour: bool) -> Self {
        Self {
            theme: Theme { colour },
            offset: 0,
        }
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, model: &Model, now: SystemTime) {
        let rows = Layout::vertical([
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
        ]);
        let [head, middle, foot] = rows.areas(frame.area());
        let theme = self.theme;
        title(frame, head, model, theme);
        match &model.screen {
            Screen::Table => {
                self.offset = table::draw(frame, middle, model, theme, self.offset, now);
            }
            Screen::Single(one) => single::draw(frame, middle, model, one, theme, now),
            Screen::Text(text) => text::draw(frame, middle, text, theme),
        }
        foot_line(frame, foot, model);
        overlay::draw(frame, middle, model);
    }
}

/// Who is there, in which order; or that nobody answers.
fn title(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let mut spans = vec![Span::styled("paddock top", Theme::TITLE)];
    match &model.link {
        Link::Waiting => spans.push(Span::raw("  asking the agent")),
        Link::Gone(why) => spans.push(Span::styled(
            format!("  {}; asking again", human::single_line(why)),
            theme.grave(),
        )),
        Link::Up => spans.push(Span::raw(format!("  {}", counted(model)))),
    }
    let order = if model.reversed { ", reversed" } else { "" };
    let mut right = format!("by {}{order}", model.sort.word());
    if !model.filter.is_empty() {
        right = format!("filter {}  {right}", human::printable(&model.filter));
    }
    if model.tree {
        right.push_str(", as a tree");
    }
    let left = Line::from(spans);
    let room = usize::from(area.width).saturating_sub(left.width() + 2);
    frame.render_widget(left, area);
    if matches!(model.screen, Screen::Table) && !matches!(model.link, Link::Gone(_)) {
        let right = Line::raw(words::fit(&right, room)).right_aligned();
        let width = u16::try_from(room).unwrap_or(area.width);
        let x = area.x + area.width - width.min(area.width);
        frame.render_widget(right, Rect { x, width, ..area });
    }
}

fn counted(model: &Model) -> String {
    let count =
        |what: fn(&super::row::Row) -> bool| model.rows().iter().filter(|row| what(row)).count();
    let running = count(|row| row.used.is_some() && row.origin == Origin::Launched);
    let found = count(|row| row.used.is_some() && row.origin == Origin::Found);
    let paused = count(|row| row.state == State::Paused);
    let mut text = format!("{running} launched, {found} found");
    if paused > 0 {
        text = format!("{text}, {paused} paused");
    }
    if model.all {
        text = format!("{text}, {} stopped", count(|row| row.used.is_none()));
    }
    text
}

/// What became of the last wish, a question, or the keys.
fn foot_line(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let text = match (&model.message, &model.overlay, &model.screen) {
        (_, Overlay::Filter(_), _) => {
            format!("Filter: {}_", human::printable(&model.filter))
        }
        (Some(message), ..) => human::single_line(message),
        (_, _, Screen::Table) if area.width < 96 => {
            "q quit Enter one s sort f filter a all t tree l logs e events K kill h help".to_owned()
        }
        (_, _, Screen::Table) => {
            "q quit  Enter one  s sort  r reverse  f filter  a all  t tree  l logs  e events  K kill  h help"
                .to_owned()
        }
        (_, _, Screen::Single(_)) => "q back  l logs  e events  K kill  h help".to_owned(),
        (_, _, Screen::Text(text)) => {
            let other = match text.kind {
                TextKind::Logs => "e events",
                TextKind::Events => "l logs",
            };
            format!("q back  j/k scroll  G end  Enter one  {other}  K kill  h help")
        }
    };
    let width = usize::from(area.width);
    let padded = format!("{:<width$}", words::fit(&text, width));
    frame.render_widget(Paragraph::new(padded).style(Theme::BAR), area);
}

#[cfg(test)]
mod tests;
