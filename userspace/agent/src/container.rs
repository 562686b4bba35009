//! One container, launched or found: what never changes, its life, and what is known meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paddock_cgroups::{Cgroup, Hierarchies, Limits, MemoryLimits, Stats};
use paddock_probe::{NS_TYPES, NsInums, Slot, SlotCounters};
use paddock_runtime::record::Failed;
use tokio::sync::{Notify, watch};

use crate::{
    api::{ContainerDetail, ContainerSummary, CreateRequest, Origin, State},
    bus::Subject,
    counters::{self, Counters},
    kernel::Kernel,
    launch::Link,
    namespaces,
};

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) origin: Origin,
    /// Relative to every hierarchy's mount.
    pub(crate) cgroup: String,
    pub(crate) created_at_ns: u64,
    pub(crate) request: Option<CreateRequest>,
    /// Has series of its own; else it is part of `_other`.
    pub(crate) labelled: bool,
    life: watch::Sender<Life>,
    facts: Mutex<Facts>,
    /// The kernel half told that the main process was a victim.
    pub(crate) oom_told: Notify,
    /// Something happened to a found one: a process came, or touched namespaces.
    pub(crate) stirred: Notify,
    /// Held while its cgroup is frozen, thawed or limited anew.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

/// Where it is between its making and its removal.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) state: State,
    /// First process and its start time (field 22 of /proc/PID/stat).
    pub(crate) main: Option<(i32, u64)>,
    pub(crate) started_at_ns: Option<u64>,
    pub(crate) end: Option<End>,
    pub(crate) removed: bool,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// Absent for a found one: only its parent was told.
    pub(crate) exit_code: Option<i32>,
    pub(crate) finished_at_ns: u64,
    pub(crate) oom_killed: bool,
    pub(crate) reason: Option<String>,
    /// The workload never ran.
    pub(crate) failed: Option<Failed>,
}

/// What is found out while it lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) slot: Option<Slot>,
    pub(crate) namespaces: NsInums,
    /// Mask of the types that are the host's by configuration.
    pub(crate) shared: u32,
    /// The last reading, once there is nothing left to read.
    pub(crate) last: Option<Counters>,
    pub(crate) main_oom_killed: bool,
    /// To its monitor; a found one has none.
    pub(crate) link: Option<Arc<Link>>,
    /// Types of which a process of a found one had one of its own.
    pub(crate) own_types: u32,
    /// The last reading of its cgroup by anybody.
    pub(crate) recent: Option<Stats>,
    /// What `update` made of the request's limits.
    pub(crate) updated: Option<Limits>,
}

/// What a container is born with.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) origin: Origin,
    pub(crate) cgroup: String,
    pub(crate) created_at_ns: u64,
    pub(crate) request: Option<CreateRequest>,
    pub(crate) facts: Facts,
}

