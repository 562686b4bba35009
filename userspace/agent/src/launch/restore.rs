//! Limits stay what was asked for: a file that somebody else wrote gets its value again.
//!
//! systemd's daemon-reload is the usual somebody (moby #51446), an operator's `echo` another.
//! The kernel tells by inotify of writes to the files of a cgroup's directory, so nothing is
//! read until something was written; a slow look at all is the net below that, for what the
//! kernel changes by itself. A look compares with what `run` and the last `update` asked for,
//! under the lock that an update holds. Two writers that fight take turns ever more slowly; a
//! limit that cannot be had again is told once.

use std::{
    collections::{BTreeSet, HashMap},
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use paddock_cgroups::{Error as CgroupError, Limits, Repair};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, interval, sleep_until},
};

use super::{Error, change::in_cgroup, end::remember};
use crate::{api::State, chain::chain, container::Container, readiness, shared::Shared};

/// A reload writes many files: one look after them all.
const SETTLE: Duration = Duration::from_millis(200);
/// The longest pause between two looks at one that is fought over.
const LONGEST: Duration = Duration::from_mins(1);
/// Every container is looked at so often, whatever was told.
const ROUND: Duration = Duration::from_mins(5);
/// Written by every launch, exec and pause; no limit is in them.
const NOT_LIMITS: [&str; 5] = [
    "cgroup.freeze",
    "cgroup.procs",
    "cgroup.threads",
    "freezer.state",
    "tasks",
];

/// The way to the task that looks.
#[derive(Debug)]
pub(crate) struct Restorer {
    ask: UnboundedSender<Ask>,
    asked: Mutex<Option<UnboundedReceiver<Ask>>>,
}

#[derive(Debug)]
enum Ask {
    /// It has a new cgroup, or other limits.
    Keep(Arc<Container>),
    /// Its cgroup goes.
    Forget(Arc<Container>),
}

impl Restorer {
    pub(crate) fn new() -> Self {
        let (ask, asked) = unbounded_channel();
        Self {
            ask,
            asked: Mutex::new(Some(asked)),
        }
    }

    pub(super) fn keep(&self, container: &Arc<Container>) {
        self.send(Ask::Keep(Arc::clone(container)));
    }

    pub(super) fn forget(&self, container: &Arc<Container>) {
        self.send(Ask::Forget(Arc::clone(container)));
    }

    fn send(&self, ask: Ask) {
        // Nobody hears it in an agent that ends.
        let _ = self.ask.send(ask);
    }

    fn take(&self) -> Option<UnboundedReceiver<Ask>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.take()
    }
}

/// Until the agent ends.
pub(crate) async fn keep_limits(shared: Arc<Shared>) {
    let Some(mut asked) = shared.restorer.take() else {
        return;
    };
    let mut shutdown = shared.shutdown.subscribe();
    let mut round = interval(ROUND);
    let mut kept = Kept::new(Arc::clone(&shared));
    loop {
        let due = kept.next_due();
        let turn = tokio::select! {
            ask = asked.recv() => ask.map_or(Turn::End, Turn::Asked),
            () = written(kept.told.as_ref()) => Turn::Written,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Turn::Due,
            _ = round.tick() => Turn::Round,
            _ = shutdown.wait_for(|down| *down) => Turn::End,
        };
        match turn {
            Turn::Asked(Ask::Keep(container)) => kept.keep(&container).await,
            Turn::Asked(Ask::Forget(container)) => kept.forget(&container.id),
            Turn::Written => kept.hear(),
            Turn::Due => kept.look_at_due().await,
            Turn::Round => kept.all_are_due(),
            Turn::End => return,
        }
    }
}

enum Turn {
    Asked(Ask),
    Written,
    Due,
    Round,
    End,
}

/// An inotify instance as tokio takes it.
#[derive(Debug)]
struct Told(Inotify);

