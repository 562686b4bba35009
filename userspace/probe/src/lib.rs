//! Load the kernel half, choose each capability's hook by what the kernel offers, decode records.
//!
//! Knows nothing of containers: it deals in cgroup ids, slots and namespace inode numbers.
//! Kernels: 6.1 and later with BTF. Without root or BTF, [`Probe::load`] fails with one line;
//! a kernel that refuses a hook costs the capability a rung, never the whole probe.
#![forbid(unsafe_code)]

mod capability;
mod config;
mod decode;
mod error;
mod events;
mod identity;
mod kernel_types;
mod ladder;
mod load;
mod maps;
mod offsets;
mod pins;
mod probe;
mod procfs;
mod program_log;
mod record;
mod selftest;
mod slots;
mod swap;
mod tracefs;

pub use capability::{CapabilityStatus, Refusal};
pub use config::Config;
pub use error::Error;
pub use events::{Batch, EventReader};
pub use identity::{CgroupKey, NsInums, Slot};
pub use paddock_abi::{
    counters::{Constraint, EscapeKind, NsSyscall, Outcome, Ring, RingCounters, SlotCounters},
    namespace::{NS_TYPES, NsType, Target},
};
pub use probe::{Probe, ProgramStats, RecordRate};
pub use program_log::ProgramLog;
pub use record::{Actor, Body, CgroupOp, NamespaceTarget, Record, Verdict};
pub use slots::Shares;
