//! `process.ioPriority` and `process.scheduler`.

use oci_spec::runtime::{IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process};
use paddock_runtime::direct::Scheduler;

use crate::error::Error;

/// Class in the high bits, as ioprio_set(2) has it.
pub(crate) fn io_priority(words: &Process) -> Result<Option<i32>, Error> {
    const CLASS_SHIFT: i32 = 13;
    let Some(wanted) = words.io_priority() else {
        return Ok(None);
    };
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = i32::try_from(wanted.priority())
        .ok()
        .filter(|level| (0..8).contains(level))
        .ok_or_else(|| Error::config("process.ioPriority: priority must be 0 to 7"))?;
    Ok(Some(class << CLASS_SHIFT | level))
}

/// The numbers of linux/sched.h.
pub(crate) fn scheduler(words: &Process) -> Result<Option<Scheduler>, Error> {
    let Some(wanted) = words.scheduler() else {
        return Ok(None);
    };
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = wanted.flags().iter().flatten().copied().map(flag);
    let priority = u32::try_from(wanted.priority().unwrap_or(0))
        .map_err(|_| Error::config("process.scheduler: priority must not be below 0"))?;
    Ok(Some(Scheduler {
        policy,
        flags: flags.fold(0, |all, one| all | one),
        nice: wanted.nice().unwrap_or(0),
        priority,
        runtime: wanted.runtime().unwrap_or(0),
        deadline: wanted.deadline().unwrap_or(0),
        period: wanted.period().unwrap_or(0),
    }))
}

fn flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}
