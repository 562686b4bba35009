//! What `top` knows and how it was asked to show it. Pure: no terminal, no agent, no clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use clap::ValueEnum;
use paddock_agent::api::{ContainerDetail, ContainerStats, ContainerSummary, State};

use super::row::Row;

/// Answers that a container's past is kept for: four minutes at one a second.
pub(super) const PAST: usize = 240;
/// Lines of a log, and events, that are kept.
pub(super) const LINES: usize = 2000;
/// Nested deeper than this, one is shown as deep as this.
const DEEPEST: usize = 16;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    Name,
    #[default]
    Cpu,
    /// Bytes in use
    Mem,
    /// Of the limit
    MemPercent,
    /// What is waited for most
    Psi,
    Io,
    Pids,
    Oom,
    Escapes,
    /// The latest first
    Started,
    State,
}

impl Sort {
    pub(super) const ALL: [Self; 11] = [
        Self::Name,
        Self::Cpu,
        Self::Mem,
        Self::MemPercent,
        Self::Psi,
        Self::Io,
        Self::Pids,
        Self::Oom,
        Self::Escapes,
        Self::Started,
        Self::State,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Cpu => "cpu",
            Self::Mem => "mem",
            Self::MemPercent => "mem-percent",
            Self::Psi => "psi",
            Self::Io => "io",
            Self::Pids => "pids",
            Self::Oom => "oom",
            Self::Escapes => "escapes",
            Self::Started => "started",
            Self::State => "state",
        }
    }

    /// Numbers have the largest first; what is not known is least.
    fn order(self, one: &Row, other: &Row) -> std::cmp::Ordering {
        let float = |left: Option<f64>, right: Option<f64>| {
            right.unwrap_or(-1.0).total_cmp(&left.unwrap_or(-1.0))
        };
        let used = |row: &Row| row.used.unwrap_or_default();
        match self {
            Self::Name => one.name.cmp(&other.name),
            Self::Cpu => float(used(one).cpu_percent, used(other).cpu_percent),
            Self::Mem => used(other).memory.cmp(&used(one).memory),
            Self::MemPercent => other.memory_permille().cmp(&one.memory_permille()),
            Self::Psi => other.waiting().cmp(&one.waiting()),
            Self::Io => float(one.io_rate(), other.io_rate()),
            Self::Pids => used(other).pids.cmp(&used(one).pids),
            Self::Oom => other.oom_kills.cmp(&one.oom_kills),
            Self::Escapes => other.escapes.cmp(&one.escapes),
            Self::Started => other.started_at_ns.cmp(&one.started_at_ns),
            Self::State => state_rank(one.state).cmp(&state_rank(other.state)),
        }
    }
}

fn state_rank(state: State) -> u8 {
    match state {
        State::Running => 0,
        State::Paused => 1,
        State::Restarting => 2,
        State::Created => 3,
        State::Exited => 4,
    }
}

/// Whether the agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Not asked yet.
    Waiting,
    Up,
    /// Why not; what is shown is from before.
    Gone(String),
}

/// What has the whole screen.
#[derive(Debug)]
pub(super) enum Screen {
    Table,
    Single(Box<Single>),
    Text(Text),
}

#[derive(Debug, Default)]
pub(super) struct Single {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) detail: Option<ContainerDetail>,
    pub(super) events: VecDeque<Line>,
}

/// Text that grows at its end.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: TextKind,
    pub(super) lines: VecDeque<Line>,
    /// Lines below the screen.
    pub(super) back: usize,
    /// The first answer came.
    pub(super) told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextKind {
    Logs,
    Events,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) weight: Weight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Usual,
    /// An attempt, a denial, memory that ran out; what a log has of stderr.
    Notable,
    /// Somebody got out.
    Grave,
}

/// What is over the screen and has the keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overlay {
    None,
    Help,
    /// The chosen line.
    Sort(usize),
    /// As it was before.
    Filter(String),
    Kill {
        id: String,
        name: String,
    },
}

/// A container's past, the latest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// Tenths of a percent.
    pub(super) cpu: VecDeque<u64>,
    /// Bytes.
    pub(super) memory: VecDeque<u64>,
    /// Bytes a second.
    pub(super) read: VecDeque<u64>,
    pub(super) write: VecDeque<u64>,
    /// Hundredths of a percent.
    pub(super) waiting: VecDeque<u64>,
}

