//! The kernel half as the rest of the agent sees it: there, or not there for a reason.
//!
//! Without one (no BTF, not permitted) containers are still launched, limited and supervised;
//! what only the kernel half knows is absent, and the reason is told wherever people look.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use paddock_cgroups::CgroupIds;
use paddock_probe::{
    Answers, CapabilityStatus, CgroupKey, Changed, Error, EventReader, FileId, Fill, GuardMode,
    HitKey, MapMemory, NsInums, PathName, Peers, Probe, ProgramStats, RecordRate, Ring,
    RingCounters, RuntimeFile, Shares, Slot, SlotCounters, Tampered, Touched, preempts,
};
use paddock_runtime::uninterrupted::Uninterrupted;

/// What a probe's `capabilities` can name, for saying that none is served.
const CAPABILITIES: [&str; 22] = [
    "setns",
    "unshare",
    "clone",
    "oom",
    "cgroup",
    "exec",
    "exit",
    "mount",
    "process",
    "signal",
    "privilege",
    "kernel",
    "open",
    "connect",
    "enforce",
    "paths",
    "question",
    "network",
    "device",
    "sysctl",
    "traffic",
    "guard",
];

#[derive(Debug)]
pub(crate) struct Kernel {
    probe: Mutex<Option<Probe>>,
    /// Whether the kernel takes the processor from a thread inside a system call.
    preempts: bool,
    /// Why there is none.
    unavailable: Option<String>,
    capabilities: Vec<CapabilityStatus>,
    adopted: bool,
    host: NsInums,
    /// Records handed over, `[CRITICAL, EVENTS]`, predecessors' included.
    delivered: [AtomicU64; 2],
    lost: AtomicU64,
    /// What looking has shown, by `Tampered`; this agent's.
    changed: [AtomicU64; Tampered::ALL.len()],
}

impl Kernel {
    pub(crate) fn loaded(probe: Probe) -> Self {
        Self {
            capabilities: probe.capabilities(),
            adopted: probe.adopted(),
            host: probe.host_namespaces(),
            probe: Mutex::new(Some(probe)),
            preempts: preempts(),
            unavailable: None,
            delivered: Default::default(),
            lost: AtomicU64::new(0),
            changed: Default::default(),
        }
    }

    /// `host` from /proc/1/ns, since nobody better can say.
    pub(crate) fn absent(reason: String, host: NsInums) -> Self {
        let off = |capability: &str| CapabilityStatus {
            capability: capability.to_owned(),
            rung: None,
            refused: Vec::new(),
            caveat: None,
        };
        Self {
            probe: Mutex::new(None),
            preempts: false,
            unavailable: Some(reason),
            capabilities: CAPABILITIES.map(off).into(),
            adopted: false,
            host,
            delivered: Default::default(),
            lost: AtomicU64::new(0),
            changed: Default::default(),
        }
    }

    /// What each container may tell from now on.
    pub(crate) fn limit_records(&self, rate: Option<RecordRate>) -> Result<(), Error> {
        self.with((), |probe| probe.limit_records(rate))
    }

    /// Returns when nobody has it: at once, unless somebody waits for ever.
    pub(crate) fn unharmed(&self) {
        drop(self.lock());
    }

    /// Why there is no kernel half.
    pub(crate) fn unavailable(&self) -> Option<&str> {
        self.unavailable.as_deref()
    }

    pub(crate) fn capabilities(&self) -> &[CapabilityStatus] {
        &self.capabilities
    }

    pub(crate) fn serves(&self, capability: &str) -> bool {
        let mut all = self.capabilities.iter();
        all.any(|status| status.capability == capability && status.rung.is_some())
    }

    /// Why nothing serves a capability.
    pub(crate) fn why_not(&self, capability: &str) -> Option<String> {
        let mut all = self.capabilities.iter();
        let status = all.find(|status| status.capability == capability);
        let refused = status.and_then(|status| status.refused.first());
        let reason = refused.map(|refusal| format!("{}: {}", refusal.rung, refusal.reason));
        reason.or_else(|| self.unavailable.clone())
    }

    pub(crate) fn adopted(&self) -> bool {
        self.adopted
    }

    pub(crate) fn host(&self) -> &NsInums {
        &self.host
    }

    /// A slot for these cgroups, which have counted so many OOM kills. `Ok(None)` without a kernel half.
    pub(crate) fn enrol(
        &self,
        ids: &CgroupIds,
        shares: &Shares,
        oom_kills: u64,
    ) -> Result<Option<Slot>, EnrolError> {
        self.enrol_within(ids, shares, Slot(0), oom_kills)
    }

