//! Colours, or none of them (no-color.org): then bold, dim and reversed say the same.

use ratatui::style::{Color, Modifier, Style};

#[derive(Clone, Copy, Debug)]
pub(in crate::commands::top) struct Theme {
    pub(super) colour: bool,
}

impl Theme {
    pub(super) const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
    /// The table's head and the line of keys.
    pub(super) const BAR: Style = Style::new().add_modifier(Modifier::REVERSED);
    /// By an attribute with colours, too: a terminal's own choice of them may hide any.
    pub(super) const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);
    pub(super) const QUIET: Style = Style::new().add_modifier(Modifier::DIM);

    pub(super) fn notable(self) -> Style {
        self.of(Color::Yellow, Modifier::empty())
    }

    pub(super) fn grave(self) -> Style {
        self.of(Color::Red, Modifier::BOLD)
    }

    pub(super) fn graph(self) -> Style {
        self.of(Color::Cyan, Modifier::empty())
    }

    fn of(self, colour: Color, modifier: Modifier) -> Style {
        let style = Style::new().add_modifier(modifier);
        if self.colour { style.fg(colour) } else { style }
    }
}
