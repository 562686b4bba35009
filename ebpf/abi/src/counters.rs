//! What the kernel counts per slot and per ring.
//!
//! A slot's counters are one array of plain `u64` cells that hooks add to atomically; the
//! functions here give the cell of a fact. Slot 0 is everything that no container owns.

use crate::{
    activity::{ACTIVITIES, Activity, VERDICTS, Verdict},
    namespace::{NS_TYPES, NsType},
};

/// Slots in the kernel maps, slot 0 (nobody) included, and those that wait for cgroups that are
/// born: a thousand containers and more.
pub const MAX_SLOTS: u32 = 2048;

/// Which syscall touched namespaces.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NsSyscall {
    Setns = 0,
    Unshare = 1,
    /// clone and clone3 alike; only success is visible.
    Clone = 2,
}

/// How a call ended.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allowed = 0,
    Failed = 1,
    Denied = 2,
    Killed = 3,
}

/// Whose limit an OOM kill served.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// A memory cgroup's limit.
    Memcg = 0,
    /// The machine's memory.
    Host = 1,
    /// The memory nodes that a cpuset or a memory policy allows.
    Cpuset = 2,
}

/// Where the memory cgroup whose limit was hit stands, seen from the victim's container.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The container's own.
    Own = 0,
    /// Made inside of the container, below its own.
    Nested = 1,
    /// Above the container.
    Ancestor = 2,
    /// No cgroup's: the machine, or a part of it.
    Host = 3,
}

/// What an escape reached for.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapeKind {
    HostNamespace = 0,
    PeerNamespace = 1,
    /// Another's process: its memory, descriptors, life.
    Process = 2,
    Filesystem = 3,
    Cgroup = 4,
    /// The kernel itself.
    Kernel = 5,
    /// The container's runtime.
    Runtime = 6,
}

impl EscapeKind {
    pub const ALL: [Self; ESCAPE_KINDS] = [
        Self::HostNamespace,
        Self::PeerNamespace,
        Self::Process,
        Self::Filesystem,
        Self::Cgroup,
        Self::Kernel,
        Self::Runtime,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostNamespace => "host_namespace",
            Self::PeerNamespace => "peer_namespace",
            Self::Process => "process",
            Self::Filesystem => "filesystem",
            Self::Cgroup => "cgroup",
            Self::Kernel => "kernel",
            Self::Runtime => "runtime",
        }
    }
}

/// Which way a packet went, seen from the container.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Received = 0,
    Sent = 1,
}

/// The two rings.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Escapes, their attempts, OOM kills.
    Critical = 0,
    Events = 1,
}

pub const SYSCALLS: usize = 3;
pub const OUTCOMES: usize = 4;
/// A level each of memory cgroups, the machine, its nodes.
pub const OOM_CELLS: usize = 5;
pub const ESCAPE_KINDS: usize = 7;
pub const WAYS: usize = 2;
pub const RINGS: usize = 2;

const CALLS: usize = 0;
const NS_CALLS: usize = CALLS + SYSCALLS * OUTCOMES;
const OOM_KILLS: usize = NS_CALLS + SYSCALLS * NS_TYPES * OUTCOMES;
const OOM_BEFORE: usize = OOM_KILLS + OOM_CELLS;
const OOM_NESTED: usize = OOM_BEFORE + 1;
const OOM_OUTSIDE: usize = OOM_NESTED + 1;
const ESCAPES: usize = OOM_OUTSIDE + 1;
const ACTS: usize = ESCAPES + ESCAPE_KINDS * OUTCOMES;
const TRAFFIC: usize = ACTS + ACTIVITIES * VERDICTS;
const RING: usize = TRAFFIC + WAYS * 2;
/// Cells of a slot.
pub const CELLS: usize = RING + RINGS * RingCounters::CELLS;

/// Everything counted for one slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotCounters {
    pub cells: [u64; CELLS],
}

