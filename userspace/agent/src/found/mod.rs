//! Containers that others made: found in the cgroup tree and by the kernel's mkdir records.
//!
//! One is tracked from its cgroup's making on, before there is a process in it, and gone when
//! the cgroup is. Without a kernel half the tree is walked every few seconds instead.

pub(crate) mod births;
pub(crate) mod pattern;
mod settle;
pub(crate) mod state;
mod walk;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use paddock_cgroups::{Cgroup, Stats};
use paddock_probe::{CgroupOp, Record, Shares, Slot, SlotCounters};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

use self::{births::Births, pattern::Match};
use crate::{
    api::{Origin, State},
    clock,
    container::{Birth, Container, End, Facts, Written},
    counters::Counters,
    instance::fnv1a,
    naming, oom,
    shared::Shared,
};

/// Between two walks: only a net below the records, or all there is.
const NET: Duration = Duration::from_secs(30);
const ONLY: Duration = Duration::from_secs(1);
/// Noticed paths that wait; what does not fit is found by the next walk.
const WAITING: usize = 1024;
/// Containers within one that get entries of their own; more are parts of it.
const NESTED: usize = 64;

#[derive(Debug)]
pub(crate) struct Found {
    by_path: Mutex<HashMap<String, Arc<Container>>>,
    noticed: mpsc::Sender<Match>,
    waiting: Mutex<Option<mpsc::Receiver<Match>>>,
    births: Births,
    /// Held while one is taken in.
    making: Mutex<()>,
    /// Other patterns than before are containers: a walk at once.
    anew: Notify,
}

impl Found {
    pub(crate) fn new() -> Self {
        let (noticed, waiting) = mpsc::channel(WAITING);
        Self {
            by_path: Mutex::default(),
            noticed,
            waiting: Mutex::new(Some(waiting)),
            births: Births::default(),
            making: Mutex::default(),
            anew: Notify::new(),
        }
    }

    pub(crate) fn look_anew(&self) {
        self.anew.notify_one();
    }

