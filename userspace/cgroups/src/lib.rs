//! Find and drive cgroups on v1, hybrid and v2 hosts.
//!
//! A host's layout is a map from controller to hierarchy, never one of three modes: each
//! limit is written where its controller lives and read back. Fails with the path and the
//! operation; whatever a failed call had made is removed again.
#![forbid(unsafe_code)]

mod cgroup;
mod change;
mod controllers;
mod create;
mod delegation;
mod discovery;
mod error;
mod file;
#[cfg(test)]
mod fixture;
mod kill;
mod limits;
pub mod parse;
mod path;
mod readable;
mod remove;
mod restore;
mod stats;
mod tree;

pub use cgroup::{Cgroup, CgroupIds};
pub use change::Applied;
pub use controllers::{
    blkio::io_weight,
    cpu::shares_to_weight,
    devices::{DeviceAccess, DeviceKind, DeviceRule, device_program},
};
pub use delegation::{Delegation, LEAF};
pub use discovery::{Hierarchies, Version};
pub use error::Error;
pub use limits::{
    CpuLimits, CpusetLimits, Device, IoLimits, Layout, Limits, MemoryLimits, RdmaLimit,
};
pub use restore::{Repair, Restored};
pub use stats::{HugePages, Stats, Totals};
