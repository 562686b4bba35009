//! One container: what it is and may use on the left, its use over time on the right, its last
//! events below.

use std::{collections::VecDeque, time::SystemTime};

use paddock_agent::api::ContainerDetail;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::Sparkline,
};

use super::{
    super::{
        model::{Model, Past, Single},
        row::{Row, float},
    },
    text,
    theme::Theme,
    words::{fit, hundredths, or_none, percent, rate, size, status},
};
use crate::human;

/// Facts, and graphs of two lines each with a title.
const TOP: u16 = 13;

pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    one: &Single,
    theme: Theme,
    now: SystemTime,
) {
    let row = model.row(&one.id);
    let name = human::printable(&one.name);
    let state = row.map_or_else(|| "gone".to_owned(), |row| status(row, now));
    let head = Line::from(vec![
        Span::styled(name, Theme::TITLE),
        Span::raw(format!("  {state}")),
    ]);
    frame.render_widget(head, area);
    let below = Rect {
        y: area.y.saturating_add(1).min(area.bottom()),
        height: area.height.saturating_sub(1),
        ..area
    };
    let halves = Layout::vertical([Constraint::Min(TOP), Constraint::Fill(1)]);
    let [top, events] = halves.areas(below);
    let columns = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2);
    let [left, right] = columns.areas(top);
    facts(frame, left, &said(one, row));
    graphs(frame, right, model.past(&one.id), row, theme);
    let title = Line::styled("Last events", Theme::TITLE);
    frame.render_widget(title, events);
    let inside = Rect {
        y: events.y.saturating_add(1).min(events.bottom()),
        height: events.height.saturating_sub(1),
        ..events
    };
    if one.events.is_empty() {
        frame.render_widget(Line::styled("none yet", Theme::QUIET), inside);
    }
    let most = one.events.len().saturating_sub(inside.height.into());
    text::lines(frame, inside, one.events.iter().skip(most), theme);
}

fn facts(frame: &mut Frame<'_>, area: Rect, facts: &[(&'static str, String)]) {
    for (y, (what, value)) in (area.y..area.bottom()).zip(facts) {
        let room = usize::from(area.width).saturating_sub(9);
        let line = Line::from(vec![
            Span::styled(format!("{what:<9}"), Theme::QUIET),
            Span::raw(fit(value, room)),
        ]);
        frame.render_widget(
            line,
            Rect {
                y,
                height: 1,
                ..area
            },
        );
    }
}

/// What is most asked for first: a low terminal shows no more.
fn said(one: &Single, row: Option<&Row>) -> Vec<(&'static str, String)> {
    let used = row.and_then(|row| row.used).unwrap_or_default();
    let mut facts = vec![
        ("id", human::printable(&one.id).chars().take(12).collect()),
        (
            "memory",
            format!(
                "{} of {}",
                or_none(used.memory, size),
                used.memory_limit
                    .map_or_else(|| "no limit".to_owned(), size)
            ),
        ),
        (
            "waiting",
            format!(
                "cpu {} mem {} io {} %",
                hundredths(used.cpu_waiting),
                hundredths(used.memory_waiting),
                hundredths(used.io_waiting)
            ),
        ),
        (
            "io",
            format!(
                "{} read, {} written",
                or_none(used.read, size),
                or_none(used.written, size)
            ),
        ),
    ];
    if let Some(row) = row {
        facts.insert(1, ("image", human::printable(&row.image)));
        facts.push((
            "oom",
            format!("{} killed, {} escapes", row.oom_kills, row.escapes),
        ));
    }
    if let Some(detail) = &one.detail {
        facts.extend(detailed(detail));
    }
    facts
}

