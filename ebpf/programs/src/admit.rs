//! Which records ride `EVENTS`: a container's rate first, then the ring's pressure.
//!
//! A bucket is one word, the time at which it is full again (generic cell rate): a record moves
//! it on by a period, and passes unless that is further ahead than the burst. Processors that
//! find a full bucket at once may pass a record each for one token; nothing else is lost, and
//! what is withheld is counted where it is decided.

use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_ringbuf_query};
use paddock_abi::{
    admission::{
        ASKED_BURST_NS, ASKED_PERIOD_NS, PRESSURE_BURST_NS, PRESSURE_HIGH, PRESSURE_LOW,
        PRESSURE_PERIOD_NS,
    },
    counters::RingCounters,
};

use crate::{
    count::add,
    maps::{ASKED, BUCKETS, CONTROL, EVENTS},
};

/// `BPF_RB_AVAIL_DATA`: bytes that wait for the reader.
const WAITING: u64 = 0;
/// Nobody's slot has no rate; its bucket is the ring's.
const NOBODY: u32 = 0;

/// How long a record can be done without.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Told,
    /// The agent finds containers by it: a last tenth of the container's bucket is its own, and
    /// pressure does not withhold it.
    Agent,
}

/// `SUBMITTED` when it may pass, else the reason as a cell of [`RingCounters`].
#[inline(always)]
pub(crate) fn admitted(slot: u32, need: Need) -> usize {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if slot != NOBODY && !within_rate(slot, need, now) {
        return RingCounters::LOST_RATE_LIMITED;
    }
    if need == Need::Told && !withstands(now) {
        return RingCounters::LOST_PRESSURE;
    }
    RingCounters::SUBMITTED
}

#[inline(always)]
fn within_rate(slot: u32, need: Need, now: u64) -> bool {
    let Some(control) = CONTROL.get(0) else {
        return true;
    };
    let period = control.rate_period_ns;
    if period == 0 {
        return true;
    }
    let burst = match need {
        Need::Told => control.rate_burst_ns / 10 * 9,
        Need::Agent => control.rate_burst_ns,
    };
    take(slot, now, period, burst)
}

#[inline(always)]
fn withstands(now: u64) -> bool {
    let ring = (&raw const EVENTS).cast_mut();
    // SAFETY: the loader puts the map in the place of its definition's address; the helper reads.
    let waiting = unsafe { bpf_ringbuf_query(ring.cast(), WAITING) };
    if waiting < PRESSURE_LOW {
        return true;
    }
    if waiting >= PRESSURE_HIGH {
        return false;
    }
    // Not zero: the upper bound is not reached.
    let room = PRESSURE_HIGH - waiting;
    let period = PRESSURE_PERIOD_NS * (PRESSURE_HIGH - PRESSURE_LOW) / room;
    take(NOBODY, now, period, PRESSURE_BURST_NS)
}

#[inline(always)]
fn take(slot: u32, now: u64, period: u64, burst: u64) -> bool {
    match BUCKETS.get_ptr_mut(slot) {
        Some(full_at) => take_of(full_at, now, period, burst),
        None => true,
    }
}

/// Whether one more asking of a container's is told, for a capability or a device by its number: it
/// is counted in any case.
#[inline(always)]
pub(crate) fn asking_is_told(slot: u32, number: u32) -> bool {
    let key = u64::from(slot) << 32 | u64::from(number);
    if ASKED.get_ptr_mut(key).is_none() {
        // LRU makes room.
        let _ = ASKED.insert(key, 0, 0);
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    match ASKED.get_ptr_mut(key) {
        Some(full_at) => take_of(full_at, now, ASKED_PERIOD_NS, ASKED_BURST_NS),
        None => true,
    }
}

#[inline(always)]
fn take_of(full_at: *mut u64, now: u64, period: u64, burst: u64) -> bool {
    // SAFETY: a live, aligned element of a map; every access to it is of the whole word.
    let ahead = unsafe { full_at.read_volatile() };
    if ahead <= now {
        // SAFETY: as above.
        unsafe { full_at.write_volatile(now + period) };
        return true;
    }
    if ahead - now > burst {
        return false;
    }
    // SAFETY: as above.
    unsafe { add(full_at, period) };
    true
}
