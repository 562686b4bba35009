//! All containers, by id, name and slot, and the counters of those that went.
//!
//! A name has one container at a time. Series stay bounded: at most [`LABELLED`] containers
//! have their own, the rest are summed as `_other`; a container's counters stay for
//! [`TOMBSTONE_NS`] after its end, so that the last increments are scraped and alerts see them.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use paddock_probe::Slot;

use crate::{
    api::State,
    container::{Birth, Container},
    counters::Counters,
};

/// Containers with series of their own.
pub(crate) const LABELLED: usize = 512;
/// How long counters outlive their container: 15 minutes.
pub(crate) const TOMBSTONE_NS: u64 = 15 * 60 * 1_000_000_000;
/// How many removed containers' counters are kept.
pub(crate) const TOMBSTONES: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Of containers, and of those being made.
    names: HashSet<String>,
    by_slot: HashMap<Slot, Arc<Container>>,
    /// Removed, oldest first.
    tombstones: VecDeque<Arc<Container>>,
    /// Counters of ended containers without series of their own.
    other: Counters,
}

/// What metrics are made of, at one moment.
#[derive(Debug)]
pub(crate) struct Exported {
    pub(crate) containers: Vec<Arc<Container>>,
    /// Without series of their own, and not ended yet.
    pub(crate) folded: Vec<Arc<Container>>,
    pub(crate) other: Counters,
    /// By state: created, running, restarting, exited.
    pub(crate) states: [u64; 4],
}