fn detailed(detail: &ContainerDetail) -> Vec<(&'static str, String)> {
    let stats = detail.stats.clone().unwrap_or_default();
    let quota = stats
        .cpu_quota_usec
        .zip(stats.cpu_period_usec.filter(|period| *period > 0));
    let quota = quota.map_or_else(
        || "no limit".to_owned(),
        |(quota, period)| format!("at most {:.2} CPUs", float(quota) / float(period)),
    );
    let throttled = stats
        .totals
        .cpu_throttled_periods
        .filter(|count| *count > 0);
    let throttled =
        throttled.map_or_else(String::new, |count| format!(", held back {count} times"));
    let summary = &detail.summary;
    let mut facts = vec![
        ("cpu", format!("{quota}{throttled}")),
        (
            "pids",
            format!(
                "{} of {}",
                or_none(stats.pids_current, |count| count.to_string()),
                stats
                    .pids_limit
                    .map_or_else(|| "no limit".to_owned(), |limit| limit.to_string())
            ),
        ),
        ("command", human::command(&summary.command)),
        ("pid", or_none(summary.pid, |pid| pid.to_string())),
        (
            "peak",
            format!(
                "{}, swap {}, anon {}, cache {}",
                or_none(stats.memory_peak_bytes, size),
                or_none(stats.memory_swap_bytes, size),
                or_none(stats.memory_anon_bytes, size),
                or_none(stats.memory_file_bytes, size)
            ),
        ),
        ("cgroup", human::printable(&detail.cgroup)),
    ];
    if let Some(parent) = &summary.parent {
        facts.push(("within", human::printable(parent)));
    }
    if summary.restart_count > 0 {
        facts.push(("restarts", summary.restart_count.to_string()));
    }
    if !detail.host_namespaces.is_empty() {
        facts.push((
            "host's",
            human::printable(&detail.host_namespaces.join(" ")),
        ));
    }
    for network in &detail.networks {
        let addresses: Vec<_> = network.addresses.iter().map(ToString::to_string).collect();
        facts.push((
            "network",
            format!(
                "{} {}",
                human::printable(&network.name),
                addresses.join(" ")
            ),
        ));
    }
    facts
}

/// A title, values, what the top line is, and that in words.
type Graph<'a> = (String, &'a VecDeque<u64>, u64, String);

/// Each with its present value.
fn graphs(frame: &mut Frame<'_>, area: Rect, past: Option<&Past>, row: Option<&Row>, theme: Theme) {
    let none = Past::default();
    let past = past.unwrap_or(&none);
    let used = row.and_then(|row| row.used).unwrap_or_default();
    let most = |values: &VecDeque<u64>| values.iter().copied().max().unwrap_or(0);
    let io: VecDeque<u64> = past
        .read
        .iter()
        .zip(&past.write)
        .map(|(read, write)| read.saturating_add(*write))
        .collect();
    // Of one CPU, of a MiB at least, so that idling does not look like work.
    let (cpu, rates) = (most(&past.cpu).max(1000), most(&io).max(1 << 20));
    let memory = used.memory_limit.unwrap_or_else(|| most(&past.memory));
    let graphs: [Graph<'_>; 4] = [
        (
            format!("CPU {} %", or_none(used.cpu_percent, percent)),
            &past.cpu,
            cpu,
            percent(float(cpu) / 10.0),
        ),
        (
            format!("memory {}", or_none(used.memory, size)),
            &past.memory,
            memory,
            size(memory),
        ),
        (
            format!(
                "read {}/s, written {}/s",
                rate(used.read_rate),
                rate(used.write_rate)
            ),
            &io,
            rates,
            size(rates),
        ),
        (
            format!("waiting {} % (PSI)", hundredths(row.and_then(Row::waiting))),
            &past.waiting,
            10_000,
            "100".to_owned(),
        ),
    ];
    let places: [Rect; 4] = Layout::vertical([Constraint::Fill(1); 4]).areas(area);
    for (graph, place) in graphs.into_iter().zip(places) {
        draw_graph(frame, place, graph, theme);
    }
}

fn draw_graph(
    frame: &mut Frame<'_>,
    place: Rect,
    (title, values, top, said): Graph<'_>,
    theme: Theme,
) {
    let of = format!("top {said}");
    let room = usize::from(place.width).saturating_sub(of.len() + 1);
    let title = format!("{:<room$} {of}", fit(&title, room));
    frame.render_widget(Line::styled(title, Theme::TITLE), place);
    let graph = Rect {
        y: place.y.saturating_add(1).min(place.bottom()),
        height: place.height.saturating_sub(1),
        ..place
    };
    let width = usize::from(graph.width);
    let skipped = values.len().saturating_sub(width);
    // New ones come in on the right.
    let empty = width.saturating_sub(values.len());
    let bars: Vec<u64> = std::iter::repeat_n(0, empty)
        .chain(values.iter().skip(skipped).copied())
        .collect();
    let sparkline = Sparkline::default()
        .data(&bars)
        .max(top.max(1))
        .style(theme.graph());
    frame.render_widget(sparkline, graph);
}
