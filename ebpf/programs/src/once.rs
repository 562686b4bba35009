//! One event, one program: while a new generation of programs replaces the old one, both hang
//! on the same hooks, and the first to claim an event has it (docs/adr/0014).
//!
//! Hooks that come in pairs need none of it: the second half takes what the first one left in
//! `IN_FLIGHT`, and who comes later finds nothing.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use paddock_abi::admission::Claim;

use crate::maps::{CLAIMS, CONTROL};

/// `BPF_NOEXIST`.
const NEW: u64 = 1;
/// An event that can come again in the same words is another one after so long; the two
/// programs run one right after the other.
pub(crate) const MAY_RECUR_NS: u64 = 2_000_000;
/// One whose words are its own for much longer than a swap takes.
pub(crate) const UNIQUE_NS: u64 = 1_000_000_000;

/// Whether the event is this program's. Call it before anything is counted, told or changed,
/// after the self-test has looked.
#[inline(always)]
pub(crate) fn once(hook: u32, a: u64, b: u64, recurs_after_ns: u64) -> bool {
    if CONTROL.get(0).is_none_or(|control| control.swapping == 0) {
        return true;
    }
    let claim = Claim {
        a,
        b,
        hook: u64::from(hook),
    };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if CLAIMS.insert(claim, now, NEW).is_ok() {
        return true;
    }
    // Nothing there: the map had no room to remember it.
    let Some(before) = CLAIMS.get_ptr_mut(claim) else {
        return true;
    };
    // SAFETY: a live element that only this event's programs write, one after the other.
    let claimed = unsafe { before.read_volatile() };
    if now.saturating_sub(claimed) < recurs_after_ns {
        return false;
    }
    // SAFETY: as above.
    unsafe { before.write_volatile(now) };
    true
}