    /// The same, within the container of slot `around` (0: none).
    pub(crate) fn enrol_within(
        &self,
        ids: &CgroupIds,
        shares: &Shares,
        around: Slot,
        oom_kills: u64,
    ) -> Result<Option<Slot>, EnrolError> {
        let mut guard = self.lock();
        let Some(probe) = guard.as_mut() else {
            return Ok(None);
        };
        let slot = probe.allocate_slot().or_else(|| probe.take_laid_out());
        let slot = slot.ok_or(EnrolError::Full)?;
        let entered = probe
            .configure_slot(slot, shares)
            .and_then(|()| probe.confirm(slot, around))
            .and_then(|()| probe.begin_oom_count(slot, oom_kills))
            .and_then(|()| keys(ids).try_for_each(|key| probe.track(key, slot)));
        if let Err(source) = entered {
            // The first error is the one to tell.
            let _ = probe.release_slots(&[slot]);
            return Err(EnrolError::Map { source });
        }
        Ok(Some(slot))
    }

    /// Processes that were in a found container's cgroups before they were tracked.
    pub(crate) fn remember(&self, pids: &[i32], ids: &CgroupIds) -> Result<(), Error> {
        let Some(key) = keys(ids).next() else {
            return Ok(());
        };
        self.with((), |probe| {
            let mut pids = pids.iter();
            pids.try_for_each(|pid| probe.remember(pid.cast_unsigned(), key))
        })
    }

    /// More cgroups of a slot: a found container's, as its runtime makes them.
    pub(crate) fn track(&self, ids: &CgroupIds, slot: Slot) -> Result<(), Error> {
        self.with((), |probe| {
            keys(ids).try_for_each(|key| probe.track(key, slot))
        })
    }

    /// A next run of the slot's container: its new cgroups are tracked, its last namespaces are
    /// nobody's.
    pub(crate) fn renew(
        &self,
        ids: &CgroupIds,
        slot: Slot,
        shares: &Shares,
    ) -> Result<(), EnrolError> {
        self.with((), |probe| {
            probe.disown_namespaces(&[slot])?;
            probe.configure_slot(slot, shares)?;
            keys(ids).try_for_each(|key| probe.track(key, slot))
        })
        .map_err(|source| EnrolError::Map { source })
    }

    /// The slot that one of these cgroups was born with, if that is not decided yet.
    pub(crate) fn provisional(&self, ids: &CgroupIds) -> Option<Slot> {
        let guard = self.lock();
        let probe = guard.as_ref()?;
        keys(ids)
            .filter_map(|key| probe.slot_of(key))
            .find(|slot| probe.is_provisional(*slot))
    }

    pub(crate) fn is_provisional(&self, slot: Slot) -> bool {
        let guard = self.lock();
        guard
            .as_ref()
            .is_some_and(|probe| probe.is_provisional(slot))
    }

    pub(crate) fn provisional_slots(&self) -> Vec<Slot> {
        let guard = self.lock();
        guard
            .as_ref()
            .map_or_else(Vec::new, Probe::provisional_slots)
    }