/// `seen = submitted` and the three reasons together, whenever no hook is in flight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    pub seen: u64,
    pub submitted: u64,
    pub lost_ring_full: u64,
    /// Withheld, so that the ring does not fill.
    pub lost_pressure: u64,
    /// Withheld, since the container made more than its share.
    pub lost_rate_limited: u64,
}

impl RingCounters {
    pub const CELLS: usize = 5;
    pub const SEEN: usize = 0;
    pub const SUBMITTED: usize = 1;
    pub const LOST_RING_FULL: usize = 2;
    pub const LOST_PRESSURE: usize = 3;
    pub const LOST_RATE_LIMITED: usize = 4;

    /// Every stage but `seen`, by its name in metrics; their sum is `seen`.
    #[must_use]
    pub const fn parts(&self) -> [(&'static str, u64); 4] {
        [
            ("submitted", self.submitted),
            ("lost_ring_full", self.lost_ring_full),
            ("lost_pressure", self.lost_pressure),
            ("lost_rate_limited", self.lost_rate_limited),
        ]
    }
}

/// Cell of: calls of a syscall, whatever number of namespace types each touched.
#[must_use]
#[inline]
pub const fn call_cell(syscall: NsSyscall, outcome: Outcome) -> usize {
    CALLS + syscall as usize * OUTCOMES + outcome as usize
}

/// Cell of: a namespace type touched by a call. `ns` is below `NS_TYPES`.
#[must_use]
#[inline]
pub const fn ns_call_cell(syscall: NsSyscall, ns: usize, outcome: Outcome) -> usize {
    NS_CALLS + (syscall as usize * NS_TYPES + ns) * OUTCOMES + outcome as usize
}

#[must_use]
#[inline]
pub const fn oom_cell(constraint: Constraint, level: Level) -> usize {
    OOM_KILLS
        + match constraint {
            Constraint::Memcg => level as usize % 3,
            Constraint::Host => 3,
            Constraint::Cpuset => 4,
        }
}

/// Cell of: kills that the cgroup itself had counted before it had the slot. User space writes it.
#[must_use]
#[inline]
pub const fn oom_before_cell() -> usize {
    OOM_BEFORE
}

/// Cell of: kills of processes in cgroups below the container's own, which v1 counts there alone.
#[must_use]
#[inline]
pub const fn oom_nested_cell() -> usize {
    OOM_NESTED
}

/// Cell of: kills of processes that left the container's cgroups, which count them no more.
#[must_use]
#[inline]
pub const fn oom_outside_cell() -> usize {
    OOM_OUTSIDE
}

/// Cell of: namespaces of others obtained (`Allowed`) or reached for in vain (`Failed`).
#[must_use]
#[inline]
pub const fn escape_cell(kind: EscapeKind, outcome: Outcome) -> usize {
    ESCAPES + kind as usize * OUTCOMES + outcome as usize
}

/// Cell of: an activity that was judged so.
#[must_use]
#[inline]
pub const fn activity_cell(activity: Activity, verdict: Verdict) -> usize {
    ACTS + activity as usize * VERDICTS + verdict as usize
}

/// Cell of: packets of IP that went this way; the next one is of their bytes.
#[must_use]
#[inline]
pub const fn traffic_cell(way: Way) -> usize {
    TRAFFIC + way as usize * 2
}

/// Cell of a ring's account; `field` is one of [`RingCounters`]' constants.
#[must_use]
#[inline]
pub const fn ring_cell(ring: Ring, field: usize) -> usize {
    RING + ring as usize * RingCounters::CELLS + field
}

impl SlotCounters {
    pub const ZERO: Self = Self { cells: [0; CELLS] };

    /// Calls of a syscall; each counts once.
    #[must_use]
    pub const fn calls(&self, syscall: NsSyscall, outcome: Outcome) -> u64 {
        self.cells[call_cell(syscall, outcome)]
    }

    /// Calls of a syscall that touched this namespace type.
    #[must_use]
    pub const fn ns_calls(&self, syscall: NsSyscall, ns: NsType, outcome: Outcome) -> u64 {
        self.cells[ns_call_cell(syscall, ns.index(), outcome)]
    }

