//! The event bus: what happened, numbered, kept for a while, handed to whoever follows.
//!
//! Publishing never waits. A follower that falls more than [`FOLLOWERS`] events behind misses
//! some and is told how many, or reads them from the store. Escapes, OOM kills and what was
//! withheld are kept apart from the rest, so that a flood of execs cannot push them out of the
//! history. Where there is a store, the bus also holds what its writer has not written yet.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::broadcast;

use crate::{
    event::{Event, Kind, SCHEMA_VERSION, Verdict},
    store::unsaved::{Counter, Hole, Unsaved, Work},
};

/// Events of each class that the history keeps.
pub(crate) const HISTORY: usize = 4096;
const FOLLOWERS: usize = 4096;

#[derive(Debug)]
pub(crate) struct Bus {
    history: Mutex<History>,
    /// For the store's writer.
    work: Condvar,
    sender: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug)]
struct History {
    next_id: u64,
    critical: VecDeque<Arc<Event>>,
    rest: VecDeque<Arc<Event>>,
    /// `None`: nothing is stored.
    unsaved: Option<Unsaved>,
}

/// What was, as far as it is in memory.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The last ones of each class and all that is not stored yet, by id.
    pub(crate) history: Vec<Arc<Event>>,
    /// The id of the last one that was given.
    pub(crate) last: u64,
    /// Ids that found no room on their way to the store, as far as it does not know them yet.
    pub(crate) holes: Vec<Hole>,
}

/// What was, and what will be; nothing is in both or in neither.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) past: Snapshot,
    pub(crate) receiver: broadcast::Receiver<Arc<Event>>,
}

/// Whose event it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) name: Option<String>,
    pub(crate) id: Option<String>,
}

/// For the store's writer.
#[derive(Debug)]
pub(crate) enum Task {
    Write {
        events: Vec<Arc<Event>>,
        holes: Vec<Hole>,
        /// Of receivers, by their names in the store.
        cursors: BTreeMap<&'static str, u64>,
        /// The id after the last of them.
        next: u64,
    },
    /// For as long as was asked.
    Nothing,
    End,
}

impl Bus {
    /// One whose events go with it.
    pub(crate) fn new() -> Self {
        Self::from(1, None)
    }

    /// One that goes on where a store ends; `recent` are its last events.
    pub(crate) fn stored(next_id: u64, recent: Vec<Event>, counter: Option<Counter>) -> Self {
        let bus = Self::from(next_id, Some(Unsaved::new(counter)));
        let mut history = bus.lock();
        for event in recent {
            let critical = is_critical(&event.kind);
            history.keep(Arc::new(event), critical);
        }
        drop(history);
        bus
    }

    fn from(next_id: u64, unsaved: Option<Unsaved>) -> Self {
        let history = History {
            next_id,
            critical: VecDeque::new(),
            rest: VecDeque::new(),
            unsaved,
        };
        Self {
            history: Mutex::new(history),
            work: Condvar::new(),
            sender: broadcast::Sender::new(FOLLOWERS),
        }
    }

    pub(crate) fn publish(&self, time_ns: u64, subject: Subject, kind: Kind) {
        let critical = is_critical(&kind);
        let urgent = critical || matches!(kind, Kind::Denial { .. } | Kind::Tampering { .. });
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
        history.keep(Arc::clone(&event), critical);
        let unsaved = history.unsaved.as_mut();
        if unsaved.is_some_and(|unsaved| unsaved.push(&event, critical, urgent)) {
            self.work.notify_one();
        }
        // Under the lock, so that a subscription sees it here or there; no follower is no error.
        let _ = self.sender.send(event);
    }

    pub(crate) fn subscribe(&self) -> Subscription {
        let history = self.lock();
        let receiver = self.sender.subscribe();
        Subscription {
            past: Self::snapshot_of(history),
            receiver,
        }
    }

    /// The id of the last one that was given.
    pub(crate) fn last(&self) -> u64 {
        self.lock().next_id - 1
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Self::snapshot_of(self.lock())
    }

    fn snapshot_of(history: MutexGuard<'_, History>) -> Snapshot {
        let unsaved = history.unsaved.iter();
        let mut events: Vec<_> = history
            .critical
            .iter()
            .chain(&history.rest)
            .chain(unsaved.clone().flat_map(Unsaved::events))
            .map(Arc::clone)
            .collect();
        let last = history.next_id - 1;
        let holes = unsaved.flat_map(Unsaved::holes).collect();
        drop(history);
        events.sort_unstable_by_key(|event| event.id);
        events.dedup_by_key(|event| event.id);
        Snapshot {
            history: events,
            last,
            holes,
        }
    }