impl Container {
    pub(crate) fn new(birth: Birth, labelled: bool) -> Self {
        let life = Life {
            state: State::Created,
            main: None,
            started_at_ns: None,
            end: None,
            removed: false,
        };
        Self {
            id: birth.id,
            name: birth.name,
            image: birth.image,
            command: birth.command,
            origin: birth.origin,
            cgroup: birth.cgroup,
            created_at_ns: birth.created_at_ns,
            request: birth.request,
            labelled,
            life: watch::Sender::new(life),
            facts: Mutex::new(birth.facts),
            oom_told: Notify::new(),
            stirred: Notify::new(),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn life(&self) -> Life {
        self.life.borrow().clone()
    }

    pub(crate) fn state(&self) -> State {
        self.life.borrow().state
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    pub(crate) fn set_life(&self, change: impl FnOnce(&mut Life)) {
        self.life.send_modify(change);
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subject(&self) -> Subject {
        Subject {
            name: Some(self.name.clone()),
            id: Some(self.id.clone()),
        }
    }

    /// Whether that is its first process.
    pub(crate) fn is_main(&self, pid: u32) -> bool {
        let main = self.life.borrow().main;
        main.is_some_and(|(main, _)| main.cast_unsigned() == pid)
    }

    /// Use and limits now; `None` when the cgroup is gone.
    pub(crate) fn stats(&self, hierarchies: &Hierarchies) -> Option<Stats> {
        if self.state() == State::Exited {
            return None;
        }
        let stats = Cgroup::open(hierarchies, &self.cgroup)
            .and_then(|one| one.stats())
            .ok()?;
        self.facts().recent = Some(stats.clone());
        Some(stats)
    }

    /// Asks the kernel, so that nobody's memory of it can be wrong.
    pub(crate) fn is_paused(&self, hierarchies: &Hierarchies) -> bool {
        self.state() == State::Running
            && Cgroup::open(hierarchies, &self.cgroup)
                .and_then(|one| one.is_frozen())
                .unwrap_or(false)
    }

    /// What it may use now; of a found one, what its cgroup says.
    pub(crate) fn limits(&self, stats: Option<&Stats>) -> Limits {
        if let Some(updated) = &self.facts().updated {
            return updated.clone();
        }
        self.request
            .as_ref()
            .map_or_else(|| limits_of(stats), |request| request.limits.clone())
    }

    /// The slot's counters now, or the last ones.
    pub(crate) fn kernel_counters(&self, kernel: &Kernel) -> SlotCounters {
        let facts = self.facts();
        match (&facts.last, facts.slot) {
            (Some(last), _) => last.kernel,
            (None, Some(slot)) => kernel.counters(slot).unwrap_or(SlotCounters::ZERO),
            (None, None) => SlotCounters::ZERO,
        }
    }

    /// Reads its cgroup's freezer.
    pub(crate) fn summary(&self, kernel: &Kernel, hierarchies: &Hierarchies) -> ContainerSummary {
        let paused = self.is_paused(hierarchies);
        let life = self.life();
        let counters = self.kernel_counters(kernel);
        let facts = self.facts();
        let oom_kills = if facts.slot.is_some() || kernel.unavailable().is_none() {
            counters::oom_kills(&counters)
        } else {
            facts
                .last
                .as_ref()
                .and_then(|last| last.memory_oom_kills)
                .unwrap_or(0)
        };
        let end = life.end.as_ref();
        ContainerSummary {
            id: self.id.clone(),
            name: self.name.clone(),
            image: self.image.clone(),
            command: self.command.clone(),
            origin: self.origin,
            state: if paused { State::Paused } else { life.state },
            pid: life
                .main
                .filter(|_| life.state == State::Running)
                .map(|(pid, _)| pid),
            created_at_ns: self.created_at_ns,
            started_at_ns: life.started_at_ns,
            finished_at_ns: end.map(|end| end.finished_at_ns),
            exit_code: end.and_then(|end| end.exit_code),
            oom_killed: facts.main_oom_killed || end.is_some_and(|end| end.oom_killed),
            oom_kills,
            escapes: counters::escapes(&counters),
        }
    }

    pub(crate) fn detail(&self, kernel: &Kernel, hierarchies: &Hierarchies) -> ContainerDetail {
        let summary = self.summary(kernel, hierarchies);
        let stats = self.stats(hierarchies);
        let limits = self.limits(stats.as_ref());
        let facts = self.facts().clone();
        ContainerDetail {
            summary,
            cgroup: self.cgroup.clone(),
            limits: limits.clone(),
            namespaces: namespaces::by_name(&facts.namespaces),
            host_namespaces: namespaces::names(namespaces::common(
                &facts.namespaces,
                kernel.host(),
            )),
            stats,
            request: self
                .request
                .clone()
                .map(|request| CreateRequest { limits, ..request }),
            slot: facts
                .slot
                .filter(|_| facts.last.is_none())
                .map(|slot| slot.0),
        }
    }
}

impl Default for Birth {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            image: String::new(),
            command: Vec::new(),
            origin: Origin::Found,
            cgroup: String::new(),
            created_at_ns: 0,
            request: None,
            facts: Facts {
                namespaces: [0; NS_TYPES],
                ..Facts::default()
            },
        }
    }
}

/// What a found container's cgroup says of its limits.
fn limits_of(stats: Option<&Stats>) -> Limits {
    let Some(stats) = stats else {
        return Limits::default();
    };
    Limits {
        memory: MemoryLimits {
            limit: stats
                .memory_limit_bytes
                .and_then(|limit| i64::try_from(limit).ok()),
            ..MemoryLimits::default()
        },
        pids: stats.pids_limit.and_then(|limit| i64::try_from(limit).ok()),
        ..Limits::default()
    }
}