impl Registry {
    /// Takes a name for a container that is being made; it goes back when dropped.
    pub(crate) fn reserve(&self, name: &str) -> Result<Reservation<'_>, Error> {
        if !self.lock().names.insert(name.to_owned()) {
            return Err(Error::NameInUse {
                name: name.to_owned(),
            });
        }
        Ok(Reservation {
            registry: self,
            name: Some(name.to_owned()),
        })
    }

    pub(crate) fn has_id(&self, id: &str) -> bool {
        self.lock().by_id.contains_key(id)
    }

    /// One that paddock launched, by its cgroup.
    pub(crate) fn launched_at(&self, cgroup: &str) -> Option<Arc<Container>> {
        // `paddock/INSTANCE/ID`: most paths need no search.
        let id = cgroup.rsplit('/').next()?;
        let found = self.lock().by_id.get(id).map(Arc::clone)?;
        (found.origin == crate::api::Origin::Launched && found.cgroup == cgroup).then_some(found)
    }

    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.lock().names.contains(name)
    }

    /// Adds a container under its reserved name.
    pub(crate) fn insert(&self, reservation: Reservation<'_>, birth: Birth) -> Arc<Container> {
        let now = birth.created_at_ns;
        let mut inner = self.lock();
        reservation.keep();
        // One series must not be two containers': the former's counters end here.
        inner.tombstones.retain(|gone| gone.name != birth.name);
        let labelled = inner.make_room(now);
        let container = Arc::new(Container::new(birth, labelled));
        if let Some(slot) = container.facts().slot {
            inner.by_slot.insert(slot, Arc::clone(&container));
        }
        inner
            .by_id
            .insert(container.id.clone(), Arc::clone(&container));
        container
    }

    /// The slot is the container's from now on.
    pub(crate) fn enter_slot(&self, slot: Slot, container: &Arc<Container>) {
        self.lock().by_slot.insert(slot, Arc::clone(container));
    }

    /// The slot goes to nobody, or to another container, from now on.
    pub(crate) fn forget_slot(&self, slot: Slot) {
        self.lock().by_slot.remove(&slot);
    }

    pub(crate) fn of_slot(&self, slot: Slot) -> Option<Arc<Container>> {
        self.lock().by_slot.get(&slot).map(Arc::clone)
    }

    /// Takes out an ended container; its counters stay a while.
    pub(crate) fn remove(&self, id: &str) {
        let mut inner = self.lock();
        let Some(container) = inner.by_id.remove(id) else {
            return;
        };
        inner.names.remove(&container.name);
        if container.labelled {
            inner.tombstones.push_back(container);
            if inner.tombstones.len() > TOMBSTONES {
                inner.tombstones.pop_front();
            }
        }
    }

    /// Keeps an ended container's last counters where they belong.
    pub(crate) fn freeze(&self, container: &Container, last: Counters) {
        let mut inner = self.lock();
        if !container.labelled {
            inner.other.add(&last);
        }
        container.facts().last = Some(last);
    }

    /// By name, id, or an id's unambiguous prefix.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Container>, Error> {
        let inner = self.lock();
        if let Some(found) = inner.by_id.get(reference) {
            return Ok(Arc::clone(found));
        }
        if let Some(found) = inner.by_id.values().find(|one| one.name == reference) {
            return Ok(Arc::clone(found));
        }
        let after = inner.by_id.range(reference.to_owned()..);
        let mut matching = after
            .map(|(_, one)| one)
            .take_while(|one| one.id.starts_with(reference));
        match (matching.next(), matching.next()) {
            (Some(found), None) if !reference.is_empty() => Ok(Arc::clone(found)),
            (Some(_), Some(_)) if !reference.is_empty() => Err(Error::Ambiguous {
                reference: reference.to_owned(),
            }),
            _ => Err(Error::NotFound {
                reference: reference.to_owned(),
                near: near(reference, inner.by_id.values().map(|one| &*one.name)),
            }),
        }
    }

    /// Removed a while ago, by its whole id.
    pub(crate) fn gone(&self, id: &str) -> Option<Arc<Container>> {
        let inner = self.lock();
        let found = inner.tombstones.iter().rev().find(|gone| gone.id == id);
        found.map(Arc::clone)
    }

    /// In the order of their making.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.lock().by_id.values().map(Arc::clone).collect();
        all.sort_by_key(|one| one.created_at_ns);
        all
    }

    /// Whether nothing is there that could still run by itself.
    pub(crate) fn is_idle(&self) -> bool {
        self.lock().by_id.values().all(|one| match one.state() {
            _ if one.origin == crate::api::Origin::Found => true,
            State::Exited => true,
            State::Created => one.facts().link.is_none(),
            _ => false,
        })
    }

    pub(crate) fn exported(&self, now_ns: u64) -> Exported {
        let mut inner = self.lock();
        inner.tombstones.retain(|gone| is_exported(gone, now_ns));
        let mut states = [0; 4];
        for container in inner.by_id.values() {
            let [created, running, restarting, exited] = &mut states;
            match container.state() {
                State::Created => *created += 1,
                State::Running | State::Paused => *running += 1,
                State::Restarting => *restarting += 1,
                State::Exited => *exited += 1,
            }
        }
        let registered = inner.by_id.values().filter(|one| one.labelled);
        let containers = registered.chain(&inner.tombstones);
        let folded = inner
            .by_id
            .values()
            .filter(|one| !one.labelled && one.facts().last.is_none());
        Exported {
            containers: containers
                .filter(|one| is_exported(one, now_ns))
                .map(Arc::clone)
                .collect(),
            folded: folded.map(Arc::clone).collect(),
            other: inner.other.clone(),
            states,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing here panics between two changes that belong together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether one more container can have its own series, for which the dead make room.
    fn make_room(&mut self, now_ns: u64) -> bool {
        self.tombstones.retain(|gone| is_exported(gone, now_ns));
        let labelled = self
            .by_id
            .values()
            .filter(|one| one.labelled && is_exported(one, now_ns));
        let living = labelled.count();
        while living + self.tombstones.len() >= LABELLED && self.tombstones.pop_front().is_some() {}
        living < LABELLED
    }
}

/// Until a quarter of an hour after its end.
fn is_exported(container: &Container, now_ns: u64) -> bool {
    container
        .finished_at_ns()
        .is_none_or(|end| now_ns.saturating_sub(end) < TOMBSTONE_NS)
}

/// A name that is taken while its container is being made.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    registry: &'a Registry,
    name: Option<String>,
}

impl Reservation<'_> {
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            self.registry.lock().names.remove(name);
        }
    }
}

/// Longer references are nobody's slip, and take long to compare.
const SLIP: usize = 64;

/// The name that it was typed for, if one is a letter or two away.
fn near<'a>(reference: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    if reference.len() < 2 || reference.len() > SLIP {
        return None;
    }
    let lower = reference.to_lowercase();
    names
        .filter(|name| name.len() <= SLIP)
        .map(|name| {
            let distance = strsim::damerau_levenshtein(&lower, &name.to_lowercase());
            (distance, name)
        })
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .map(|(_, name)| name.to_owned())
}

fn hint(near: Option<&str>) -> String {
    near.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("no container {reference}{}", hint(near.as_deref()))]
    NotFound {
        reference: String,
        /// What may have been meant.
        near: Option<String>,
    },
    #[error("{reference} is the beginning of several ids: give more of it")]
    Ambiguous { reference: String },
    #[error("the name {name} is in use: choose another, or `paddock rm {name}` first")]
    NameInUse { name: String },
}

#[cfg(test)]
mod tests {
    use paddock_probe::SlotCounters;

    use super::*;
    use crate::container::End;

    const MINUTE: u64 = 60 * 1_000_000_000;

