//! One container as `top` shows it: what the agent says of it, and rates over the last two answers.

use paddock_agent::api::{ContainerStats, ContainerSummary, Origin, State};

/// Nanoseconds a second has.
const SECOND: f64 = 1e9;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) image: String,
    /// Name of the container that it is in.
    pub(super) parent: Option<String>,
    pub(super) origin: Origin,
    pub(super) state: State,
    pub(super) started_at_ns: Option<u64>,
    pub(super) exit_code: Option<i32>,
    pub(super) oom_killed: bool,
    pub(super) oom_kills: u64,
    pub(super) escapes: u64,
    /// What it uses, while it runs.
    pub(super) used: Option<Use>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Use {
    pub(super) time_ns: u64,
    /// 100 is one CPU.
    pub(super) cpu_percent: Option<f64>,
    pub(super) memory: Option<u64>,
    pub(super) memory_limit: Option<u64>,
    /// Hundredths of a percent of the last ten seconds in which some task waited.
    pub(super) cpu_waiting: Option<u32>,
    pub(super) memory_waiting: Option<u32>,
    pub(super) io_waiting: Option<u32>,
    pub(super) read: Option<u64>,
    pub(super) written: Option<u64>,
    /// Bytes a second, from the second answer on.
    pub(super) read_rate: Option<f64>,
    pub(super) write_rate: Option<f64>,
    pub(super) pids: Option<u64>,
}

impl Row {
    /// `before`: what it was an answer ago.
    pub(super) fn running(stats: ContainerStats, before: Option<&Self>) -> Self {
        let one = &stats.stats;
        let mut used = Use {
            time_ns: stats.time_ns,
            cpu_percent: stats.cpu_percent,
            memory: one.memory_working_set_bytes.or(one.memory_usage_bytes),
            memory_limit: one.memory_limit_bytes.filter(|limit| *limit > 0),
            cpu_waiting: one.cpu_waiting_avg10,
            memory_waiting: one.memory_waiting_avg10,
            io_waiting: one.io_waiting_avg10,
            read: one.totals.io_read_bytes,
            written: one.totals.io_write_bytes,
            read_rate: None,
            write_rate: None,
            pids: one.pids_current,
        };
        if let Some(before) = before.and_then(|row| row.used) {
            let over = (before.time_ns, used.time_ns);
            used.read_rate = rate(before.read, used.read, over);
            used.write_rate = rate(before.written, used.written, over);
        }
        Self {
            id: stats.id,
            name: stats.name,
            image: stats.image,
            parent: stats.parent,
            origin: stats.origin,
            state: stats.state,
            started_at_ns: stats.started_at_ns,
            exit_code: None,
            oom_killed: false,
            oom_kills: stats.oom_kills,
            escapes: stats.escapes,
            used: Some(used),
        }
    }

    /// One that does not run.
    pub(super) fn stopped(summary: ContainerSummary) -> Self {
        Self {
            id: summary.id,
            name: summary.name,
            image: summary.image,
            parent: summary.parent,
            origin: summary.origin,
            state: summary.state,
            started_at_ns: summary.started_at_ns,
            exit_code: summary.exit_code,
            oom_killed: summary.oom_killed,
            oom_kills: summary.oom_kills,
            escapes: summary.escapes,
            used: None,
        }
    }

    /// Tenths of a percent of the limit.
    pub(super) fn memory_permille(&self) -> Option<u64> {
        let used = self.used?;
        Some(used.memory?.saturating_mul(1000) / used.memory_limit?)
    }

    /// Read and written, bytes a second.
    pub(super) fn io_rate(&self) -> Option<f64> {
        let used = self.used?;
        match (used.read_rate, used.write_rate) {
            (None, None) => None,
            (read, write) => Some(read.unwrap_or(0.0) + write.unwrap_or(0.0)),
        }
    }

    /// What it waits for most.
    pub(super) fn waiting(&self) -> Option<u32> {
        let used = self.used?;
        let all = [used.cpu_waiting, used.memory_waiting, used.io_waiting];
        all.into_iter().flatten().max()
    }

    /// Whether a filter's text, in small letters, is in its name or image or begins its id.
    pub(super) fn has(&self, text: &str) -> bool {
        // Fewer digits begin many ids.
        let id = text.len() >= 4 && self.id.starts_with(text);
        self.name.to_lowercase().contains(text) || self.image.to_lowercase().contains(text) || id
    }
}

/// `None` where either is not known, no time has passed, or it began anew.
fn rate(before: Option<u64>, now: Option<u64>, (from, to): (u64, u64)) -> Option<f64> {
    let grown = now?.checked_sub(before?)?;
    let span = to.checked_sub(from).filter(|span| *span > 0)?;
    Some(float(grown) / float(span) * SECOND)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "shown with three digits at most"
)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A running one, by its numbers.
    pub(in crate::commands::top) fn row(name: &str, cpu_percent: f64, memory: u64) -> Row {
        Row {
            id: format!("{name:a<64}").to_lowercase(),
            name: name.into(),
            image: "host".into(),
            parent: None,
            origin: Origin::Launched,
            state: State::Running,
            started_at_ns: Some(40_000_000_000),
            exit_code: None,
            oom_killed: false,
            oom_kills: 0,
            escapes: 0,
            used: Some(Use {
                time_ns: 100_000_000_000,
                cpu_percent: Some(cpu_percent),
                memory: Some(memory),
                memory_limit: Some(64 << 20),
                cpu_waiting: Some(1250),
                memory_waiting: Some(0),
                io_waiting: None,
                read: Some(0),
                written: Some(0),
                read_rate: None,
                write_rate: None,
                pids: Some(3),
            }),
        }
    }

    #[test]
    fn rates_are_over_the_time_between_answers() {
        assert_eq!(rate(Some(100), Some(300), (0, 2_000_000_000)), Some(100.0));
        assert_eq!(rate(Some(300), Some(100), (0, 1)), None, "began anew");
        assert_eq!(rate(Some(1), Some(2), (5, 5)), None, "no time between");
        assert_eq!(rate(None, Some(2), (0, 1)), None);
    }

    #[test]
    fn a_filter_looks_at_name_image_and_the_ids_beginning() {
        let one = row("Web", 1.0, 1);
        assert!(one.has("eb") && one.has("hos") && one.has("webaa"));
        assert!(!one.has("ebaa") && !one.has("x"));
        let named = row("Other", 1.0, 1);
        let renamed = Row {
            name: "x".into(),
            ..named
        };
        assert!(renamed.has("othe") && !renamed.has("oth"));
    }
}
