//! The handle of a loaded kernel half.
#![expect(
    clippy::todo,
    clippy::unused_self,
    unused_variables,
    reason = "not ready"
)]

use std::path::Path;

use crate::{
    CapabilityStatus, CgroupKey, Config, Error, EventReader, NsInums, Ring, RingCounters, Slot,
    SlotCounters,
};

/// A loaded kernel half. Dropping it leaves links and maps pinned and working;
/// [`Probe::unload`] takes everything away. `Send`, no method blocks for long.
#[derive(Debug)]
pub struct Probe {}

/// A program's cost, where `kernel.bpf_stats_enabled` is 1; else both are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Hook's name, such as `fentry_setns`.
    pub program: String,
    pub run_time_ns: u64,
    pub run_count: u64,
}

impl Probe {
    /// Loads, self-tests and pins; or adopts what a dead predecessor with the same object left.
    /// Call before tokio starts or from a blocking thread: it makes threads and a child.
    pub fn load(config: &Config) -> Result<Self, Error> {
        todo!()
    }

    /// Detaches everything, unpins, unmounts the bpffs.
    pub fn unload(self) -> Result<(), Error> {
        todo!()
    }

    /// The same for what a dead agent left in `pin_dir`. Nothing there is no error.
    pub fn unload_pins(pin_dir: &Path) -> Result<(), Error> {
        todo!()
    }

    /// Whether a predecessor's programs and maps were taken over (`tracked` then tells what they track).
    pub fn adopted(&self) -> bool {
        todo!()
    }

    pub fn capabilities(&self) -> Vec<CapabilityStatus> {
        todo!()
    }

    /// The first namespaces, as the kernel's own first task has them.
    pub fn host_namespaces(&self) -> NsInums {
        todo!()
    }

    /// A free slot, 1..=1023, zeroed; the numbers go round, so late records of a slot's former
    /// owner are rare. `None`: all are taken.
    pub fn allocate_slot(&mut self) -> Option<Slot> {
        todo!()
    }

    /// Namespace types (mask of [`crate::NsType::bit`]) that the container shares with the host by its
    /// configuration: joining those is no escape.
    pub fn configure_slot(&mut self, slot: Slot, shared_with_host: u32) -> Result<(), Error> {
        todo!()
    }

    /// Zeroes the counters, drops the slot's cgroups and namespaces, frees it.
    pub fn release_slot(&mut self, slot: Slot) -> Result<(), Error> {
        todo!()
    }

    /// Every process in this cgroup, and in cgroups made below it from now on, is the slot's.
    pub fn track(&mut self, cgroup: CgroupKey, slot: Slot) -> Result<(), Error> {
        todo!()
    }

    /// No error where it was not tracked.
    pub fn untrack(&mut self, cgroup: CgroupKey) -> Result<(), Error> {
        todo!()
    }

    /// What is tracked, nested cgroups that the kernel half added included.
    pub fn tracked(&self) -> Result<Vec<(CgroupKey, Slot)>, Error> {
        todo!()
    }

    /// Says that these namespaces are the slot's own (found containers; zeros and the host's are skipped).
    pub fn own_namespaces(&mut self, slot: Slot, namespaces: &NsInums) -> Result<(), Error> {
        todo!()
    }

    /// Marks a process as set-up: neither it nor what it forks is counted or judged, until exec or exit.
    /// `pid` is a process id of the first pid namespace.
    pub fn exempt(&mut self, pid: u32) -> Result<(), Error> {
        todo!()
    }

    /// No error where it was not exempt.
    pub fn unexempt(&mut self, pid: u32) -> Result<(), Error> {
        todo!()
    }

    /// Slot 0 is everything outside of all containers.
    pub fn slot_counters(&self, slot: Slot) -> Result<SlotCounters, Error> {
        todo!()
    }

    /// Since the programs were loaded (an adopted predecessor's time included).
    pub fn ring_counters(&self) -> Result<[(Ring, RingCounters); 2], Error> {
        todo!()
    }

    pub fn program_stats(&self) -> Vec<ProgramStats> {
        todo!()
    }

    /// The reader of both rings, once; call inside a tokio runtime with IO enabled.
    pub fn take_events(&mut self) -> Result<EventReader, Error> {
        todo!()
    }
}
