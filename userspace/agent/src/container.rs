//! One container, launched or found: what never changes, its life, and what is known meanwhile.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use paddock_cgroups::{Cgroup, Hierarchies, Limits, MemoryLimits, Stats};
use paddock_probe::{NS_TYPES, NsInums, Slot, SlotCounters};
use paddock_runtime::record::Failed;
use tokio::sync::{Mutex as Turn, Notify, watch};

use crate::{
    api::{ContainerDetail, ContainerSummary, CreateRequest, OomReport, OomVictim, Origin, State},
    bus::Subject,
    counters::{self, Counters},
    kernel::Kernel,
    launch::{Backoff, Link},
    namespaces, oom,
    rates::Samples,
};

/// How long a kill may be in one count and not in the other.
const IN_FLIGHT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) origin: Origin,
    /// Relative to every hierarchy's mount.
    pub(crate) cgroup: String,
    /// Name of the container that it is nested in.
    pub(crate) parent: Option<String>,
    pub(crate) created_at_ns: u64,
    pub(crate) request: Option<CreateRequest>,
    /// Has series of its own; else it is part of `_other`.
    pub(crate) labelled: bool,
    /// Held while a run is made ready or given up: one at a time.
    pub(crate) turn: Turn<()>,
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
    /// Of the last run, until the next one has started.
    pub(crate) end: Option<End>,
    /// Runs that started, and runs that ended, since this agent knows it.
    pub(crate) started: u64,
    pub(crate) ended: u64,
    /// Its end takes it out, in a moment.
    pub(crate) leaves: bool,
    pub(crate) removed: bool,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// Absent for a found one: only its parent was told.
    pub(crate) exit_code: Option<i32>,
    pub(crate) finished_at_ns: u64,
    pub(crate) oom_killed: bool,
    pub(crate) oom: Option<OomReport>,
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
    /// Its setns are judged before they happen without a security module's help.
    pub(crate) setns_before: bool,
    /// The last reading, once there is nothing left to read.
    pub(crate) last: Option<Counters>,
    pub(crate) oom: Oom,
    pub(crate) backoff: Backoff,
    /// Counts of earlier runs, of the kernel half's those of slots that were given back.
    pub(crate) earlier: Counters,
    /// A user's restart ends it: what `--rm` means is not meant.
    pub(crate) stays: bool,
    /// To its monitor; a found one has none.
    pub(crate) link: Option<Arc<Link>>,
    /// Types of which a process of a found one had one of its own.
    pub(crate) own_types: u32,
    /// The last reading of its cgroup by anybody.
    pub(crate) recent: Option<Stats>,
    pub(crate) cpu: Samples,
    /// What `update` made of the request's limits.
    pub(crate) updated: Option<Limits>,
    /// Limits of the present run that somebody had changed and that were written again.
    pub(crate) restored: u64,
    /// Had its slot before anybody joined it.
    pub(crate) born: bool,
    /// What is known of a found one from its runtime.
    pub(crate) written: Written,
}

/// What a found container's runtime wrote of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// As the cgroup's path has it.
    pub(crate) runtime_id: Option<String>,
    /// So often it was looked for.
    pub(crate) tries: u32,
    /// Out of the path.
    pub(crate) pod_uid: Option<String>,
    /// Out of the path, by its name in policies.
    pub(crate) runtime: Option<&'static str>,
    pub(crate) known: Option<crate::found::state::Written>,
}

