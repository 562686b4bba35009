//! The event bus: what happened, numbered, kept for a while, handed to whoever follows.
//!
//! Publishing never waits. A follower that falls more than [`FOLLOWERS`] events behind misses
//! some and is told how many. Escapes, OOM kills and what was withheld are kept apart from the
//! rest, so that a flood of execs cannot push them out of the history.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use crate::event::{Event, Kind, SCHEMA_VERSION, Verdict};

/// Events of each class that the history keeps.
pub(crate) const HISTORY: usize = 4096;
const FOLLOWERS: usize = 4096;

#[derive(Debug)]
pub(crate) struct Bus {
    history: Mutex<History>,
    sender: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug)]
struct History {
    next_id: u64,
    critical: VecDeque<Arc<Event>>,
    rest: VecDeque<Arc<Event>>,
}

/// What was, and what will be; nothing is in both or in neither.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) history: Vec<Arc<Event>>,
    pub(crate) receiver: broadcast::Receiver<Arc<Event>>,
}

/// Whose event it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) name: Option<String>,
    pub(crate) id: Option<String>,
}

impl Bus {
    pub(crate) fn new() -> Self {
        let history = History {
            next_id: 1,
            critical: VecDeque::new(),
            rest: VecDeque::new(),
        };
        Self {
            history: Mutex::new(history),
            sender: broadcast::Sender::new(FOLLOWERS),
        }
    }

    pub(crate) fn publish(&self, time_ns: u64, subject: Subject, kind: Kind) {
        let critical = is_critical(&kind);
        let mut history = self.lock();
        let event = Arc::new(Event {
            schema_version: SCHEMA_VERSION,
            id: history.next_id,
            time_ns,
            container: subject.name,
            container_id: subject.id,
            kind,
        });
        history.next_id += 1;
        let ring = if critical {
            &mut history.critical
        } else {
            &mut history.rest
        };
        if ring.len() == HISTORY {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&event));
        // Under the lock, so that a subscription sees it here or there; no follower is no error.
        let _ = self.sender.send(event);
    }

    pub(crate) fn subscribe(&self) -> Subscription {
        let history = self.lock();
        let mut events: Vec<_> = history
            .critical
            .iter()
            .chain(&history.rest)
            .map(Arc::clone)
            .collect();
        events.sort_unstable_by_key(|event| event.id);
        Subscription {
            history: events,
            receiver: self.sender.subscribe(),
        }
    }

    /// One that is still kept.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<Event>> {
        let history = self.lock();
        let rings = [&history.critical, &history.rest];
        let of = |ring: &VecDeque<Arc<Event>>| {
            let place = ring.binary_search_by_key(&id, |event| event.id).ok()?;
            ring.get(place).map(Arc::clone)
        };
        rings.into_iter().find_map(of)
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The note for a follower that missed `count` events.
pub(crate) fn lost(count: u64) -> Event {
    Event {
        schema_version: SCHEMA_VERSION,
        id: 0,
        time_ns: crate::clock::now_ns(),
        container: None,
        container_id: None,
        kind: Kind::Lost { count },
    }
}

fn is_critical(kind: &Kind) -> bool {
    match kind {
        Kind::OomKill { .. }
        | Kind::Container { .. }
        | Kind::Reaction { .. }
        | Kind::Limited { .. } => true,
        Kind::NamespaceCall { verdict, .. } | Kind::Activity { verdict, .. } => {
            *verdict >= Verdict::EscapeAttempt
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(action: &str) -> Kind {
        Kind::Container {
            action: action.into(),
            exit_code: None,
            oom_killed: None,
        }
    }

    fn cgroup() -> Kind {
        let actor = crate::event::Actor::default();
        Kind::Cgroup {
            action: "mkdir".into(),
            actor,
            path: "/x".into(),
            cgroup_id: 1,
        }
    }

    #[test]
    fn a_flood_does_not_hide_what_matters() {
        let bus = Bus::new();
        bus.publish(0, Subject::default(), container("created"));
        for _ in 0..2 * HISTORY {
            bus.publish(0, Subject::default(), cgroup());
        }
        let history = bus.subscribe().history;
        assert_eq!(history.len(), HISTORY + 1);
        assert_eq!(history[0].id, 1);
        let last = 1 + 2 * u64::try_from(HISTORY).unwrap();
        for (id, kept) in [(1, true), (2, false), (last, true), (last + 1, false)] {
            assert_eq!(bus.find(id).map(|event| event.id), kept.then_some(id));
        }
        assert!(history.windows(2).all(|pair| pair[0].id < pair[1].id));
    }

    #[tokio::test]
    async fn a_slow_reader_stalls_nobody_and_learns_what_it_missed() {
        let bus = Bus::new();
        let mut subscription = bus.subscribe();
        let total = FOLLOWERS + 10;
        for _ in 0..total {
            bus.publish(0, Subject::default(), cgroup());
        }
        let mut lost = 0;
        let mut got = 0;
        while got + lost < total {
            match subscription.receiver.recv().await {
                Ok(_) => got += 1,
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    lost += usize::try_from(count).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(lost >= 10, "{lost}");
    }
}