    #[must_use]
    pub const fn oom_kills(&self, constraint: Constraint, level: Level) -> u64 {
        self.cells[oom_cell(constraint, level)]
    }

    /// Packets of IP that went this way, and their bytes with IP's headers.
    #[must_use]
    pub const fn traffic(&self, way: Way) -> [u64; 2] {
        let cell = traffic_cell(way);
        [self.cells[cell], self.cells[cell + 1]]
    }

    #[must_use]
    pub const fn oom_before(&self) -> u64 {
        self.cells[oom_before_cell()]
    }

    #[must_use]
    pub const fn oom_nested(&self) -> u64 {
        self.cells[oom_nested_cell()]
    }

    #[must_use]
    pub const fn oom_outside(&self) -> u64 {
        self.cells[oom_outside_cell()]
    }

    #[must_use]
    pub const fn escapes(&self, kind: EscapeKind, outcome: Outcome) -> u64 {
        self.cells[escape_cell(kind, outcome)]
    }

    #[must_use]
    pub const fn activities(&self, activity: Activity, verdict: Verdict) -> u64 {
        self.cells[activity_cell(activity, verdict)]
    }

    #[must_use]
    pub const fn ring(&self, ring: Ring) -> RingCounters {
        RingCounters {
            seen: self.cells[ring_cell(ring, RingCounters::SEEN)],
            submitted: self.cells[ring_cell(ring, RingCounters::SUBMITTED)],
            lost_ring_full: self.cells[ring_cell(ring, RingCounters::LOST_RING_FULL)],
            lost_pressure: self.cells[ring_cell(ring, RingCounters::LOST_PRESSURE)],
            lost_rate_limited: self.cells[ring_cell(ring, RingCounters::LOST_RATE_LIMITED)],
        }
    }

    /// Of both rings.
    #[must_use]
    pub const fn records(&self) -> RingCounters {
        let (one, other) = (self.ring(Ring::Critical), self.ring(Ring::Events));
        RingCounters {
            seen: one.seen + other.seen,
            submitted: one.submitted + other.submitted,
            lost_ring_full: one.lost_ring_full + other.lost_ring_full,
            lost_pressure: one.lost_pressure + other.lost_pressure,
            lost_rate_limited: one.lost_rate_limited + other.lost_rate_limited,
        }
    }
}

const _: () = assert!(size_of::<SlotCounters>() == 8 * CELLS);
const _: () = assert!(size_of::<RingCounters>() == 8 * RingCounters::CELLS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_has_a_cell_of_its_own() {
        let outcomes = [
            Outcome::Allowed,
            Outcome::Failed,
            Outcome::Denied,
            Outcome::Killed,
        ];
        let mut used = [false; CELLS];
        let mut take = |cell: usize| {
            assert!(!used[cell], "cell {cell} is used twice");
            used[cell] = true;
        };
        for outcome in outcomes {
            for syscall in [NsSyscall::Setns, NsSyscall::Unshare, NsSyscall::Clone] {
                take(call_cell(syscall, outcome));
                (0..NS_TYPES).for_each(|ns| take(ns_call_cell(syscall, ns, outcome)));
            }
            for kind in EscapeKind::ALL {
                take(escape_cell(kind, outcome));
            }
        }
        for activity in Activity::ALL {
            for verdict in Verdict::ALL {
                take(activity_cell(*activity, verdict));
            }
        }
        for level in [Level::Own, Level::Nested, Level::Ancestor] {
            take(oom_cell(Constraint::Memcg, level));
        }
        take(oom_cell(Constraint::Host, Level::Host));
        take(oom_cell(Constraint::Cpuset, Level::Host));
        take(oom_before_cell());
        take(oom_nested_cell());
        take(oom_outside_cell());
        for way in [Way::Received, Way::Sent] {
            take(traffic_cell(way));
            take(traffic_cell(way) + 1);
        }
        for ring in [Ring::Critical, Ring::Events] {
            (0..RingCounters::CELLS).for_each(|field| take(ring_cell(ring, field)));
        }
        assert!(used.iter().all(|cell| *cell));
    }
}