impl Past {
    fn add(&mut self, row: &Row) {
        let used = row.used.unwrap_or_default();
        for (past, value) in [
            (&mut self.cpu, whole(used.cpu_percent.unwrap_or(0.0) * 10.0)),
            (&mut self.memory, used.memory.unwrap_or(0)),
            (&mut self.read, whole(used.read_rate.unwrap_or(0.0))),
            (&mut self.write, whole(used.write_rate.unwrap_or(0.0))),
            (&mut self.waiting, row.waiting().unwrap_or(0).into()),
        ] {
            if past.len() == PAST {
                past.pop_front();
            }
            past.push_back(value);
        }
    }
}

/// Of a number that is shown or drawn; what is none is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` holds a float at the integer's ends"
)]
pub(super) fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[derive(Debug)]
pub(super) struct Model {
    rows: Vec<Row>,
    past: BTreeMap<String, Past>,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// Stopped ones, too.
    pub(super) all: bool,
    pub(super) tree: bool,
    /// Ids of those shown and how deep they are, in their order.
    shown: Vec<(usize, usize)>,
    selected: Option<String>,
    pub(super) screen: Screen,
    pub(super) overlay: Overlay,
    pub(super) link: Link,
    /// What became of the last thing that was asked for.
    pub(super) message: Option<String>,
}

impl Model {
    pub(super) fn new(sort: Sort, filter: String) -> Self {
        Self {
            rows: Vec::new(),
            past: BTreeMap::new(),
            sort,
            reversed: false,
            filter,
            all: false,
            tree: false,
            shown: Vec::new(),
            selected: None,
            screen: Screen::Table,
            overlay: Overlay::None,
            link: Link::Waiting,
            message: None,
        }
    }

    /// Takes an answer; `others` are those that do not run.
    pub(super) fn take(&mut self, stats: Vec<ContainerStats>, others: Vec<ContainerSummary>) {
        let before: BTreeMap<_, _> = self.rows.iter().map(|row| (&*row.id, row)).collect();
        let mut rows: Vec<Row> = Vec::with_capacity(stats.len() + others.len());
        for one in stats {
            let before = before.get(&*one.id).copied();
            rows.push(Row::running(one, before));
        }
        let known: BTreeSet<String> = rows.iter().map(|row| row.id.clone()).collect();
        let stopped = others.into_iter().filter(|one| !known.contains(&one.id));
        rows.extend(stopped.map(Row::stopped));
        self.take_rows(rows);
    }

    pub(super) fn take_rows(&mut self, rows: Vec<Row>) {
        // Before those that it counts go.
        let place = self.place();
        self.link = Link::Up;
        self.rows = rows;
        let rows = &self.rows;
        let there: BTreeSet<&str> = rows.iter().map(|row| &*row.id).collect();
        self.past.retain(|id, _| there.contains(&**id));
        for row in rows.iter().filter(|row| row.used.is_some()) {
            self.past.entry(row.id.clone()).or_default().add(row);
        }
        self.arrange_from(place);
    }

    /// Anew by what is asked for; the chosen one stays chosen, or the one in its place is.
    pub(super) fn arrange(&mut self) {
        self.arrange_from(self.place());
    }

    fn arrange_from(&mut self, place: Option<usize>) {
        let filter = self.filter.to_lowercase();
        let mut order: Vec<usize> = (0..self.rows.len())
            .filter(|&index| {
                let row = &self.rows[index];
                (self.all || row.used.is_some()) && (filter.is_empty() || row.has(&filter))
            })
            .collect();
        order.sort_by(|&one, &other| {
            let (one, other) = (&self.rows[one], &self.rows[other]);
            let order = self.sort.order(one, other);
            let order = if self.reversed {
                order.reverse()
            } else {
                order
            };
            order
                .then_with(|| one.name.cmp(&other.name))
                .then_with(|| one.id.cmp(&other.id))
        });
        self.shown = if self.tree {
            nested(&self.rows, &order)
        } else {
            order.into_iter().map(|index| (index, 0)).collect()
        };
        if self.place().is_none() {
            let last = self.shown.len().saturating_sub(1);
            self.choose(place.unwrap_or(0).min(last));
        }
    }

