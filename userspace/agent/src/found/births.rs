//! Cgroups that the kernel half gave a slot at their birth: a container, a part of one, or nobody's.
//!
//! Decided here by the path, in the order of the records, before anything that happened in the
//! cgroup is told. A slot that is not kept rests, for hooks may be in it, and is laid out again.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use paddock_probe::{CgroupKey, Slot};
use tokio::{sync::Notify, time::sleep};

use super::{Watched, enclosing, gone, pattern, register};
use crate::{chain::chain, container::Container, shared::Shared};

/// No hook takes that long.
const REST: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
pub(super) struct Births {
    resting: Mutex<HashSet<Slot>>,
    /// Given back, and not anybody's since: what is still told of them is of no interest.
    nobodys: Mutex<HashSet<Slot>>,
    /// Undecided when the tree was walked last: their records were lost.
    undecided: Mutex<HashSet<Slot>>,
    changed: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Births {
    pub(super) fn is_nobodys(&self, slot: Slot) -> bool {
        lock(&self.nobodys).contains(&slot)
    }

    fn rest(&self, slot: Slot) {
        lock(&self.resting).insert(slot);
        self.changed.notify_one();
    }
}

/// A cgroup was born with a slot of its own.
pub(super) fn born(shared: &Arc<Shared>, slot: Slot, cgroup: CgroupKey, path: &str) {
    // A record from before a walk that has decided.
    if !shared.kernel.is_provisional(slot) {
        return;
    }
    let found = pattern::find(path, &shared.live().track);
    let path = path.trim_start_matches('/');
    match found {
        Some(found) if found.path == path => {
            let making = shared.found.making();
            let known = shared.found.lock().get(path).map(Arc::clone);
            if let Some(known) = known {
                if has_cgroups(shared, &known) {
                    // A twin in another hierarchy, of one that was not born with its slot.
                    return part_of(shared, slot, cgroup, path, Some(&known));
                }
                // Its end is not yet noticed: this is another of the same path.
                gone(shared, path);
            }
            let outer = enclosing(shared, path);
            if super::has_room(shared, outer.as_deref()) {
                if let Err(error) = shared.kernel.confirm(slot, slot_of(outer.as_deref())) {
                    tracing::warn!("{path}: {}", chain(&error));
                }
                lock(&shared.found.births.nobodys).remove(&slot);
                let watched = Watched {
                    slot: Some(slot),
                    inode: cgroup.id(),
                    born: true,
                    at_start: false,
                };
                register(shared, found, watched, outer);
                // One more is to be laid out.
                shared.found.births.changed.notify_one();
            } else {
                part_of(shared, slot, cgroup, path, outer.as_ref());
            }
            drop(making);
        }
        // Of a container whose own birth was not told: a walk finds both.
        Some(found) if !shared.found.lock().contains_key(&found.path) => {
            let _ = shared.found.noticed.try_send(found);
        }
        _ => part_of(shared, slot, cgroup, path, enclosing(shared, path).as_ref()),
    }
}

fn has_cgroups(shared: &Shared, container: &Container) -> bool {
    let slot = container.facts().slot;
    let tracked = shared.kernel.tracked().unwrap_or_default();
    tracked.iter().any(|(_, of)| Some(*of) == slot)
}

/// Of the container around it, if there is one; else nobody's.
fn part_of(
    shared: &Shared,
    slot: Slot,
    cgroup: CgroupKey,
    path: &str,
    whole: Option<&Arc<Container>>,
) {
    // The path as the kernel has it.
    let absolute = format!("/{path}");
    let births = &shared.found.births;
    let whole = whole.and_then(|whole| Some((whole, whole.facts().slot?)));
    let done = if let Some((whole, of)) = whole {
        shared.registry.enter_slot(slot, whole);
        shared.kernel.join(cgroup, &absolute, of)
    } else {
        lock(&births.nobodys).insert(slot);
        shared.kernel.give_back(cgroup, &absolute)
    };
    if let Err(error) = done {
        tracing::warn!("{absolute}: {}", chain(&error));
    }
    births.rest(slot);
}

pub(super) fn slot_of(container: Option<&Container>) -> Slot {
    container
        .and_then(|container| container.facts().slot)
        .unwrap_or(Slot(0))
}

/// After a walk, which has decided all containers that it saw: what was undecided before it is
/// decided now, by the path if its cgroup is there.
pub(super) fn decide_lost(shared: &Arc<Shared>) {
    let births = &shared.found.births;
    let now: HashSet<Slot> = shared.kernel.provisional_slots().into_iter().collect();
    let before = std::mem::replace(&mut *lock(&births.undecided), now.clone());
    let lost: Vec<Slot> = before.intersection(&now).copied().collect();
    if lost.is_empty() {
        return;
    }
    let known = shared
        .kernel
        .tracked()
        .and_then(|tracked| Ok((tracked, shared.kernel.birth_paths(&lost)?)));
    match known {
        Ok((tracked, paths)) => {
            for (path, slot) in paths {
                let mut keys = tracked.iter().filter(|(_, of)| *of == slot);
                if let Some((cgroup, _)) = keys.next() {
                    born(shared, slot, *cgroup, &path);
                }
            }
        }
        Err(error) => tracing::warn!("{}", chain(&error)),
    }
    for slot in lost {
        if shared.kernel.is_provisional(slot) {
            lock(&births.nobodys).insert(slot);
            births.rest(slot);
        }
    }
}

/// Releases what has rested and lays out anew, until the agent ends.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        let slots: Vec<Slot> = lock(&shared.found.births.resting).iter().copied().collect();
        tokio::select! {
            () = sleep(REST), if !slots.is_empty() => {}
            () = shared.found.births.changed.notified(), if slots.is_empty() => {}
            _ = shutdown.wait_for(|down| *down) => return,
        }
        let this = Arc::clone(&shared);
        let work = tokio::task::spawn_blocking(move || {
            release(&this, &slots);
            if let Err(error) = this.kernel.lay_out_slots() {
                tracing::warn!("cannot lay out slots: {}", chain(&error));
            }
        });
        // A panic has told of itself.
        let _ = work.await;
    }
}

fn release(shared: &Shared, slots: &[Slot]) {
    if slots.is_empty() {
        return;
    }
    for slot in slots {
        shared.policies.leave(shared, *slot);
        shared.registry.forget_slot(*slot);
    }
    match shared.kernel.release_all(slots) {
        Ok(()) => lock(&shared.found.births.resting).retain(|slot| !slots.contains(slot)),
        Err(error) => tracing::warn!("cannot free slots: {}", chain(&error)),
    }
}