impl AsRawFd for Told {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Returns when there is something to hear; never where nobody tells.
async fn written(told: Option<&AsyncFd<Told>>) {
    match told {
        Some(told) => {
            if let Ok(mut ready) = told.readable().await {
                // What comes while it is being read, is read by it or makes it ready again.
                ready.clear_ready();
            }
        }
        None => std::future::pending().await,
    }
}

/// What one container is looked at by.
#[derive(Debug)]
struct One {
    container: Arc<Container>,
    watches: Vec<WatchDescriptor>,
    due: Option<Instant>,
    /// Between something written and the look.
    pause: Duration,
    last_change: Option<Instant>,
    /// Files whose limits could not be had again.
    lost: BTreeSet<PathBuf>,
}

struct Kept {
    shared: Arc<Shared>,
    /// `None` where the kernel gives none: then only the rounds are left.
    told: Option<AsyncFd<Told>>,
    by_id: HashMap<String, One>,
    by_watch: HashMap<WatchDescriptor, String>,
    /// A full table of watches is told once.
    warned: bool,
}

impl Kept {
    fn new(shared: Arc<Shared>) -> Self {
        let told = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(std::io::Error::from)
            .and_then(|inotify| readiness::watch(Told(inotify)));
        if let Err(error) = &told {
            tracing::warn!(
                "limits are compared every {} s only, no inotify: {error}",
                ROUND.as_secs()
            );
        }
        Self {
            shared,
            told: told.ok(),
            by_id: HashMap::new(),
            by_watch: HashMap::new(),
            warned: false,
        }
    }

    /// Its limits' directories are watched from now on. One that runs already is looked at, too:
    /// an agent that was not there heard nothing.
    async fn keep(&mut self, container: &Arc<Container>) {
        let limits = container.limits(None);
        if limits == Limits::default() {
            return;
        }
        let dirs = in_cgroup(&self.shared, container, move |cgroup| {
            Ok(cgroup.limited_dirs(&limits)?)
        });
        // What is wrong with it, the look will tell.
        let dirs = dirs.await.unwrap_or_default();
        let one = self
            .by_id
            .entry(container.id.clone())
            .or_insert_with(|| One::new(Arc::clone(container)));
        if container.state() == State::Running {
            one.wake(Instant::now());
        }
        let Some(told) = &self.told else { return };
        for dir in dirs {
            match told.get_ref().0.add_watch(&dir, AddWatchFlags::IN_MODIFY) {
                // One that is there already comes again.
                Ok(watch) => {
                    if self.by_watch.insert(watch, container.id.clone()).is_none() {
                        one.watches.push(watch);
                    }
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => {
                    if !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(
                            "limits of some containers are compared every {} s only: watch {}: {errno}; \
                             fs.inotify.max_user_watches says how many directories can be watched",
                            ROUND.as_secs(),
                            dir.display()
                        );
                    }
                }
            }
        }
    }

    /// A directory that is gone keeps its watch, and with it the kernel's memory of it.
    fn forget(&mut self, id: &str) {
        let Some(one) = self.by_id.remove(id) else {
            return;
        };
        for watch in one.watches {
            self.by_watch.remove(&watch);
            if let Some(told) = &self.told {
                // Fails only for one that the kernel has dropped itself.
                let _ = told.get_ref().0.rm_watch(watch);
            }
        }
    }

