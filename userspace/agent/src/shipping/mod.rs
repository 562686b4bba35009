//! Passing events on: to journald, to an OTLP receiver. Each has a cursor in the store and reads
//! from there, so that a slow or dead receiver costs the agent neither time nor memory: it is
//! tried again, ever less often, and gets what it missed as long as that is stored.
//!
//! At least once: what was sent right before a kill of the agent may be sent again, with the
//! same ids. A receiver that is new begins with what happens from then on.

mod journald;
mod otlp;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::spawn_blocking,
    time::sleep,
};

pub use self::otlp::Endpoint;
pub(crate) use self::{journald::Journald, otlp::Otlp};
use crate::{
    bus::{Bus, Snapshot},
    chain::chain,
    event::{Event, Kind, Verdict, verdict_of},
    shared::Shared,
    store::{Error, Past, Start, Store, Wanted},
};

/// What comes in that time is sent together.
const GATHER: Duration = Duration::from_millis(200);
/// The first pause after a failure, doubled each time.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// For the metrics.
#[derive(Debug)]
pub(crate) struct Shipped {
    /// The receiver's word in metrics, and its cursor's name in the store.
    pub(crate) to: &'static str,
    sent: AtomicU64,
    refused: AtomicU64,
    errors: AtomicU64,
    cursor: AtomicU64,
}

impl Shipped {
    pub(crate) const fn new(to: &'static str) -> Self {
        Self {
            to,
            sent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            cursor: AtomicU64::new(0),
        }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    pub(crate) fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::Relaxed)
    }
}

/// Why events were not taken.
#[derive(Debug)]
enum Failed {
    /// They can be, later.
    Later(String),
    /// They never will be.
    Refused(String),
}

trait Receiver: Send {
    /// All of them, in order, or none counts as sent.
    fn send(&mut self, events: &[Event]) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// Begins with those that the agent was told to.
pub(crate) fn start(shared: &Arc<Shared>) {
    let Some(store) = &shared.store else { return };
    let shipping = |shipped: &Arc<Shipped>| Shipping {
        bus: Arc::clone(&shared.bus),
        store: Arc::clone(store),
        shutdown: shared.shutdown.subscribe(),
        shipped: Arc::clone(shipped),
        cursor: 0,
        failing: false,
    };
    for shipped in &shared.shipped {
        match &shared.options.otlp_endpoint {
            Some(endpoint) if shipped.to == OTLP => {
                tokio::spawn(shipping(shipped).run(Otlp::new(endpoint.clone())));
            }
            _ => {
                tokio::spawn(shipping(shipped).run(Journald::to(journald::SOCKET)));
            }
        }
    }
}

pub(crate) const OTLP: &str = "otlp";
pub(crate) const JOURNALD: &str = "journald";

struct Shipping {
    bus: Arc<Bus>,
    store: Arc<Store>,
    shutdown: watch::Receiver<bool>,
    shipped: Arc<Shipped>,
    cursor: u64,
    failing: bool,
}

impl Shipping {
    async fn run(mut self, mut receiver: impl Receiver) {
        let begin = self.bus.snapshot().last;
        let stored = self.stored_cursor().await;
        self.went_to(stored.filter(|id| *id <= begin).unwrap_or(begin));
        let mut pause = PAUSE;
        loop {
            let mut subscription = self.bus.subscribe();
            if subscription.past.last <= self.cursor {
                let next = tokio::select! {
                    next = subscription.receiver.recv() => next,
                    _ = self.shutdown.wait_for(|down| *down) => return,
                };
                if matches!(next, Err(RecvError::Closed)) || self.rest(GATHER).await {
                    return;
                }
                continue;
            }
            let snapshot = subscription.past;
            drop(subscription.receiver);
            match self.pass_on(&mut receiver, snapshot).await {
                Ok(()) => pause = PAUSE,
                Err(line) => {
                    self.failed(&line);
                    if self.rest(pause).await {
                        return;
                    }
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
            if *self.shutdown.borrow() {
                return;
            }
        }
    }

    /// All up to now; why not.
    async fn pass_on(
        &mut self,
        receiver: &mut impl Receiver,
        snapshot: Snapshot,
    ) -> Result<(), String> {
        let last = snapshot.last;
        let (store, cursor) = (Arc::clone(&self.store), self.cursor);
        let begun = spawn_blocking(move || {
            let reader = Some(store.reader()?);
            Past::new(reader, snapshot, Wanted::default(), Start::After(cursor))
        });
        let told = |error: Error| chain(&error);
        let mut past = begun
            .await
            .map_err(|error| error.to_string())?
            .map_err(told)?;
        loop {
            let read = spawn_blocking(move || {
                let next = past.next();
                (past, next)
            });
            let (came_back, next) = read.await.map_err(|error| error.to_string())?;
            past = came_back;
            let Some(lines) = next.map_err(told)? else {
                break;
            };
            let lines = lines.split(|byte| *byte == b'\n');
            let events: Vec<Event> = lines
                .filter_map(|line| serde_json::from_slice(line).ok())
                .collect();
            let Some(end) = events.last().map(|event| event.id) else {
                continue;
            };
            let sent = tokio::select! {
                sent = receiver.send(&events) => sent,
                // What is under way is sent again by the next agent.
                _ = self.shutdown.wait_for(|down| *down) => return Ok(()),
            };
            let count = u64::try_from(events.len()).unwrap_or(0);
            match sent {
                Ok(()) => {
                    self.shipped.sent.fetch_add(count, Ordering::Relaxed);
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("events are passed on to {} again", self.shipped.to);
                    }
                }
                Err(Failed::Refused(line)) => {
                    self.shipped.refused.fetch_add(count, Ordering::Relaxed);
                    self.failed(&line);
                }
                Err(Failed::Later(line)) => return Err(line),
            }
            self.went_to(end);
        }
        self.went_to(last);
        Ok(())
    }

    fn went_to(&mut self, id: u64) {
        self.cursor = id;
        self.shipped.cursor.store(id, Ordering::Relaxed);
        self.bus.keep_cursor(self.shipped.to, id);
    }

    async fn stored_cursor(&self) -> Option<u64> {
        let (store, to) = (Arc::clone(&self.store), self.shipped.to);
        let read = spawn_blocking(move || {
            let cursor = store.reader().and_then(|reader| reader.cursor(to));
            cursor.ok().flatten()
        });
        read.await.ok().flatten()
    }

    /// The first of a row is told.
    fn failed(&mut self, line: &str) {
        self.shipped.errors.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!("events are not passed on to {}: {line}", self.shipped.to);
        }
    }

