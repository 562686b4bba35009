//! A log, or a container's events, the last of them at the bottom.

use ratatui::{Frame, layout::Rect, style::Style, text::Line};

use super::{
    super::model::{self, Text, TextKind, Weight},
    theme::Theme,
    words::fit,
};
use crate::human;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, text: &Text, theme: Theme) {
    let what = match text.kind {
        TextKind::Logs => "log",
        TextKind::Events => "events",
    };
    let title = format!("{} of {}", what, human::printable(&text.name));
    let title = match text.back {
        0 => title,
        back => format!("{title}, {back} lines from its end"),
    };
    frame.render_widget(Line::styled(title, Theme::TITLE), area);
    let below = Rect {
        y: area.y.saturating_add(1).min(area.bottom()),
        height: area.height.saturating_sub(1),
        ..area
    };
    if text.lines.is_empty() {
        let said = if text.told { "nothing yet" } else { "asking" };
        frame.render_widget(Line::styled(said, Theme::QUIET), below);
        return;
    }
    let height = usize::from(below.height);
    let most = text.lines.len().saturating_sub(height);
    let first = most.saturating_sub(text.back);
    lines(frame, below, text.lines.iter().skip(first), theme);
}

/// One a line from the top.
pub(super) fn lines<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    lines: impl Iterator<Item = &'a model::Line>,
    theme: Theme,
) {
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        let style = match line.weight {
            Weight::Usual => Style::new(),
            Weight::Notable => theme.notable(),
            Weight::Grave => theme.grave(),
        };
        let text = fit(&line.text, area.width.into());
        let at = Rect {
            y,
            height: 1,
            ..area
        };
        frame.render_widget(Line::styled(text, style), at);
    }
}
