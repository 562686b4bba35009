//! What was done to bring a container up, for who asks: `paddock run --trace-steps`.
//!
//! The agent begins it with the cgroup, the monitor goes on with the clone, and the child tells
//! the numbers of its steps as it finishes them: words are made outside of it. Without being
//! asked for nothing is kept and the child says nothing.
#![forbid(unsafe_code)]

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// All that was done so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// `CLOCK_MONOTONIC` when it began, in nanoseconds.
    start_ns: u64,
    steps: Vec<Traced>,
}

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Microseconds from the beginning to its end.
    pub at_us: u32,
    pub what: String,
    /// Calls, files and values in the kernel's words; printable ASCII.
    pub how: String,
}

impl Trace {
    pub fn begin() -> Self {
        Self {
            start_ns: now_ns(),
            steps: Vec::new(),
        }
    }

    /// Just now.
    pub fn done(&mut self, what: &str, how: &str) {
        self.done_at(micros_since(self.start_ns), what, how);
    }

    pub(crate) fn done_at(&mut self, at_us: u32, what: &str, how: &str) {
        self.steps.push(Traced {
            at_us,
            what: what.to_owned(),
            // Paths and values can be anybody's; a terminal is to show them as they are.
            how: how
                .trim_end()
                .escape_default()
                .to_string()
                .replace("\\\"", "\"")
                .replace("\\'", "'"),
        });
    }

    pub(crate) fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// The first of them, as many as are at most `limit` bytes long together, and how many not.
    pub(crate) fn into_steps(mut self, limit: usize) -> Vec<Traced> {
        // Of one in JSON: its names, a number's digits, and each backslash twice.
        let length = |step: &Traced| 64 + step.what.len() + 2 * step.how.len();
        let fits = |left: &mut usize, step: &Traced| {
            *left = left.checked_sub(length(step))?;
            Some(())
        };
        let count = self.steps.iter().scan(limit, fits).count();
        let all = self.steps.len();
        if count < all {
            self.steps.truncate(count);
            let at_us = self.steps.last().map_or(0, |step| step.at_us);
            self.done_at(
                at_us,
                "...",
                &format!("{} more, too long to tell", all - count),
            );
        }
        self.steps
    }
}

/// No allocation: the child's clock too.
pub(crate) fn micros_since(start_ns: u64) -> u32 {
    u32::try_from(now_ns().saturating_sub(start_ns) / 1000).unwrap_or(u32::MAX)
}

fn now_ns() -> u64 {
    // The kernel has this clock since 2.6, and it does not go below 0.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_in_order_and_harmless_to_a_terminal() {
        let mut trace = Trace::begin();
        trace.done("limit", "max = \"1\"\n");
        trace.done("bind", "/a\u{1b}[2J'");
        let steps = trace.into_steps(1 << 10);
        assert_eq!(steps[0].how, "max = \"1\"");
        assert_eq!(steps[1].how, "/a\\u{1b}[2J'");
        assert!(steps[0].at_us <= steps[1].at_us);
    }

    #[test]
    fn what_is_too_long_is_counted() {
        let mut trace = Trace::begin();
        (0..100).for_each(|_| trace.done("step", &"x".repeat(100)));
        let steps = trace.into_steps(1000);
        assert_eq!(steps.len(), 4);
        assert_eq!(steps[3].how, "97 more, too long to tell");
        assert!(serde_json::to_vec(&steps).unwrap().len() < 1000);
    }
}
