//! Time: the kernel's records count from boot, people from the epoch.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since the epoch.
pub(crate) fn now_ns() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// When a process began, by its `starttime` in /proc/PID/stat.
pub(crate) fn began_ns(start_time: u64) -> u64 {
    let tick_ns = 1_000_000_000 / procfs::ticks_per_second();
    boot_ns().saturating_add(start_time.saturating_mul(tick_ns))
}

/// Nanoseconds since the epoch at boot. Asked anew for every batch, as the clock can be set.
pub(crate) fn boot_ns() -> u64 {
    let boottime = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    });
    now_ns().saturating_sub(boottime)
}
