//! The table: as many columns as the terminal is wide enough for, the names in what is left.

use std::time::SystemTime;

use paddock_agent::api::Origin;
use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{
    super::{
        model::{Link, Model},
        row::Row,
    },
    theme::Theme,
    words::{fit, hundredths, or_none, percent, rate, size, status},
};
use crate::human;

/// Names get at least this.
const NAME: usize = 10;

struct Column {
    title: &'static str,
    width: usize,
    /// Words stand on the left.
    left: bool,
    /// Columns that the terminal has, from and up to.
    room: std::ops::Range<u16>,
    cell: fn(&Row, SystemTime) -> String,
    style: fn(&Row, Theme) -> Style,
}

fn plain(_: &Row, _: Theme) -> Style {
    Style::new()
}

fn of_limit(row: &Row, theme: Theme) -> Style {
    match row.memory_permille() {
        Some(900..) => theme.grave(),
        Some(750..) => theme.notable(),
        _ => Style::new(),
    }
}

fn waits(hundredths: Option<u32>, theme: Theme) -> Style {
    match hundredths {
        Some(5000..) => theme.grave(),
        Some(1000..) => theme.notable(),
        _ => Style::new(),
    }
}

fn counted(count: u64, theme: Theme) -> Style {
    if count > 0 {
        theme.grave()
    } else {
        Theme::QUIET
    }
}

fn origin(row: &Row) -> &'static str {
    match row.origin {
        Origin::Launched => "launched",
        Origin::Found => "found",
    }
}

const ANY: std::ops::Range<u16> = 0..u16::MAX;

const fn number(
    title: &'static str,
    width: usize,
    room: std::ops::Range<u16>,
    cell: fn(&Row, SystemTime) -> String,
    style: fn(&Row, Theme) -> Style,
) -> Column {
    Column {
        title,
        width,
        left: false,
        room,
        cell,
        style,
    }
}

const fn word(
    title: &'static str,
    width: usize,
    from: u16,
    cell: fn(&Row, SystemTime) -> String,
) -> Column {
    Column {
        title,
        width,
        left: true,
        room: from..u16::MAX,
        cell,
        style: plain,
    }
}

/// After the name.
const COLUMNS: [Column; 17] = [
    number(
        "CPU%",
        5,
        ANY,
        |row, _| or_none(row.used.and_then(|used| used.cpu_percent), percent),
        plain,
    ),
    number("MEM/LIMIT", 11, ANY, |row, _| memory(row), of_limit),
    number(
        "MEM%",
        4,
        50..u16::MAX,
        |row, _| {
            or_none(row.memory_permille(), |permille| {
                percent(super::super::row::float(permille) / 10.0)
            })
        },
        of_limit,
    ),
    number(
        "pCPU",
        4,
        72..u16::MAX,
        |row, _| hundredths(row.used.and_then(|used| used.cpu_waiting)),
        |row, theme| waits(row.used.and_then(|used| used.cpu_waiting), theme),
    ),
    number(
        "pMEM",
        4,
        72..u16::MAX,
        |row, _| hundredths(row.used.and_then(|used| used.memory_waiting)),
        |row, theme| waits(row.used.and_then(|used| used.memory_waiting), theme),
    ),
    number(
        "pIO",
        4,
        100..u16::MAX,
        |row, _| hundredths(row.used.and_then(|used| used.io_waiting)),
        |row, theme| waits(row.used.and_then(|used| used.io_waiting), theme),
    ),
    number("IO/s", 5, 66..100, |row, _| rate(row.io_rate()), plain),
    number(
        "READ/s",
        6,
        100..u16::MAX,
        |row, _| rate(row.used.and_then(|used| used.read_rate)),
        plain,
    ),
    number(
        "WRITE/s",
        7,
        100..u16::MAX,
        |row, _| rate(row.used.and_then(|used| used.write_rate)),
        plain,
    ),
    number(
        "PIDS",
        5,
        56..u16::MAX,
        |row, _| or_none(row.used.and_then(|used| used.pids), |pids| pids.to_string()),
        plain,
    ),
    number(
        "OOM",
        3,
        ANY,
        |row, _| short(row.oom_kills),
        |row, theme| counted(row.oom_kills, theme),
    ),
    number(
        "ESC",
        3,
        0..100,
        |row, _| short(row.escapes),
        |row, theme| counted(row.escapes, theme),
    ),
    number(
        "ESCAPES",
        7,
        100..u16::MAX,
        |row, _| row.escapes.to_string(),
        |row, theme| counted(row.escapes, theme),
    ),
    word("ORIGIN", 8, 120, |row, _| origin(row).to_owned()),
    word("STATUS", 10, 40, status),
    word("CONTAINER ID", 12, 140, |row, _| {
        human::printable(&row.id).chars().take(12).collect()
    }),
    word("IMAGE", 30, 160, |row, _| human::printable(&row.image)),
];

