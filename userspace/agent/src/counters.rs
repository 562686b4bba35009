//! What is counted of one container, from both halves, in a form that can be summed and kept.

use paddock_cgroups::{Stats, Totals};
use paddock_probe::{Constraint, EscapeKind, Level, Outcome, SlotCounters, Way};

use crate::api::Traffic;

/// A container's counters; gauges live in [`Stats`] alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counters {
    /// All zero without a kernel half.
    pub(crate) kernel: SlotCounters,
    /// Its own count of OOM kills is a cross-check, and all there is without a kernel half.
    pub(crate) cgroup: Totals,
    /// See [`Counters::oom_difference`]; `None` where nobody counts both.
    pub(crate) oom_mismatch: Option<u64>,
    /// Limits that somebody else had changed and that were written again.
    pub(crate) limits_restored: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            kernel: SlotCounters::ZERO,
            cgroup: Totals::default(),
            oom_mismatch: None,
            limits_restored: 0,
        }
    }
}

impl Counters {
    pub(crate) fn new(kernel: &SlotCounters, stats: &Stats) -> Self {
        Self {
            kernel: *kernel,
            cgroup: stats.totals,
            oom_mismatch: None,
            limits_restored: 0,
        }
    }

    /// Sums of many: how containers beyond the cap on labels are shown.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, cell) in self.kernel.cells.iter_mut().zip(other.kernel.cells) {
            *sum = sum.saturating_add(cell);
        }
        self.limits_restored = self.limits_restored.saturating_add(other.limits_restored);
        self.cgroup.add(&other.cgroup);
        if let Some(mismatch) = other.oom_mismatch {
            *self.oom_mismatch.get_or_insert(0) += mismatch;
        }
    }
}

impl Counters {
    /// By how many OOM kills the kernel half's count and the cgroup's own differ, which say the
    /// same of v2's subtree and, `leaf`, of v1's cgroup alone.
    pub(crate) fn oom_difference(&self, leaf: bool) -> Option<u64> {
        let below = if leaf { self.kernel.oom_nested() } else { 0 };
        let seen = oom_kills(&self.kernel) + self.kernel.oom_before();
        let twice = self.cgroup.memory_oom_group_kills.unwrap_or(0);
        let cgroup = self.cgroup.memory_oom_kills?;
        let uncounted = below + self.kernel.oom_outside();
        Some(difference(seen.saturating_sub(uncounted), cgroup, twice))
    }
}

/// A group kill begins with one process and then takes the group, that one with it where it
/// still has its memory: the cgroup counts it once or twice.
fn difference(seen: u64, cgroup: u64, groups: u64) -> u64 {
    match cgroup.checked_sub(seen) {
        Some(unseen) => unseen.saturating_sub(groups),
        None => seen - cgroup,
    }
}

/// Constraints and levels that a kill can have.
pub(crate) const OOM_KINDS: [(Constraint, Level); 5] = [
    (Constraint::Memcg, Level::Own),
    (Constraint::Memcg, Level::Nested),
    (Constraint::Memcg, Level::Ancestor),
    (Constraint::Cpuset, Level::Host),
    (Constraint::Host, Level::Host),
];

/// Processes that the OOM killer took.
pub(crate) fn oom_kills(kernel: &SlotCounters) -> u64 {
    OOM_KINDS
        .into_iter()
        .map(|(constraint, level)| kernel.oom_kills(constraint, level))
        .sum()
}

/// What is another's and was obtained.
pub(crate) fn escapes(kernel: &SlotCounters) -> u64 {
    EscapeKind::ALL
        .into_iter()
        .map(|kind| kernel.escapes(kind, Outcome::Allowed))
        .sum()
}

pub(crate) fn traffic(kernel: &SlotCounters) -> Traffic {
    let [received_packets, received_bytes] = kernel.traffic(Way::Received);
    let [sent_packets, sent_bytes] = kernel.traffic(Way::Sent);
    Traffic {
        received_bytes,
        received_packets,
        sent_bytes,
        sent_packets,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_group_kill_may_be_counted_twice() {
        assert_eq!(difference(5, 5, 0), 0);
        assert_eq!(difference(5, 6, 0), 1);
        assert_eq!(difference(6, 5, 3), 1);
        assert_eq!(difference(5, 6, 1), 0);
        assert_eq!(difference(5, 5, 1), 0);
        assert_eq!(difference(5, 7, 1), 1);
    }
}
