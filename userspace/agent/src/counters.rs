//! What is counted of one container, from both halves, in a form that can be summed and kept.

use paddock_cgroups::Stats;
use paddock_probe::{Constraint, EscapeKind, Outcome, SlotCounters};
use serde::{Deserialize, Serialize};

/// A container's counters; gauges live in [`Stats`] alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counters {
    /// All zero without a kernel half.
    pub(crate) kernel: SlotCounters,
    pub(crate) cpu: CpuCounters,
    /// The cgroup's own count of kills: a cross-check, and all there is without a kernel half.
    pub(crate) memory_oom_kills: Option<u64>,
    /// Limits that somebody else had changed and that were written again.
    pub(crate) limits_restored: u64,
}

/// Counters of the cpu controllers, `None` where the host has not got them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CpuCounters {
    pub(crate) usage_usec: Option<u64>,
    pub(crate) user_usec: Option<u64>,
    pub(crate) system_usec: Option<u64>,
    pub(crate) periods: Option<u64>,
    pub(crate) throttled_periods: Option<u64>,
    pub(crate) throttled_usec: Option<u64>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            kernel: SlotCounters::ZERO,
            cpu: CpuCounters::default(),
            memory_oom_kills: None,
            limits_restored: 0,
        }
    }
}

impl Counters {
    pub(crate) fn new(kernel: &SlotCounters, stats: &Stats) -> Self {
        let cpu = CpuCounters {
            usage_usec: stats.cpu_usage_usec,
            user_usec: stats.cpu_user_usec,
            system_usec: stats.cpu_system_usec,
            periods: stats.cpu_periods,
            throttled_periods: stats.cpu_throttled_periods,
            throttled_usec: stats.cpu_throttled_usec,
        };
        Self {
            kernel: *kernel,
            cpu,
            memory_oom_kills: stats.memory_oom_kills,
            limits_restored: 0,
        }
    }

    /// Sums of many: how containers beyond the cap on labels are shown.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, cell) in self.kernel.cells.iter_mut().zip(other.kernel.cells) {
            *sum = sum.saturating_add(cell);
        }
        self.limits_restored = self.limits_restored.saturating_add(other.limits_restored);
        let Self { cpu, .. } = self;
        for (sum, value) in [
            (&mut cpu.usage_usec, other.cpu.usage_usec),
            (&mut cpu.user_usec, other.cpu.user_usec),
            (&mut cpu.system_usec, other.cpu.system_usec),
            (&mut cpu.periods, other.cpu.periods),
            (&mut cpu.throttled_periods, other.cpu.throttled_periods),
            (&mut cpu.throttled_usec, other.cpu.throttled_usec),
            (&mut self.memory_oom_kills, other.memory_oom_kills),
        ] {
            if let Some(value) = value {
                *sum = Some(sum.unwrap_or(0).saturating_add(value));
            }
        }
    }
}

/// Processes that the OOM killer took.
pub(crate) fn oom_kills(kernel: &SlotCounters) -> u64 {
    kernel.oom_kills(Constraint::Memcg) + kernel.oom_kills(Constraint::Host)
}

/// What is another's and was obtained.
pub(crate) fn escapes(kernel: &SlotCounters) -> u64 {
    EscapeKind::ALL
        .into_iter()
        .map(|kind| kernel.escapes(kind, Outcome::Allowed))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_zero_differ_in_sums() {
        let with = |usage| {
            let stats = Stats {
                cpu_usage_usec: usage,
                ..Stats::default()
            };
            Counters::new(&SlotCounters::ZERO, &stats)
        };
        let mut sum = Counters::default();
        sum.add(&with(None));
        assert_eq!(sum.cpu.usage_usec, None);
        sum.add(&with(Some(0)));
        sum.add(&with(Some(7)));
        assert_eq!((sum.cpu.usage_usec, sum.cpu.user_usec), (Some(7), None));
    }
}
