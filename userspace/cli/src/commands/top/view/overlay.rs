//! What is over the screen for a while: the help, the menu of fields, the question before a kill.

use ratatui::{
    Frame,
    layout::Rect,
    text::Line,
    widgets::{Block, Clear, Paragraph},
};

use super::{
    super::model::{Model, Overlay, Sort},
    theme::Theme,
    words::fit,
};
use crate::human;

const HELP: [&str; 17] = [
    "j k, arrows  up and down; PgUp PgDn g G further",
    "Enter, o     one container: limits, use over time, events",
    "l  e         its log, its events",
    "K            kill it, after a question",
    "s  r         sort by another field, turn the order",
    "f            only those with a text in name or image",
    "a            stopped ones, too",
    "t            as a tree: containers in containers",
    "q, Esc       back, and from the table out",
    "",
    "CPU%         100 is one CPU",
    "MEM          without what can be dropped at once",
    "pCPU pMEM    time that some task waited for it (PSI),",
    "pIO          in percent of the last ten seconds",
    "OOM          processes that the OOM killer took",
    "ESC          escapes and attempts at them",
    "found        started by another runtime",
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    match &model.overlay {
        Overlay::None | Overlay::Filter(_) => {}
        Overlay::Help => {
            let lines = HELP.iter().map(|line| Line::raw(*line)).collect();
            window(frame, area, "Keys and columns", lines, 59);
        }
        Overlay::Sort(place) => {
            let line = |(index, sort): (usize, &Sort)| {
                let now = if *sort == model.sort { "*" } else { " " };
                let line = Line::raw(format!("{now} {:<14}", sort.word()));
                if index == *place {
                    line.style(Theme::CHOSEN)
                } else {
                    line
                }
            };
            let lines = Sort::ALL.iter().enumerate().map(line).collect();
            window(frame, area, "Sort by", lines, 20);
        }
        Overlay::Kill { id, name } => {
            let short: String = human::printable(id).chars().take(12).collect();
            let name = fit(&human::printable(name), 40);
            let lines = vec![
                Line::raw(format!("Kill {name} ({short})?")),
                Line::raw(""),
                Line::raw("y  at once, SIGKILL"),
                Line::raw("t  asked to end, SIGTERM"),
                Line::raw("other keys leave it be"),
            ];
            window(frame, area, "Kill", lines, 64);
        }
    }
}

/// In the middle, as large as there is room for.
fn window(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>, width: u16) {
    let height = u16::try_from(lines.len())
        .unwrap_or(u16::MAX)
        .saturating_add(2);
    let (width, height) = (width.min(area.width), height.min(area.height));
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(title).title_style(Theme::TITLE);
    frame.render_widget(Paragraph::new(lines).block(block), place);
}
