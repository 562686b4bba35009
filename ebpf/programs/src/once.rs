//! One event, one program: while a new generation of programs replaces the old one, both hang
//! on the same hooks, one runs right after the other, and one of them has the event
//! (docs/adr/0016).
//!
//! setns and unshare need none of it: the exit takes what the entry left in `IN_FLIGHT`, and who
//! comes later finds nothing. Nor does what is only written down, the same by both.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_boot_ns};
use paddock_abi::admission::{Claim, Done, FRESH_NS};

use crate::{
    maps::{CLAIMS, CONTROL, DONE},
    offsets::*,
    read::field,
    selftest,
};

/// In which order the kernel runs two programs on one hook.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// On functions.
    NewestFirst = 0,
    /// On tracepoints of both kinds.
    NewestLast = 1,
}

/// Whether this event of a process is told by nobody yet: by no program of this hook, nor by
/// one of another that sees it, too.
#[inline(always)]
pub(crate) fn first(what: u32, tgid: u32, task: u64, nth: u64) -> bool {
    /// `BPF_NOEXIST`, and what it says.
    const NEW: u64 = 1;
    const THERE: i32 = -17;
    let event = Done {
        tgid,
        what,
        born: field(task, &OFF_TASK_START),
        nth,
    };
    // Full: LRU makes room.
    DONE.insert(event, 0, NEW) != Err(THERE)
}

/// Whether the event is this program's. Once a run, before anything is counted or told, and
/// before anything is changed that the other's run would see.
#[inline(always)]
pub(crate) fn once(runs: Runs) -> bool {
    once_of(runs, bpf_get_current_pid_tgid)
}

/// The same for programs that may not ask for the current thread, which it is; it is seldom wanted.
#[inline(always)]
pub(crate) fn once_of(runs: Runs, thread: impl FnOnce() -> u64) -> bool {
    let Some(control) = CONTROL.get(0) else {
        return true;
    };
    if control.swapping == 0 {
        return true;
    }
    let thread = thread();
    if selftest::on_for(thread as u32) {
        return true;
    }
    let newest = control.swapping == u64::from(GENERATION.load());
    let claim = Claim {
        thread,
        order: runs as u64,
    };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if newest == (runs == Runs::NewestFirst) {
        // The first has it, and says so. Full: LRU makes room.
        let _ = CLAIMS.insert(claim, now, 0);
        return true;
    }
    let Some(at) = CLAIMS.get_ptr_mut(claim) else {
        return true;
    };
    // SAFETY: a live element that only this thread's programs write, one after the other.
    let fresh = now.saturating_sub(unsafe { at.read_volatile() }) < FRESH_NS;
    let _ = CLAIMS.remove(claim);
    !fresh
}
