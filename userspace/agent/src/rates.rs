//! What each container uses at present, CPU by rate. Whoever asks gets the answer at once, since the
//! agent has looked before: at one file of each container, every ten seconds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use paddock_cgroups::{Cgroup, Hierarchies};

use crate::{
    api::{ContainerStats, State},
    clock,
    container::Container,
    counters,
    every::every,
    kernel::Kernel,
    shared::Shared,
};

const EVERY: Duration = Duration::from_secs(10);
/// The kernel brings a cgroup's CPU time up to date in steps: over less than this it says little.
const LEAST: Duration = Duration::from_millis(500);

/// CPU time at two moments, at least [`LEAST`] apart.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Samples {
    older: Option<Sample>,
    newer: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    usage_usec: u64,
}

/// CPU time over a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CpuRate {
    pub(crate) window: Duration,
    /// 100 is one CPU's whole time.
    pub(crate) percent: f64,
}

impl Samples {
    pub(crate) fn add(&mut self, at: Instant, usage_usec: u64) {
        let sample = Sample { at, usage_usec };
        // A next run begins at zero.
        if self
            .newer
            .is_some_and(|newer| newer.usage_usec > usage_usec)
        {
            *self = Self::default();
        }
        let enough = |newer: Sample| at.saturating_duration_since(newer.at) >= LEAST;
        if self.newer.is_none_or(enough) {
            self.older = self.newer.replace(sample);
        }
    }

    /// Up to now, from the last moment that is long enough ago; of a run that nobody has looked
    /// at yet from its start.
    pub(crate) fn rate(&self, now: Instant, usage_usec: u64, age: Duration) -> Option<CpuRate> {
        let usable = |sample: &Sample| {
            sample.usage_usec <= usage_usec && now.saturating_duration_since(sample.at) >= LEAST
        };
        let since = self.newer.filter(usable).or(self.older.filter(usable));
        let (window, before) = since.map_or((age, 0), |sample| {
            (now.saturating_duration_since(sample.at), sample.usage_usec)
        });
        let used = Duration::from_micros(usage_usec - before);
        let percent = used.as_secs_f64() / window.as_secs_f64() * 100.0;
        percent.is_finite().then_some(CpuRate { window, percent })
    }
}

impl Container {
    /// What it uses now; `None` where it does not run.
    pub(crate) fn use_now(
        &self,
        kernel: &Kernel,
        hierarchies: &Hierarchies,
    ) -> Option<ContainerStats> {
        let (now, time_ns) = (Instant::now(), clock::now_ns());
        let (counters, stats) = self.read(kernel, hierarchies);
        let stats = stats?;
        // Without a kernel half the cgroup's own count is all there is.
        let oom_kills = match self.facts().slot {
            Some(_) => counters::oom_kills(&counters.kernel),
            None => stats.totals.memory_oom_kills.unwrap_or(0),
        };
        let started_at_ns = self.running_since_ns()?;
        let age = Duration::from_nanos(time_ns.saturating_sub(started_at_ns));
        let rate = stats.totals.cpu_usage_usec.and_then(|usage| {
            let mut facts = self.facts();
            let rate = facts.cpu.rate(now, usage, age);
            facts.cpu.add(now, usage);
            rate
        });
        Some(ContainerStats {
            id: self.id.clone(),
            name: self.name.clone(),
            image: self.image(),
            origin: self.origin,
            parent: self.parent.clone(),
            state: if self.is_paused(hierarchies) {
                State::Paused
            } else {
                State::Running
            },
            started_at_ns: Some(started_at_ns),
            time_ns,
            cpu_percent: rate.map(|rate| rate.percent),
            cpu_window_ns: rate.and_then(|rate| u64::try_from(rate.window.as_nanos()).ok()),
            stats,
            network: kernel
                .serves("traffic")
                .then(|| counters::traffic(&counters.kernel)),
            oom_kills,
            escapes: counters::escapes(&counters.kernel),
        })
    }
}

pub(crate) async fn keep(shared: Arc<Shared>) {
    every(EVERY, shared, |shared| {
        for container in shared.registry.all() {
            look(shared, &container);
        }
    })
    .await;
}

fn look(shared: &Shared, container: &Container) {
    if container.state() != State::Running {
        return;
    }
    let usage =
        Cgroup::open(&shared.hierarchies, &container.cgroup).and_then(|one| one.cpu_usage());
    // One that has just gone is not there to be looked at.
    if let Ok(Some(usage_usec)) = usage {
        let mut facts = container.facts();
        facts.cpu.add(Instant::now(), usage_usec);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn close(rate: Option<CpuRate>, millis: u64, percent: f64) -> bool {
        rate.is_some_and(|rate| {
            rate.window == Duration::from_millis(millis) && (rate.percent - percent).abs() < 1e-6
        })
    }

    #[test]
    fn of_one_that_nobody_looked_at_it_is_since_its_start() {
        let now = Instant::now();
        let rate = Samples::default().rate(now, 500_000, Duration::from_secs(1));
        assert!(close(rate, 1000, 50.0), "{rate:?}");
        assert_eq!(Samples::default().rate(now, 0, Duration::ZERO), None);
    }

    #[test]
    fn the_last_look_counts_unless_it_was_just_now() {
        let start = Instant::now();
        let mut samples = Samples::default();
        samples.add(start, 1_000_000);
        samples.add(after(start, 10_000), 2_000_000);
        let age = Duration::from_mins(1);
        let rate = samples.rate(after(start, 10_100), 2_010_000, age);
        assert!(close(rate, 10_100, 10.0), "{rate:?}");
        let rate = samples.rate(after(start, 12_000), 6_000_000, age);
        assert!(close(rate, 2_000, 200.0), "{rate:?}");
    }

    #[test]
    fn a_next_run_begins_anew() {
        let start = Instant::now();
        let mut samples = Samples::default();
        samples.add(start, 9_000_000);
        let rate = samples.rate(after(start, 5_000), 1_000_000, Duration::from_secs(4));
        assert!(close(rate, 4_000, 25.0), "{rate:?}");
        samples.add(after(start, 5_000), 1_000_000);
        let rate = samples.rate(after(start, 6_000), 1_500_000, Duration::from_secs(5));
        assert!(close(rate, 1_000, 50.0), "{rate:?}");
    }

    #[test]
    fn looks_that_come_close_together_keep_the_older_one() {
        let start = Instant::now();
        let mut samples = Samples::default();
        samples.add(start, 0);
        for millis in [100, 200, 300] {
            samples.add(after(start, millis), millis * 100);
        }
        let rate = samples.rate(after(start, 1_000), 100_000, Duration::from_secs(9));
        assert!(close(rate, 1_000, 10.0), "{rate:?}");
    }
}