    /// `true` when the agent ends.
    async fn rest(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = sleep(pause) => false,
            _ = self.shutdown.wait_for(|down| *down) => true,
        }
    }
}

/// How bad it is, by syslog's numbers.
fn priority(kind: &Kind) -> u8 {
    const CRITICAL: u8 = 2;
    const WARNING: u8 = 4;
    const NOTICE: u8 = 5;
    const INFO: u8 = 6;
    match (kind, verdict_of(kind)) {
        (_, Some(Verdict::Escape)) => CRITICAL,
        (_, Some(Verdict::EscapeAttempt))
        | (
            Kind::OomKill { .. }
            | Kind::Denial { .. }
            | Kind::Tampering { .. }
            | Kind::Reaction { .. }
            | Kind::Lost { .. },
            _,
        ) => WARNING,
        (_, Some(Verdict::Notable)) | (Kind::Container { .. } | Kind::Limited { .. }, _) => NOTICE,
        _ => INFO,
    }
}

fn verdict_word(kind: &Kind) -> Option<&'static str> {
    let verdict = verdict_of(kind)?;
    let known = Verdict::ALL.iter().find(|(one, _)| *one == verdict);
    known.map(|(_, word)| *word)
}

/// `web: namespace_call setns, escape`: what a list of messages is skimmed for.
fn message(event: &Event) -> String {
    let what = match &event.kind {
        Kind::Container { action, .. } | Kind::Cgroup { action, .. } => action.as_str(),
        Kind::NamespaceCall { syscall, .. } => syscall,
        Kind::OomKill { victim, .. } => &victim.comm,
        Kind::Exec { filename, .. } => filename,
        Kind::Exit { actor, .. } => &actor.comm,
        Kind::Activity { activity, .. } | Kind::Denial { activity, .. } => activity,
        Kind::Tampering { what, .. } => what,
        Kind::Reaction { action, .. } | Kind::Limited { action, .. } => action,
        Kind::Lost { .. } => "events",
    };
    let whose = event.container.as_deref().unwrap_or("host");
    let judged = verdict_word(&event.kind).map_or_else(String::new, |word| format!(", {word}"));
    let line = format!("{whose}: {} {what}{judged}", event.kind.name());
    // Processes choose their names.
    line.chars()
        .flat_map(|one| {
            let control = one.is_control();
            control
                .then(|| one.escape_default())
                .into_iter()
                .flatten()
                .chain((!control).then_some(one))
        })
        .collect()
}

#[cfg(test)]
mod tests;