    /// Takes in what was written, by ourselves too: that is one look more, and none after it.
    fn hear(&mut self) {
        let Some(told) = &self.told else { return };
        let now = Instant::now();
        let mut overflowed = false;
        while let Ok(events) = told.get_ref().0.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    overflowed = true;
                }
                let name = event.name.as_deref().and_then(|name| name.to_str());
                if name.is_some_and(|name| NOT_LIMITS.contains(&name)) {
                    continue;
                }
                if let Some(id) = self.by_watch.get(&event.wd)
                    && let Some(one) = self.by_id.get_mut(id)
                {
                    one.wake(now);
                }
            }
        }
        if overflowed {
            self.all_are_due();
        }
    }

    fn all_are_due(&mut self) {
        let now = Instant::now();
        self.by_id.values_mut().for_each(|one| one.wake(now));
    }

    fn next_due(&self) -> Option<Instant> {
        self.by_id.values().filter_map(|one| one.due).min()
    }

    async fn look_at_due(&mut self) {
        let now = Instant::now();
        let due = self.by_id.values_mut().filter_map(|one| {
            one.due.filter(|due| *due <= now)?;
            one.due = None;
            Some(Arc::clone(&one.container))
        });
        let due: Vec<_> = due.collect();
        for container in due {
            // What an update has asked for since, in it.
            let its = Arc::clone(&container);
            let looked = in_cgroup(&self.shared, &container, move |cgroup| {
                Ok(cgroup.restore(&its.limits(None))?)
            });
            match looked.await {
                Ok(repair) => self.tell(&container, &repair),
                // Its end is on its way to be told, or was.
                Err(Error::Cgroup(CgroupError::NotFound { .. })) => self.forget(&container.id),
                Err(Error::Ending) => {}
                Err(error) => Shared::warn(&container, "cannot look at its limits", &error),
            }
        }
    }

    fn tell(&mut self, container: &Arc<Container>, repair: &Repair) {
        for one in &repair.restored {
            tracing::warn!(
                "{}: limit restored: {} said {}, says {} again",
                container.name,
                one.path.display(),
                one.found.escape_debug(),
                one.value
            );
        }
        if !repair.restored.is_empty() {
            let count = u64::try_from(repair.restored.len()).unwrap_or(u64::MAX);
            container.facts().restored += count;
            // The next agent counts on.
            remember(&self.shared, container, None);
        }
        let Some(one) = self.by_id.get_mut(&container.id) else {
            return;
        };
        for (path, error) in &repair.failed {
            if !one.lost.contains(path) {
                tracing::error!(
                    "{}: a limit was changed by somebody and cannot be restored: {}",
                    container.name,
                    chain(error)
                );
            }
        }
        one.lost = repair.failed.iter().map(|(path, _)| path.clone()).collect();
        if !repair.restored.is_empty() || !repair.failed.is_empty() {
            // A vain try may have written, too, and is heard: the next one waits longer.
            one.slow_down(Instant::now());
        }
    }
}

impl One {
    fn new(container: Arc<Container>) -> Self {
        Self {
            container,
            watches: Vec::new(),
            due: None,
            pause: SETTLE,
            last_change: None,
            lost: BTreeSet::new(),
        }
    }

    /// Something was written, or may have been.
    fn wake(&mut self, now: Instant) {
        if self
            .last_change
            .is_some_and(|at| now.duration_since(at) > 2 * LONGEST)
        {
            self.pause = SETTLE;
        }
        self.due.get_or_insert(now + self.pause);
    }

    fn slow_down(&mut self, now: Instant) {
        self.last_change = Some(now);
        self.pause = (2 * self.pause).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Birth;

    fn one() -> One {
        One::new(Arc::new(Container::new(Birth::default(), true)))
    }

    #[test]
    fn a_fight_slows_down_and_is_forgotten() {
        let (mut one, mut now) = (one(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            one.wake(now);
            let due = one.due.take().unwrap();
            pauses.push(due - now);
            now = due;
            one.slow_down(now);
        }
        assert_eq!(pauses[..3], [SETTLE, 2 * SETTLE, 4 * SETTLE]);
        assert_eq!(pauses.last(), Some(&LONGEST));
        now += 3 * LONGEST;
        one.wake(now);
        assert_eq!(one.due, Some(now + SETTLE));
    }

    #[test]
    fn many_writes_are_one_look() {
        let (mut one, now) = (one(), Instant::now());
        one.wake(now);
        one.wake(now + SETTLE / 2);
        assert_eq!(one.due, Some(now + SETTLE));
    }
}