    /// Those shown, with how deep in others they are.
    pub(super) fn shown(&self) -> impl ExactSizeIterator<Item = (&Row, usize)> {
        self.shown
            .iter()
            .map(|&(index, depth)| (&self.rows[index], depth))
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn row(&self, id: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == id)
    }

    pub(super) fn past(&self, id: &str) -> Option<&Past> {
        self.past.get(id)
    }

    /// Of the chosen one among those shown.
    pub(super) fn place(&self) -> Option<usize> {
        let id = self.selected.as_ref()?;
        self.shown().position(|(row, _)| row.id == *id)
    }

    pub(super) fn chosen(&self) -> Option<&Row> {
        self.shown().nth(self.place()?).map(|(row, _)| row)
    }

    fn choose(&mut self, place: usize) {
        let id = self.shown().nth(place).map(|(row, _)| row.id.clone());
        if id.is_some() || self.selected.is_none() {
            self.selected = id;
        }
    }

    /// So many lines down, up where negative.
    pub(super) fn step(&mut self, by: isize) {
        let last = self.shown.len().saturating_sub(1);
        let place = self.place().unwrap_or(0).saturating_add_signed(by);
        self.choose(place.min(last));
    }

    /// Which container the screen is of.
    pub(super) fn subject(&self) -> Option<(String, String)> {
        match &self.screen {
            Screen::Table => self.chosen().map(|row| (row.id.clone(), row.name.clone())),
            Screen::Single(one) => Some((one.id.clone(), one.name.clone())),
            Screen::Text(text) => Some((text.id.clone(), text.name.clone())),
        }
    }

    pub(super) fn open_single(&mut self) {
        if let Some((id, name)) = self.subject() {
            self.screen = Screen::Single(Box::new(Single {
                id,
                name,
                ..Single::default()
            }));
        }
    }

    pub(super) fn open_text(&mut self, kind: TextKind) {
        if let Some((id, name)) = self.subject() {
            self.screen = Screen::Text(Text {
                id,
                name,
                kind,
                lines: VecDeque::new(),
                back: 0,
                told: false,
            });
        }
    }

    pub(super) fn take_detail(&mut self, detail: ContainerDetail) {
        if let Screen::Single(one) = &mut self.screen
            && one.id == detail.summary.id
        {
            one.detail = Some(detail);
        }
    }

    /// New lines of a container's, or (a log) all that there are.
    pub(super) fn take_lines(&mut self, id: &str, kind: TextKind, lines: Vec<Line>) {
        match &mut self.screen {
            Screen::Single(one) if one.id == id && kind == TextKind::Events => {
                append(&mut one.events, lines);
            }
            Screen::Text(text) if text.id == id && text.kind == kind => {
                text.told = true;
                if kind == TextKind::Logs {
                    text.lines.clear();
                }
                append(&mut text.lines, lines);
            }
            _ => {}
        }
    }
}

fn append(to: &mut VecDeque<Line>, lines: Vec<Line>) {
    to.extend(lines);
    let over = to.len().saturating_sub(LINES);
    to.drain(..over);
}

/// Each after the one that it is in; one whose parent is not shown stands at the left.
fn nested(rows: &[Row], order: &[usize]) -> Vec<(usize, usize)> {
    let names: BTreeSet<&str> = order.iter().map(|&index| &*rows[index].name).collect();
    let parent = |index: usize| {
        let parent = rows[index].parent.as_deref();
        parent.filter(|parent| names.contains(parent))
    };
    let mut children: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut roots = Vec::new();
    for &index in order {
        match parent(index) {
            Some(parent) => children.entry(parent).or_default().push(index),
            None => roots.push(index),
        }
    }
    let mut shown = Vec::with_capacity(order.len());
    let mut next: Vec<(usize, usize)> = roots.into_iter().rev().map(|index| (index, 0)).collect();
    while let Some((index, depth)) = next.pop() {
        shown.push((index, depth.min(DEEPEST)));
        // Taken out, so that nobody is shown twice.
        for child in children
            .remove(&*rows[index].name)
            .into_iter()
            .flatten()
            .rev()
        {
            next.push((child, depth + 1));
        }
    }
    // Parents in a circle: nothing the agent says, but nobody is to be lost.
    shown.extend(children.into_values().flatten().map(|index| (index, 0)));
    shown
}

#[cfg(test)]
#[path = "model_tests.rs"]
pub(super) mod tests;