    /// Slots of containers, a predecessor's included.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        self.lock().as_ref().map_or_else(Vec::new, Probe::slots)
    }

    pub(crate) fn confirm(&self, slot: Slot, around: Slot) -> Result<(), Error> {
        self.with((), |probe| probe.confirm(slot, around))
    }

    pub(crate) fn join(&self, cgroup: CgroupKey, path: &str, whole: Slot) -> Result<(), Error> {
        self.with((), |probe| probe.join(cgroup, path, whole))
    }

    pub(crate) fn give_back(&self, cgroup: CgroupKey, path: &str) -> Result<(), Error> {
        self.with((), |probe| probe.give_back(cgroup, path))
    }

    pub(crate) fn birth_paths(&self, slots: &[Slot]) -> Result<Vec<(String, Slot)>, Error> {
        self.with(Vec::new(), |probe| probe.birth_paths(slots))
    }

    pub(crate) fn lay_out_slots(&self) -> Result<(), Error> {
        self.with((), Probe::lay_out_slots)
    }

    /// Births that found no slot laid out: outside of all containers, and within one.
    pub(crate) fn missed_births(&self) -> Option<[u64; 2]> {
        let guard = self.lock();
        guard.as_ref()?.missed_births().ok()
    }

    pub(crate) fn share_with_host(
        &self,
        slot: Slot,
        types: u32,
        started_at_ns: u64,
    ) -> Result<(), Error> {
        self.with((), |probe| {
            probe.share_with_host(slot, types, started_at_ns)
        })
    }

    pub(crate) fn own_namespaces(&self, slot: Slot, inums: &NsInums) -> Result<(), Error> {
        self.with((), |probe| probe.own_namespaces(slot, inums))
    }

    /// See `paddock_probe::RuntimeFile`.
    pub(crate) fn set_runtime_files(&self, files: &[(FileId, RuntimeFile)]) -> Result<(), Error> {
        self.with((), |probe| probe.set_runtime_files(files))
    }

    /// Block devices that the container was given.
    pub(crate) fn give_devices(&self, slot: Slot, devices: &[(u32, u32)]) -> Result<(), Error> {
        self.with((), |probe| {
            devices
                .iter()
                .try_for_each(|(major, minor)| probe.give_device(slot, *major, *minor))
        })
    }

    pub(crate) fn release(&self, slot: Slot) -> Result<(), Error> {
        self.release_all(&[slot])
    }

    pub(crate) fn release_all(&self, slots: &[Slot]) -> Result<(), Error> {
        self.with((), |probe| probe.release_slots(slots))
    }

    pub(crate) fn tracked(&self) -> Result<Vec<(CgroupKey, Slot)>, Error> {
        self.with(Vec::new(), |probe| probe.tracked())
    }

    pub(crate) fn exempt(&self, pid: u32) -> Result<(), Error> {
        self.with((), |probe| probe.exempt(pid))
    }

    pub(crate) fn unexempt(&self, pid: u32) -> Result<(), Error> {
        self.with((), |probe| probe.unexempt(pid))
    }

    /// Zeros without a kernel half.
    pub(crate) fn counters(&self, slot: Slot) -> Result<SlotCounters, Error> {
        self.with(SlotCounters::ZERO, |probe| probe.slot_counters(slot))
    }

    pub(crate) fn rings(&self) -> Option<[(Ring, RingCounters); 2]> {
        self.lock()
            .as_ref()
            .and_then(|probe| probe.ring_counters().ok())
    }

    pub(crate) fn programs(&self) -> Vec<ProgramStats> {
        self.lock()
            .as_ref()
            .map(Probe::program_stats)
            .unwrap_or_default()
    }

    /// Of one of `paddock_probe::FILLED`.
    pub(crate) fn fill(&self, map: &'static str) -> Option<Fill> {
        self.lock().as_ref()?.fill(map)
    }

    /// Of maps and rings; empty without a kernel half.
    pub(crate) fn memory(&self) -> Vec<MapMemory> {
        self.lock().as_ref().map(Probe::memory).unwrap_or_default()
    }

    /// The rings' reader, once; `None` without a kernel half.
    pub(crate) fn take_events(&self) -> Result<Option<EventReader>, Error> {
        self.lock().as_mut().map(Probe::take_events).transpose()
    }

    pub(crate) fn set_delivered(&self, counts: [u64; 2]) {
        for (cell, count) in self.delivered.iter().zip(counts) {
            cell.store(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn delivered(&self, ring: Ring) -> u64 {
        let [critical, events] = &self.delivered;
        match ring {
            Ring::Critical => critical.load(Ordering::Relaxed),
            Ring::Events => events.load(Ordering::Relaxed),
        }
    }

    /// Records that were delivered and could not be understood.
    pub(crate) fn add_undecodable(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn undecodable(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Gives the probe back, for its end.
    pub(crate) fn take(&self) -> Option<Probe> {
        self.lock().take()
    }

    /// What a ruleset says, before anybody is bound to it.
    pub(crate) fn set_answers(&self, ruleset: u32, answers: &Answers) -> Result<(), Error> {
        self.with((), |probe| probe.set_answers(ruleset, answers))
    }

    /// What a ruleset says of peers, likewise; whether what the `idle` ones say is forgotten.
    pub(crate) fn set_peers(
        &self,
        ruleset: u32,
        peers: &Peers,
        idle: &[u32],
    ) -> Result<bool, Error> {
        self.with(false, |probe| probe.set_peers(ruleset, peers, idle))
    }

    /// What a ruleset says of paths, likewise.
    pub(crate) fn set_paths(
        &self,
        ruleset: u32,
        paths: &[PathName],
        idle: &[u32],
    ) -> Result<bool, Error> {
        self.with(false, |probe| probe.set_paths(ruleset, paths, idle))
    }

    /// The ruleset that holds for a slot from its next act on.
    pub(crate) fn bind_ruleset(&self, slot: Slot, ruleset: u32) -> Result<(), Error> {
        self.with((), |probe| probe.bind(slot, ruleset))
    }

    /// Whether any ruleset holds for anybody.
    pub(crate) fn any_bound(&self, any: bool) -> Result<(), Error> {
        self.with((), |probe| probe.any_bound(any))
    }

    /// Whether any ruleset says something of paths.
    pub(crate) fn any_paths(&self, any: bool) -> Result<(), Error> {
        let late = if any {
            self.with(None, |probe| Ok(probe.late()))?
        } else {
            None
        };
        if let Some(late) = late {
            // Others go on with the probe meanwhile.
            let arrived = late.load()?;
            self.with((), |probe| probe.arrived(arrived))?;
        }
        self.with((), |probe| probe.any_paths(any))
    }

    /// The ruleset that holds for a slot; 0 is none.
    pub(crate) fn ruleset_of(&self, slot: Slot) -> u32 {
        self.lock().as_ref().map_or(0, |probe| probe.bound(slot))
    }

    pub(crate) fn hits(&self) -> Vec<(HitKey, u64)> {
        self.lock().as_ref().map(Probe::hits).unwrap_or_default()
    }

    pub(crate) fn hits_lost(&self) -> u64 {
        self.lock().as_ref().map_or(0, Probe::hits_lost)
    }

    pub(crate) fn forget_hits(&self, which: impl Fn(&HitKey) -> bool) -> Result<(), Error> {
        self.with((), |probe| probe.forget_hits(which))
    }

    pub(crate) fn guard(&self, mode: GuardMode) -> Result<(), Error> {
        self.with((), |probe| probe.guard(mode))
    }

    /// Looks whether all is as it was left, and counts what is not.
    pub(crate) fn changed(&self) -> Vec<Changed> {
        let found = self.lock().as_mut().map(Probe::changed).unwrap_or_default();
        for one in &found {
            if let Some(cell) = self.changed.get(one.kind as usize) {
                cell.fetch_add(1, Ordering::Relaxed);
            }
        }
        found
    }

    /// What others did to what is paddock's, by kind: seen by the kernel or by looking, and
    /// refused.
    pub(crate) fn touched(&self) -> Vec<Touched> {
        let none = |kind| Touched {
            kind,
            seen: 0,
            denied: 0,
        };
        let mut all = self
            .lock()
            .as_ref()
            .map_or_else(|| Tampered::ALL.map(none), Probe::touched);
        for (one, cell) in all.iter_mut().zip(&self.changed) {
            one.seen += cell.load(Ordering::Relaxed);
        }
        all.into()
    }

    fn with<T>(
        &self,
        absent: T,
        action: impl FnOnce(&mut Probe) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.lock().as_mut().map_or(Ok(absent), action)
    }

    fn lock(&self) -> Held<'_> {
        // A panic elsewhere leaves the probe as usable as it was.
        let probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        Held {
            probe,
            _stretch: self.preempts.then(Uninterrupted::begin),
        }
    }
}

/// The probe, while it is this thread's. The kernel passes over its probes on a processor on
/// which a thread is inside bpf(2) with a map: one that lost its processor there would keep them
/// off until it goes on, so it does not lose it.
struct Held<'a> {
    probe: MutexGuard<'a, Option<Probe>>,
    _stretch: Option<Uninterrupted>,
}

impl Deref for Held<'_> {
    type Target = Option<Probe>;

    fn deref(&self) -> &Self::Target {
        &self.probe
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.probe
    }
}

/// The keys of a cgroup in the kernel half's maps.
pub(crate) fn keys(ids: &CgroupIds) -> impl Iterator<Item = CgroupKey> + use<> {
    [
        ids.unified.map(CgroupKey::Unified),
        ids.memory_v1.map(CgroupKey::MemoryV1),
        ids.pids_v1.map(CgroupKey::PidsV1),
    ]
    .into_iter()
    .flatten()
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    #[error("the kernel half watches as many containers as it can: remove one first")]
    Full,
    #[error("cannot enter the container in the kernel half")]
    Map {
        #[source]
        source: Error,
    },
}