fn memory(row: &Row) -> String {
    let used = row.used.unwrap_or_default();
    match (used.memory, used.memory_limit) {
        (Some(used), Some(limit)) => format!("{}/{}", size(used), size(limit)),
        (used, _) => or_none(used, size),
    }
}

/// Three columns.
fn short(count: u64) -> String {
    if count > 999 {
        "1k+".to_owned()
    } else {
        count.to_string()
    }
}

/// Where the terminal is so narrow that not all fit, the last ones go.
fn columns(width: u16) -> (usize, Vec<&'static Column>) {
    let mut left = usize::from(width).saturating_sub(NAME);
    let mut kept = Vec::new();
    for column in COLUMNS.iter().filter(|column| column.room.contains(&width)) {
        if column.width + 1 > left {
            break;
        }
        left -= column.width + 1;
        kept.push(column);
    }
    (NAME.min(width.into()) + left, kept)
}

/// Returns how many lines are above the screen, by how many there were.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    theme: Theme,
    offset: usize,
    now: SystemTime,
) -> usize {
    let (name, columns) = columns(area.width);
    let mut head = pad("NAME", name, true);
    for column in &columns {
        head = head + " " + &pad(column.title, column.width, column.left);
    }
    let height = usize::from(area.height).saturating_sub(1);
    frame.render_widget(
        Line::styled(format!("{head:<0$}", usize::from(area.width)), Theme::BAR),
        area,
    );
    let below = Rect {
        y: area.y.saturating_add(1).min(area.bottom()),
        height: area.height.saturating_sub(1),
        ..area
    };
    if model.shown().len() == 0 {
        frame.render_widget(Line::styled(nothing(model), Theme::QUIET), below);
        return 0;
    }
    let place = model.place().unwrap_or(0);
    let most = model.shown().len().saturating_sub(height);
    let lowest = (place + 1).saturating_sub(height);
    let offset = offset.clamp(lowest, place.max(lowest)).min(most);
    let shown = model.shown().enumerate().skip(offset).take(height);
    for (line, (index, (row, depth))) in (below.y..below.bottom()).zip(shown) {
        let indent = if depth == 0 {
            String::new()
        } else {
            format!("{}└ ", "  ".repeat(depth - 1))
        };
        let text = format!("{indent}{}", human::printable(&row.name));
        let mut spans = vec![Span::raw(pad(&fit(&text, name), name, true))];
        for column in &columns {
            let cell = fit(&(column.cell)(row, now), column.width);
            let style = (column.style)(row, theme);
            spans.push(Span::raw(" "));
            spans.push(Span::styled(pad(&cell, column.width, column.left), style));
        }
        let mut drawn = Line::from(spans);
        if row.used.is_none() {
            drawn = drawn.patch_style(Theme::QUIET);
        }
        let at = Rect {
            y: line,
            height: 1,
            ..below
        };
        frame.render_widget(drawn, at);
        if index == place {
            frame.buffer_mut().set_style(at, Theme::CHOSEN);
        }
    }
    offset
}

fn pad(text: &str, width: usize, left: bool) -> String {
    let room = " ".repeat(width.saturating_sub(Span::raw(text).width()));
    if left {
        format!("{text}{room}")
    } else {
        format!("{room}{text}")
    }
}

fn nothing(model: &Model) -> &'static str {
    match model.link {
        Link::Waiting | Link::Gone(_) => "",
        Link::Up if model.rows().is_empty() => "no container runs",
        Link::Up if model.filter.is_empty() => "none runs; a shows stopped ones",
        Link::Up => "none has that in its name or image; f changes the filter",
    }
}