    fn making(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was given a cgroup that turned out to be no container's, and nobody since.
    pub(crate) fn is_nobodys(&self, slot: Slot) -> bool {
        self.births.is_nobodys(slot)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.by_path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cgroup was made with a slot of its own: whose that is, is decided before more is told of it.
pub(crate) fn born(shared: &Arc<Shared>, record: &Record) {
    if let paddock_probe::Body::Cgroup {
        birth: true,
        cgroup: Some(cgroup),
        path,
        ..
    } = &record.body
    {
        births::born(shared, record.slot, *cgroup, path);
    }
}

/// A cgroup was made, joined or removed. Never waits.
pub(crate) fn noticed(shared: &Shared, op: CgroupOp, path: &str) {
    let Some(container) = pattern::find(path, &shared.live().track) else {
        return;
    };
    if op == CgroupOp::Attach {
        if let Some(container) = shared.found.lock().get(&container.path) {
            container.stirred.notify_one();
        }
        return;
    }
    // Full: a walk will see it.
    let _ = shared.found.noticed.try_send(container);
}

/// Whether the agent itself is in a container.
pub(crate) fn agent_is_within(shared: &Shared) -> bool {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/cgroup"));
    // The first process' may be out of reach.
    let hidden = matches!((namespace("self"), namespace("1")), (Ok(own), Ok(host)) if own != host);
    hidden || place_of_agent(shared).is_some()
}

/// The container that the agent itself is in, as far as its cgroups say.
pub(crate) fn around_agent(shared: &Shared) -> Option<Arc<Container>> {
    let place = place_of_agent(shared)?;
    shared.found.lock().get(&place.path).map(Arc::clone)
}

fn place_of_agent(shared: &Shared) -> Option<Match> {
    let track = &shared.live().track;
    let paths = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut paths = paths.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.find_map(|path| pattern::find(path, track))
}

/// A process of a found container touched namespaces: look again whose it has.
pub(crate) fn unsettled(container: &Container) {
    if container.origin == Origin::Found {
        container.stirred.notify_one();
    }
}

/// Takes in what is there at the agent's start. Blocking.
pub(crate) fn first_walk(shared: &Arc<Shared>) {
    for container in walk::containers(&shared.hierarchies, &shared.live().track).into_values() {
        consider(shared, container, true);
    }
}

/// Follows what is noticed, and walks now and then, until the agent ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    let waiting = shared
        .found
        .waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut waiting) = waiting else { return };
    let mut shutdown = shared.shutdown.subscribe();
    let pause = if shared.kernel.serves("cgroup") {
        NET
    } else {
        ONLY
    };
    loop {
        let first = tokio::select! {
            first = waiting.recv() => first,
            () = sleep(pause) => None,
            () = shared.found.anew.notified() => None,
            _ = shutdown.wait_for(|down| *down) => return,
        };
        let mut noticed: Vec<Match> = first.into_iter().collect();
        while let Ok(more) = waiting.try_recv() {
            noticed.push(more);
        }
        let this = Arc::clone(&shared);
        let handle = tokio::runtime::Handle::current();
        let work = tokio::task::spawn_blocking(move || {
            // Settling tasks are spawned from here.
            let _inside = handle.enter();
            if noticed.is_empty() {
                walk(&this);
                births::decide_lost(&this);
            }
            for container in noticed {
                consider(&this, container, false);
            }
        });
        // A panic has told of itself; the next round starts afresh.
        let _ = work.await;
    }
}

fn walk(shared: &Arc<Shared>) {
    let mut there = walk::containers(&shared.hierarchies, &shared.live().track);
    let known: Vec<String> = shared.found.lock().keys().cloned().collect();
    for path in known {
        if there.remove(&path).is_none() {
            gone(shared, &path);
        }
    }
    for container in there.into_values() {
        consider(shared, container, false);
    }
}

/// Brings what is known of one path up to date.
fn consider(shared: &Arc<Shared>, found: Match, at_start: bool) {
    let cgroup = match Cgroup::open(&shared.hierarchies, &found.path) {
        Ok(cgroup) => cgroup,
        Err(paddock_cgroups::Error::NotFound { .. }) => return gone(shared, &found.path),
        Err(error) => {
            tracing::warn!("{}: {}", found.path, crate::chain::chain(&error));
            return;
        }
    };
    let ids = match cgroup.ids() {
        Ok(ids) => ids,
        Err(error) => {
            tracing::warn!("{}: {}", found.path, crate::chain::chain(&error));
            return;
        }
    };
    let _making = shared.found.making();
    let known = shared.found.lock().get(&found.path).map(Arc::clone);
    if let Some(container) = known {
        // Runtimes make its directories one hierarchy after another.
        let slot = container.facts().slot;
        if let Some(slot) = slot
            && let Err(error) = shared.kernel.track(&ids, slot)
        {
            Shared::warn(&container, "cannot track a cgroup of it", &error);
        }
        return;
    }
    let outer = enclosing(shared, &found.path);
    if !has_room(shared, outer.as_deref()) {
        return;
    }
    let around = births::slot_of(outer.as_deref());
    // Born meanwhile, or left by a predecessor: its other hierarchies may be new.
    let provisional = shared.kernel.provisional(&ids);
    let given = provisional.or_else(|| shared.inherited(&ids));
    let slot = match given {
        Some(slot) => {
            let confirmed = shared.kernel.confirm(slot, around);
            confirmed
                .and_then(|()| shared.kernel.track(&ids, slot))
                .map(|()| Some(slot))
                .map_err(|error| error.to_string())
        }
        None => shared
            .kernel
            .enrol_within(&ids, &Shares::default(), around, oom::counted(&cgroup))
            .map_err(|error| crate::chain::chain(&error)),
    };
    let slot = slot.unwrap_or_else(|error| {
        tracing::error!("{}: found, but not watched: {error}", found.path);
        None
    });
    if given.is_none() && slot.is_some() {
        let pids = cgroup.pids().unwrap_or_default();
        if let Err(error) = shared.kernel.remember(&pids, &ids) {
            tracing::warn!("{}: {}", found.path, crate::chain::chain(&error));
        }
    }
    let inode = ids.unified.or(ids.memory_v1).or(ids.pids_v1).unwrap_or(0);
    let watched = Watched {
        slot,
        inode,
        born: provisional.is_some(),
        at_start,
    };
    register(shared, found, watched, outer);
}

/// The nearest container around a cgroup.
fn enclosing(shared: &Shared, path: &str) -> Option<Arc<Container>> {
    let ends = path.match_indices('/').map(|(end, _)| &path[..end]);
    let above: Vec<&str> = ends.collect();
    above.into_iter().rev().find_map(|prefix| {
        let found = shared.found.lock().get(prefix).map(Arc::clone);
        found.or_else(|| shared.registry.launched_at(prefix))
    })
}

/// Whoever makes cgroups within a container cannot use up what all need.
fn has_room(shared: &Shared, outer: Option<&Container>) -> bool {
    let Some(outer) = outer else { return true };
    let found = shared.found.lock();
    let nested = found
        .values()
        .filter(|one| one.parent.as_ref() == Some(&outer.name));
    nested.count() < NESTED
}

/// How a container was found.
#[derive(Clone, Copy, Debug)]
struct Watched {
    slot: Option<Slot>,
    /// Of its cgroup.
    inode: u64,
    /// Its slot is from its cgroup's birth.
    born: bool,
    /// It was there before the agent.
    at_start: bool,
}

/// Takes one in, whose slot is its own already.
fn register(shared: &Arc<Shared>, found: Match, watched: Watched, outer: Option<Arc<Container>>) {
    // Nobody's cgroup may pass for another's container; and what an inner runtime knows is not
    // on this host.
    let known_id = |id: &String| !shared.registry.has_id(id);
    let own_id = found.id.filter(known_id);
    let runtime_id = own_id.clone().filter(|_| outer.is_none());
    let written = runtime_id.as_deref().and_then(state::written);
    let named = written.as_ref().and_then(|written| written.name.clone());
    let id = own_id.unwrap_or_else(|| made_up_id(&found.path, watched.inode));
    let taken = |name: &str| shared.registry.has_name(name);
    let name = naming::unused(&named.unwrap_or(found.name), "-", taken);
    let Ok(reservation) = shared.registry.reserve(&name) else {
        return;
    };
    let birth = Birth {
        id,
        name,
        image: String::new(),
        command: Vec::new(),
        origin: Origin::Found,
        cgroup: found.path.clone(),
        parent: outer.map(|outer| outer.name.clone()),
        created_at_ns: clock::now_ns(),
        request: None,
        facts: Facts {
            slot: watched.slot,
            born: watched.born,
            written: Written {
                runtime_id,
                tries: 0,
                pod_uid: found.pod_uid,
                runtime: found.runtime,
                known: written,
            },
            ..Facts::default()
        },
    };
    let container = shared.registry.insert(reservation, birth);
    shared
        .found
        .lock()
        .insert(found.path, Arc::clone(&container));
    if let Some(slot) = watched.slot {
        shared.bind_policies(&container, slot);
    }
    tracing::info!("{}: found at /{}", container.name, container.cgroup);
    shared.publish(&container, "found");
    tokio::spawn(settle::settle(
        Arc::clone(shared),
        container,
        watched.at_start,
    ));
}

/// 64 hex digits like the others', the same for the same cgroup.
fn made_up_id(path: &str, inode: u64) -> String {
    let part = |number: u8| {
        format!(
            "{:016x}",
            fnv1a(format!("{number}/{inode}/{path}").as_bytes())
        )
    };
    [part(0), part(1), part(2), part(3)].concat()
}

/// Its cgroup went.
fn gone(shared: &Arc<Shared>, path: &str) {
    let Some(container) = shared.found.lock().remove(path) else {
        return;
    };
    let kernel = container.kernel_counters(&shared.kernel);
    let stats = container.facts().recent.clone().unwrap_or_default();
    end(shared, &container, &kernel, &stats);
}

fn end(shared: &Arc<Shared>, container: &Arc<Container>, kernel: &SlotCounters, stats: &Stats) {
    // What its cgroup counted at last nobody can read any more.
    let counters = Counters {
        oom_mismatch: container.facts().oom.mismatch,
        ..Counters::new(kernel, stats)
    };
    shared.registry.freeze(container, counters);
    let oom = container.oom(kernel, Some(stats));
    container.set_life(|life| {
        life.state = State::Exited;
        life.end = Some(End {
            exit_code: None,
            finished_at_ns: clock::now_ns(),
            oom_killed: container.facts().oom.main,
            oom,
            reason: None,
            failed: None,
        });
        life.removed = true;
    });
    tracing::info!("{}: gone", container.name);
    shared.publish(container, "exited");
    let (shared, container) = (Arc::clone(shared), Arc::clone(container));
    shared.registry.remove(&container.id);
    tokio::spawn(async move { crate::launch::release_slot(shared, container).await });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_ids_look_like_ids_and_tell_cgroups_apart() {
        let id = made_up_id("byhand", 7);
        assert_eq!(id.len(), 64);
        assert_eq!(id, made_up_id("byhand", 7));
        assert_ne!(id, made_up_id("byhand", 8));
        assert_ne!(id[..16], id[16..32]);
    }
}