    fn add(registry: &Registry, id: &str, name: &str, at: u64) -> Arc<Container> {
        let birth = Birth {
            id: id.into(),
            name: name.into(),
            created_at_ns: at,
            ..Birth::default()
        };
        registry.insert(registry.reserve(name).unwrap(), birth)
    }

    fn end(registry: &Registry, container: &Container, at: u64, cell: u64) {
        let mut kernel = SlotCounters::ZERO;
        kernel.cells[0] = cell;
        registry.freeze(
            container,
            Counters {
                kernel,
                ..Counters::default()
            },
        );
        container.set_life(|life| {
            life.state = State::Exited;
            life.end = Some(End {
                exit_code: Some(0),
                finished_at_ns: at,
                oom_killed: false,
                oom: None,
                reason: None,
                failed: None,
            });
        });
    }

    fn exported(registry: &Registry, at: u64) -> Vec<String> {
        registry
            .exported(at)
            .containers
            .iter()
            .map(|one| one.name.clone())
            .collect()
    }

    #[test]
    fn found_by_name_id_and_prefix() {
        let registry = Registry::default();
        add(&registry, "abc1", "web", 1);
        add(&registry, "abd2", "abc1x", 2);
        let name = |reference: &str| registry.find(reference).map(|one| one.name.clone());
        assert_eq!(name("web").unwrap(), "web");
        assert_eq!(name("abc1").unwrap(), "web");
        assert_eq!(name("abd").unwrap(), "abc1x");
        assert_eq!(
            name("ab"),
            Err(Error::Ambiguous {
                reference: "ab".into()
            })
        );
        for (missing, near) in [
            ("", None),
            ("x", None),
            ("nobody", None),
            ("abc12", Some("abc1x")),
            ("wbe", Some("web")),
        ] {
            let error = Error::NotFound {
                reference: missing.into(),
                near: near.map(str::to_owned),
            };
            assert_eq!(name(missing), Err(error));
        }
        let error = name("wbe").unwrap_err().to_string();
        assert_eq!(error, "no container wbe; did you mean web?");
    }

    #[test]
    fn a_name_is_taken_while_its_container_is_made_and_free_after_a_failure() {
        let registry = Registry::default();
        let reserved = registry.reserve("web").unwrap();
        assert!(registry.reserve("web").is_err());
        drop(reserved);
        let container = add(&registry, "a", "web", 0);
        assert!(registry.reserve("web").is_err());
        end(&registry, &container, 0, 0);
        registry.remove("a");
        assert!(registry.reserve("web").is_ok());
    }

    #[test]
    fn counters_stay_a_quarter_of_an_hour() {
        let registry = Registry::default();
        let container = add(&registry, "a", "web", 0);
        end(&registry, &container, MINUTE, 1);
        registry.remove("a");
        assert_eq!(registry.gone("a").unwrap().name, "web");
        assert!(registry.gone("web").is_none());
        assert_eq!(exported(&registry, 15 * MINUTE), ["web"]);
        assert!(exported(&registry, 16 * MINUTE).is_empty());
    }

    #[test]
    fn a_reused_name_is_one_series() {
        let registry = Registry::default();
        let container = add(&registry, "a", "web", 0);
        end(&registry, &container, 0, 1);
        registry.remove("a");
        add(&registry, "b", "web", 1);
        assert_eq!(exported(&registry, 2), ["web"]);
    }

    #[test]
    fn the_dead_are_bounded_and_make_room_for_the_living() {
        let registry = Registry::default();
        for number in 0..TOMBSTONES + 10 {
            let id = format!("dead{number}");
            let container = add(&registry, &id, &id, 0);
            end(&registry, &container, 0, 0);
            registry.remove(&id);
        }
        assert_eq!(exported(&registry, 1).len(), TOMBSTONES);
        for number in 0..LABELLED + 3 {
            let id = format!("living{number}");
            add(&registry, &id, &id, 1);
        }
        let exported = registry.exported(2);
        assert_eq!(
            (exported.containers.len(), exported.folded.len()),
            (LABELLED, 3)
        );
        assert!(
            exported
                .containers
                .iter()
                .all(|one| one.name.starts_with("living"))
        );
    }

    #[test]
    fn other_never_decreases() {
        let registry = Registry::default();
        for number in 0..LABELLED {
            let id = format!("{number}");
            add(&registry, &id, &id, 0);
        }
        let folded = add(&registry, "x", "x", 0);
        assert!(!folded.labelled);
        end(&registry, &folded, 0, 7);
        registry.remove("x");
        let exported = registry.exported(TOMBSTONE_NS);
        assert!(exported.folded.is_empty());
        assert_eq!(exported.other.kernel.cells[0], 7);
    }
}
