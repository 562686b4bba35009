//! Tells when records of a container begin to be withheld, and when that is over.
//!
//! The kernel half counts what it withholds; here the counts are looked at once a second. So
//! the end is told also of a container that has fallen silent, and the numbers are the counters'.
//! As long as nothing is withheld from anybody, the containers' own counts are left alone.

use std::{collections::HashMap, sync::Arc, time::Duration};

use paddock_probe::{RingCounters, Slot};
use tokio::time::{MissedTickBehavior, interval};

use crate::{bus::Subject, clock, event::Kind, shared::Shared};

const LOOK: Duration = Duration::from_secs(1);
const REASONS: [&str; 3] = ["ring_full", "pressure", "rate_limited"];

/// One container's, or nobody's.
#[derive(Debug)]
struct Watched {
    subject: Subject,
    reasons: [Reason; 3],
    /// Seen in the present look.
    there: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reason {
    count: u64,
    /// The count when it started, while it goes on.
    since: Option<u64>,
}

/// What a look says of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Started(u64),
    Stopped(u64),
}

impl Reason {
    /// Going on as long as every look finds more.
    fn look(&mut self, count: u64) -> Option<Change> {
        let more = count > self.count;
        let before = self.count;
        self.count = count;
        match (self.since, more) {
            (None, true) => {
                self.since = Some(before);
                Some(Change::Started(count - before))
            }
            (Some(start), false) => {
                self.since = None;
                Some(Change::Stopped(before.saturating_sub(start)))
            }
            _ => None,
        }
    }
}

/// Looks until the agent ends.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    let mut known = HashMap::new();
    let mut clock = interval(LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Of all together at the last look; the first is at each.
    let mut before = None;
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            _ = shutdown.wait_for(|down| *down) => return,
        }
        // Before the containers' counts: what comes in between is seen the next time.
        let total = of_all(&shared);
        if before != Some(total) || known.values().any(Watched::goes_on) {
            look(&shared, &mut known, before.is_none());
        }
        before = Some(total);
    }
}

/// Zero without a kernel half.
fn of_all(shared: &Shared) -> u64 {
    let rings = shared.kernel.rings().into_iter().flatten();
    rings
        .map(|(_, counters)| lost(&counters).iter().sum::<u64>())
        .sum()
}

fn look(shared: &Shared, known: &mut HashMap<Option<String>, Watched>, first: bool) {
    for watched in known.values_mut() {
        watched.there = false;
    }
    let nobody = shared.kernel.counters(Slot(0)).ok().map(|counters| {
        let subject = Subject::default();
        (None, subject, counters)
    });
    let containers = shared.registry.all().into_iter().map(|one| {
        let counters = one.kernel_counters(&shared.kernel);
        (Some(one.id.clone()), one.subject(), counters)
    });
    for (id, subject, counters) in nobody.into_iter().chain(containers) {
        let counts = lost(&counters.records());
        let watched = known.entry(id).or_insert_with(|| Watched {
            subject,
            // What was withheld before this agent came is not news; of a new one everything is.
            reasons: counts.map(|count| Reason {
                count: if first { count } else { 0 },
                since: None,
            }),
            there: true,
        });
        watched.there = true;
        watched.look(shared, counts);
    }
    // One that is gone is withheld nothing any more.
    for gone in known.values_mut().filter(|one| !one.there) {
        let counts = gone.reasons.map(|reason| reason.count);
        gone.look(shared, counts);
    }
    known.retain(|_, watched| watched.there);
}

impl Watched {
    fn goes_on(&self) -> bool {
        self.reasons.iter().any(|reason| reason.since.is_some())
    }

    fn look(&mut self, shared: &Shared, counts: [u64; 3]) {
        for ((reason, word), count) in self.reasons.iter_mut().zip(REASONS).zip(counts) {
            let (action, withheld) = match reason.look(count) {
                Some(Change::Started(withheld)) => ("started", withheld),
                Some(Change::Stopped(withheld)) => ("stopped", withheld),
                None => continue,
            };
            let kind = Kind::Limited {
                action: action.to_owned(),
                reason: word.to_owned(),
                withheld,
            };
            let subject = self.subject.clone();
            shared.bus.publish(clock::now_ns(), subject, kind);
        }
    }
}

/// In the order of [`REASONS`].
fn lost(counters: &RingCounters) -> [u64; 3] {
    [
        counters.lost_ring_full,
        counters.lost_pressure,
        counters.lost_rate_limited,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_a_stop_and_the_number_between() {
        let mut reason = Reason {
            count: 5,
            since: None,
        };
        assert_eq!(reason.look(5), None);
        assert_eq!(reason.look(12), Some(Change::Started(7)));
        assert_eq!(reason.look(20), None);
        assert_eq!(reason.look(20), Some(Change::Stopped(15)));
        assert_eq!(reason.look(20), None);
        assert_eq!(reason.look(21), Some(Change::Started(1)));
        // A slot that was given back counts from zero.
        assert_eq!(reason.look(0), Some(Change::Stopped(1)));
    }
}