/// What the OOM killer was told to have done in the present run, or the last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oom {
    pub(crate) main: bool,
    /// By whose limit the last victim that tells most, the main process, or any, went.
    pub(crate) constraint: Option<&'static str>,
    pub(crate) limit_bytes: Option<u64>,
    /// The kernel half's count when the run began.
    pub(crate) before: u64,
    /// By how many kills the two halves' counts differed at the last reading of both, and since
    /// when they do.
    pub(crate) mismatch: Option<u64>,
    pub(crate) differs_since: Option<Instant>,
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
    pub(crate) parent: Option<String>,
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
            started: 0,
            ended: 0,
            leaves: false,
            removed: false,
        };
        Self {
            id: birth.id,
            name: birth.name,
            image: birth.image,
            command: birth.command,
            origin: birth.origin,
            cgroup: birth.cgroup,
            parent: birth.parent,
            created_at_ns: birth.created_at_ns,
            request: birth.request,
            labelled,
            turn: Turn::new(()),
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

    /// When its last run ended, unless it runs again.
    pub(crate) fn finished_at_ns(&self) -> Option<u64> {
        let life = self.life.borrow();
        life.end.as_ref().map(|end| end.finished_at_ns)
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

    /// Of a found one, what its runtime says; empty is unknown.
    pub(crate) fn image(&self) -> String {
        let known = self.facts().written.known.clone();
        known
            .and_then(|known| known.image)
            .unwrap_or_else(|| self.image.clone())
    }

    /// Who runs it, by its name in policies; absent where neither its path nor a file says so.
    pub(crate) fn runtime(&self) -> Option<&'static str> {
        if self.origin == Origin::Launched {
            return Some("paddock");
        }
        let facts = self.facts();
        let known = facts.written.known.as_ref();
        facts
            .written
            .runtime
            .or_else(|| known.and_then(|known| known.runtime))
    }

    /// What is known of its pod: name, namespace, uid.
    pub(crate) fn pod(&self) -> crate::found::state::Written {
        let written = self.facts().written.clone();
        let mut known = written.known.unwrap_or_default();
        known.pod_uid = known.pod_uid.or(written.pod_uid);
        known
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
        let life = self.life();
        if life.state == State::Exited {
            return None;
        }
        let stats = Cgroup::open(hierarchies, &self.cgroup)
            .and_then(|one| one.stats())
            .ok()?;
        let mut facts = self.facts();
        if self.life().ended == life.ended {
            facts.recent = Some(stats.clone());
        }
        drop(facts);
        Some(stats)
    }

    pub(crate) fn running_since_ns(&self) -> Option<u64> {
        let life = self.life();
        life.started_at_ns.filter(|_| life.state == State::Running)
    }

    /// Since somebody started it.
    pub(crate) fn restarts(&self) -> u32 {
        self.facts().backoff.restarts
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

    /// The kernel half's counters of all runs, or the last ones.
    pub(crate) fn kernel_counters(&self, kernel: &Kernel) -> SlotCounters {
        let facts = self.facts();
        if let Some(last) = &facts.last {
            return last.kernel;
        }
        let slot = facts.slot.and_then(|slot| kernel.counters(slot).ok());
        let mut sum = facts.earlier.kernel;
        for (sum, cell) in sum
            .cells
            .iter_mut()
            .zip(slot.unwrap_or(SlotCounters::ZERO).cells)
        {
            *sum = sum.saturating_add(cell);
        }
        sum
    }

    /// All that is counted of all runs: `kernel` as above, `stats` of the present cgroup.
    pub(crate) fn counters(&self, kernel: &SlotCounters, stats: &Stats) -> Counters {
        let mut sum = {
            let facts = self.facts();
            let mut sum = facts.earlier.clone();
            sum.limits_restored += facts.restored;
            sum
        };
        sum.kernel = SlotCounters::ZERO;
        sum.oom_mismatch = None;
        sum.add(&Counters::new(kernel, stats));
        sum
    }

    /// Counters now and, while there is a cgroup, what else it tells.
    pub(crate) fn read(
        &self,
        kernel: &Kernel,
        hierarchies: &Hierarchies,
    ) -> (Counters, Option<Stats>) {
        loop {
            let ended = self.life().ended;
            if let Some(last) = self.facts().last.clone() {
                return (last, None);
            }
            let slot = self.kernel_counters(kernel);
            let stats = self.stats(hierarchies);
            let recent = stats
                .clone()
                .or_else(|| self.facts().recent.clone())
                .unwrap_or_default();
            let mut sum = self.counters(&slot, &recent);
            // A run that ended meanwhile may be in both parts.
            if self.life().ended == ended {
                sum.oom_mismatch = match stats {
                    Some(_) => self.reconcile(&sum, kernel, hierarchies, false),
                    None => self.facts().oom.mismatch,
                };
                return (sum, stats);
            }
        }
    }

    /// Compares the two halves' counts of OOM kills. They are read one after the other, so what
    /// differs is told when it does for [`IN_FLIGHT`]; at once when `settled`.
    pub(crate) fn reconcile(
        &self,
        sum: &Counters,
        kernel: &Kernel,
        hierarchies: &Hierarchies,
        settled: bool,
    ) -> Option<u64> {
        let leaf = oom::leaf_only(hierarchies);
        let mut facts = self.facts();
        let counted = facts.slot.is_some() && kernel.serves("oom");
        let difference = sum.oom_difference(leaf).filter(|_| counted)?;
        if difference == 0 {
            facts.oom.differs_since = None;
            facts.oom.mismatch = Some(0);
        } else {
            let since = *facts.oom.differs_since.get_or_insert_with(Instant::now);
            if settled || since.elapsed() >= IN_FLIGHT {
                facts.oom.mismatch = Some(difference);
            }
        }
        Some(facts.oom.mismatch.unwrap_or(0))
    }

    /// A next run counts on from the last reading. Without series of its own it is summed already.
    pub(crate) fn unfreeze(&self) {
        let mut facts = self.facts();
        if let Some(last) = facts.last.take() {
            facts.restored = 0;
            facts.earlier = if self.labelled {
                last
            } else {
                Counters::default()
            };
        }
    }

    /// The kernel half told of a kill.
    pub(crate) fn told_oom_kill(
        &self,
        main: bool,
        constraint: &'static str,
        limit_bytes: Option<u64>,
    ) {
        let mut facts = self.facts();
        if main || !facts.oom.main {
            facts.oom.constraint = Some(constraint);
            facts.oom.limit_bytes = limit_bytes;
        }
        facts.oom.main |= main;
        drop(facts);
        self.oom_told.notify_waiters();
    }

    /// What the OOM killer did in this run, as far as it is known; `kernel` is of all runs.
    pub(crate) fn oom(&self, kernel: &SlotCounters, stats: Option<&Stats>) -> Option<OomReport> {
        let facts = self.facts();
        let of_cgroup = stats
            .and_then(|stats| stats.totals.memory_oom_kills)
            .unwrap_or(0);
        let kills = counters::oom_kills(kernel).saturating_sub(facts.oom.before);
        let kills = if facts.slot.is_some() {
            kills
        } else {
            of_cgroup
        };
        if kills == 0 && !facts.oom.main {
            return None;
        }
        let groups = stats.and_then(|stats| stats.totals.memory_oom_group_kills);
        let victim = if groups.unwrap_or(0) > 0 {
            OomVictim::Group
        } else if facts.oom.main {
            OomVictim::MainProcess
        } else {
            OomVictim::Child
        };
        Some(OomReport {
            victim,
            constraint: facts.oom.constraint.map(str::to_owned),
            limit_bytes: facts.oom.limit_bytes,
            kills,
        })
    }

    /// Reads its cgroup's freezer.
    pub(crate) fn summary(&self, kernel: &Kernel, hierarchies: &Hierarchies) -> ContainerSummary {
        let paused = self.is_paused(hierarchies);
        let (image, pod) = (self.image(), self.pod());
        let life = self.life();
        let counters = self.kernel_counters(kernel);
        let recent = self.facts().recent.clone();
        let end = life.end.as_ref();
        let oom = match life.state {
            State::Exited | State::Restarting => end.and_then(|end| end.oom.clone()),
            _ => self.oom(&counters, recent.as_ref()),
        };
        let facts = self.facts();
        let oom_kills = if facts.slot.is_some() || kernel.unavailable().is_none() {
            counters::oom_kills(&counters)
        } else {
            facts
                .last
                .as_ref()
                .and_then(|last| last.cgroup.memory_oom_kills)
                .unwrap_or(0)
        };
        ContainerSummary {
            id: self.id.clone(),
            name: self.name.clone(),
            image,
            parent: self.parent.clone(),
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
            oom_killed: facts.oom.main || end.is_some_and(|end| end.oom_killed),
            oom,
            oom_kills,
            restart_count: facts.backoff.restarts,
            escapes: counters::escapes(&counters),
            ports: self
                .request
                .as_ref()
                .map(|request| request.ports.clone())
                .unwrap_or_default(),
            labels: self
                .request
                .as_ref()
                .map_or_else(|| pod.labels(), |request| request.labels.clone()),
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
            networks: Vec::new(),
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
            parent: None,
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
