//! What every part of a running agent holds.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use paddock_cgroups::{CgroupIds, Delegation, Hierarchies};
use paddock_probe::{CgroupKey, Slot};
use tokio::sync::watch;

use crate::{
    api::State,
    bus::Bus,
    canary::Canary,
    clock,
    container::Container,
    event::{Event, Kind},
    fills::Fills,
    found::Found,
    instance::Instance,
    kernel::{Kernel, keys},
    launch::{Filters, Keeper, Restorer},
    namespaces,
    options::{Live, Options},
    policies::{Policies, Who},
    registry::Registry,
    shipping::Shipped,
    store::Store,
    web::Door,
};

#[derive(Debug)]
pub(crate) struct Shared {
    /// As it was started; what may change since is in [`live`](Self::live).
    pub(crate) options: Options,
    pub(crate) live: RwLock<Arc<Live>>,
    pub(crate) instance: Instance,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) delegation: Delegation,
    pub(crate) kernel: Kernel,
    pub(crate) registry: Registry,
    pub(crate) bus: Arc<Bus>,
    /// `None`: events are kept in memory alone.
    pub(crate) store: Option<Arc<Store>>,
    /// To where events are passed on.
    pub(crate) shipped: Vec<Arc<Shipped>>,
    pub(crate) zygote: Keeper,
    pub(crate) filters: Filters,
    pub(crate) found: Found,
    pub(crate) policies: Policies,
    pub(crate) restorer: Restorer,
    pub(crate) canary: Canary,
    pub(crate) fills: Fills,
    pub(crate) metrics_address: Option<SocketAddr>,
    /// To the metrics.
    pub(crate) door: Arc<Door>,
    /// Turns true once; everything that waits ends then.
    pub(crate) shutdown: watch::Sender<bool>,
    /// Open connections to the API, for an ephemeral agent's end.
    pub(crate) clients: AtomicUsize,
    /// What a predecessor's maps track and nobody has claimed yet.
    pub(crate) inherited: Mutex<HashMap<CgroupKey, Slot>>,
    /// Nobody's any more, to be freed together.
    pub(crate) freed: Mutex<Vec<Slot>>,
}

impl Shared {
    pub(crate) fn publish(&self, container: &Container, action: &str) {
        let end = container.life().end;
        let kind = Kind::Container {
            action: action.to_owned(),
            exit_code: end.as_ref().and_then(|end| end.exit_code),
            oom_killed: end.as_ref().map(|end| end.oom_killed),
        };
        self.bus.publish(clock::now_ns(), container.subject(), kind);
    }

    /// One that is kept, in memory or in the store. Blocking.
    pub(crate) fn event(&self, id: u64) -> Option<Arc<Event>> {
        let stored = || self.store.as_ref()?.find(id).map(Arc::new);
        self.bus.find(id).or_else(stored)
    }

    /// What is kept of an event's container from about its time. Blocking.
    pub(crate) fn events_near(&self, event: &Event, span_ns: u64) -> Vec<Arc<Event>> {
        let mut near: Vec<_> = self.bus.snapshot().history;
        near.retain(|other| other.time_ns.abs_diff(event.time_ns) <= span_ns);
        if let (Some(store), Some(id)) = (&self.store, &event.container_id) {
            let stored = store.near(id, event.time_ns, span_ns);
            near.extend(stored.into_iter().map(Arc::new));
        }
        near
    }

    /// A line in the log for what has no better place; with the container's name.
    pub(crate) fn warn(
        container: &Container,
        what: &str,
        error: &(dyn std::error::Error + 'static),
    ) {
        tracing::warn!("{}: {what}: {}", container.name, crate::chain::chain(error));
    }

    /// Tells the kernel half that the container's namespaces are its own, those that are known
    /// to be another's excepted.
    pub(crate) fn enter_namespaces(&self, container: &Container) {
        let (slot, mut inums) = {
            let facts = container.facts();
            (facts.slot, facts.namespaces)
        };
        let Some(slot) = slot else { return };
        for other in self.registry.all() {
            if other.id != container.id && other.state() == State::Running {
                let theirs = namespaces::common(&inums, &other.facts().namespaces);
                namespaces::clear(&mut inums, theirs);
            }
        }
        if let Err(error) = self.kernel.own_namespaces(slot, &inums) {
            Self::warn(
                container,
                "cannot enter its namespaces in the kernel half",
                &error,
            );
        }
    }

    /// Binds what policies say of a container that is known now: a launched one is bound already,
    /// to what was in force before.
    pub(crate) fn bind_policies(&self, container: &Container, slot: Slot) {
        if let Err(error) = self.policies.bind(self, &Who::of(container), slot) {
            tracing::error!(
                "{}: what policies say does not hold for it: {}",
                container.name,
                crate::chain::chain(&error)
            );
        }
    }

    /// The slot that a predecessor gave these cgroups, once.
    pub(crate) fn inherited(&self, ids: &CgroupIds) -> Option<Slot> {
        let mut inherited = self
            .inherited
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let slot = keys(ids).find_map(|key| inherited.get(&key).copied())?;
        inherited.retain(|_, other| *other != slot);
        Some(slot)
    }

    /// What holds now; to be asked each time.
    pub(crate) fn live(&self) -> Arc<Live> {
        // It is replaced as a whole, so a panic elsewhere leaves one or the other.
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn begin_shutdown(&self) {
        self.shutdown.send_replace(true);
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }
}