    /// One that is still kept in memory.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<Event>> {
        let history = self.lock();
        let rings = [&history.critical, &history.rest];
        let of = |ring: &VecDeque<Arc<Event>>| {
            let place = ring.binary_search_by_key(&id, |event| event.id).ok()?;
            ring.get(place).map(Arc::clone)
        };
        let unsaved = || {
            let mut events = history.unsaved.iter().flat_map(Unsaved::events);
            events.find(|event| event.id == id).map(Arc::clone)
        };
        rings.into_iter().find_map(of).or_else(unsaved)
    }

    /// What the writer is to do next; waits for it, `idle` at most.
    pub(crate) fn task(&self, idle: Duration) -> Task {
        let mut history = self.lock();
        let mut waited = false;
        loop {
            let next = history.next_id;
            let Some(unsaved) = &mut history.unsaved else {
                return Task::End;
            };
            let pause = match unsaved.work(next) {
                Work::Write {
                    events,
                    holes,
                    cursors,
                    next,
                } => {
                    return Task::Write {
                        events,
                        holes,
                        cursors,
                        next,
                    };
                }
                Work::End => return Task::End,
                Work::Nothing if waited || idle.is_zero() => return Task::Nothing,
                Work::Nothing => {
                    waited = true;
                    idle
                }
                // Others have their turn meanwhile.
                Work::Wait(_) if idle.is_zero() => return Task::Nothing,
                Work::Wait(pause) => pause,
            };
            let woken = self.work.wait_timeout(history, pause);
            history = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What the writer took last is done with.
    pub(crate) fn written(&self) {
        self.unsaved(|_, unsaved| unsaved.done());
    }

    pub(crate) fn count_dropped(&self, count: u64) {
        self.unsaved(|_, unsaved| unsaved.count_dropped(count));
    }

    /// A receiver got everything up to that id; stored with the next events.
    pub(crate) fn keep_cursor(&self, name: &'static str, id: u64) {
        self.unsaved(|_, unsaved| unsaved.keep_cursor(name, id));
    }

    /// Events that were not stored, for want of room or of a disk.
    pub(crate) fn dropped(&self) -> u64 {
        self.unsaved(|_, unsaved| unsaved.dropped()).unwrap_or(0)
    }

    /// Events that wait to be stored.
    pub(crate) fn waiting(&self) -> u64 {
        let held = self.unsaved(|_, unsaved| unsaved.held()).unwrap_or(0);
        u64::try_from(held).unwrap_or(u64::MAX)
    }

    /// Ids go on from there, if they are not beyond.
    pub(crate) fn skip_to(&self, next_id: u64) {
        let mut history = self.lock();
        history.next_id = history.next_id.max(next_id);
    }

    /// The first id that is not stored.
    pub(crate) fn first_unsaved(&self) -> u64 {
        let first = |next, unsaved: &mut Unsaved| {
            let held = unsaved.events().map(|event| event.id);
            let holes = unsaved.holes().map(|hole| hole.first);
            held.chain(holes).min().unwrap_or(next)
        };
        self.unsaved(first).unwrap_or(1)
    }

    /// The writer is to write what there is, and to end.
    pub(crate) fn close(&self) {
        self.unsaved(|_, unsaved| unsaved.closing = true);
        self.work.notify_all();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.unsaved(|_, unsaved| unsaved.closing).unwrap_or(true)
    }

    fn unsaved<T>(&self, act: impl FnOnce(u64, &mut Unsaved) -> T) -> Option<T> {
        let mut history = self.lock();
        let next = history.next_id;
        history.unsaved.as_mut().map(|unsaved| act(next, unsaved))
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn keep(&mut self, event: Arc<Event>, critical: bool) {
        let ring = if critical {
            &mut self.critical
        } else {
            &mut self.rest
        };
        if ring.len() == HISTORY {
            ring.pop_front();
        }
        ring.push_back(event);
    }
}

/// The note for a follower that missed `count` events, `id` being the last of them, or 0.
pub(crate) fn lost(count: u64, id: u64) -> Event {
    Event {
        schema_version: SCHEMA_VERSION,
        id,
        time_ns: crate::clock::now_ns(),
        container: None,
        container_id: None,
        kind: Kind::Lost { count },
    }
}

/// What a flood of other events must not push out.
pub(crate) fn is_critical(kind: &Kind) -> bool {
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
        let history = bus.snapshot().history;
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
