//! Load the kernel half, choose each capability's hook by what the kernel offers, decode records.
//!
//! Knows nothing of containers: it deals in cgroup ids, slots and namespace inode numbers.
//! Kernels: 5.10 and later with BTF. Without root or BTF, [`Probe::load`] fails with one line;
//! a kernel that refuses a hook costs the capability a rung, never the whole probe.
#![forbid(unsafe_code)]

mod attachment;
mod births;
mod capability;
mod cgroup_links;
mod config;
mod decode;
mod enforcement;
mod error;
mod events;
mod files;
mod fill;
mod guard;
mod hierarchies;
mod hook;
mod identity;
mod kept_link;
mod kernel_types;
mod ladder;
mod late;
mod load;
mod maps;
mod memory;
mod memory_lock;
mod offsets;
mod on_demand;
mod paths;
mod peers;
mod pins;
mod preemption;
mod private_mount;
mod probe;
mod procfs;
mod program_log;
mod record;
mod selftest;
mod slots;
mod swap;
mod tables;
mod tracefs;
mod verify;

pub use capability::{CapabilityStatus, Refusal};
pub use config::Config;
pub use error::Error;
pub use events::{BATCH, Batch, EventReader};
pub use files::{FileId, RuntimeFile};
pub use fill::{FILLED, Fill};
pub use guard::{Changed, GuardMode, Touched};
pub use identity::{CgroupKey, NsInums, Slot};
pub use late::{Arrived, Late};
pub use memory::MapMemory;
pub use paddock_abi::{
    activity::{Activity, Pair, TABLE as VERDICTS, Verdict},
    counters::{
        Constraint, EscapeKind, Level, NsSyscall, Outcome, Ring, RingCounters, SlotCounters, Way,
    },
    guard::Tampered,
    namespace::{NS_TYPES, NsType, Target},
    network::{self, PeerKey, Ports},
    path,
    policy::{
        self, Answers, CAPABILITY_CELLS, DEVICES, DeviceAnswer, HitKey, POLICY_CELLS, RULESETS,
    },
};
pub use paths::PathName;
pub use peers::Peers;
pub use pins::question_pin;
pub use preemption::preempts;
pub use probe::{Probe, ProgramStats, RecordRate};
pub use program_log::ProgramLog;
pub use record::{
    Actor, Body, CapabilityDenial, CgroupOp, Denial, DeviceDenial, Memory, NamespaceTarget,
    PathDenial, PeerDenial, Record, Tampering,
};
pub use slots::Shares;
pub use verify::{Verified, verify_all};
