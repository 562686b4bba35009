//! Memory and swap: v1 `memory.limit_in_bytes` and `memory.memsw.*`, v2 `memory.max` and
//! `memory.swap.max`.
//!
//! `memory_swap` is docker's: memory plus swap. v1 counts so too and insists at every moment
//! that the sum is not below memory, so the order of the two writes depends on the present
//! value; v2 counts swap alone. The kernel rounds down to whole pages. A v1 limit below what
//! is in use and cannot be reclaimed is EBUSY, told with the present use.

use std::path::Path;

use crate::{Error, Stats, discovery::Version, file};

use super::Place;

/// What docker's two values come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swap {
    Unlimited,
    /// Memory plus swap, not below memory.
    Total(u64),
}

pub(crate) fn apply(
    place: &Place,
    memory: Option<u64>,
    memory_swap: Option<i64>,
) -> Result<(), Error> {
    let swap = memory_swap.map(|total| check(memory, total)).transpose()?;
    match place.version {
        Version::V1 => apply_v1(place, memory, swap),
        Version::V2 => apply_v2(place, memory, swap),
    }
}

fn check(memory: Option<u64>, total: i64) -> Result<Swap, Error> {
    let refused = |reason: String| Error::Limit {
        name: "memory swap",
        value: total.to_string(),
        reason,
    };
    if total == -1 {
        return Ok(Swap::Unlimited);
    }
    let value = u64::try_from(total)
        .map_err(|_| refused("allowed are bytes or -1 for unlimited".to_owned()))?;
    let memory = memory.ok_or_else(|| refused("needs a memory limit beside it".to_owned()))?;
    if value < memory {
        return Err(refused(format!(
            "is memory plus swap, so not below the memory limit of {memory}"
        )));
    }
    Ok(Swap::Total(value))
}

fn apply_v2(place: &Place, memory: Option<u64>, swap: Option<Swap>) -> Result<(), Error> {
    if let Some(swap) = swap {
        let path = place.file("memory.swap.max");
        let value = match swap {
            Swap::Unlimited => None,
            Swap::Total(total) => Some(total - memory.unwrap_or(total)),
        };
        // A kernel without swap accounting: no swap and any swap come to the same, an amount doesn't.
        if path.exists() || !matches!(value, None | Some(0)) {
            write_bytes(&path, value, "max")?;
        }
    }
    match memory {
        Some(bytes) => write_bytes(&place.file("memory.max"), Some(bytes), "max"),
        None => Ok(()),
    }
}

fn apply_v1(place: &Place, memory: Option<u64>, swap: Option<Swap>) -> Result<(), Error> {
    let total_file = place.file("memory.memsw.limit_in_bytes");
    let write_memory = || match memory {
        Some(bytes) => write_bytes(&place.file("memory.limit_in_bytes"), Some(bytes), "-1")
            .map_err(|error| below_use(place, bytes, error)),
        None => Ok(()),
    };
    let Some(swap) = swap else {
        return write_memory();
    };
    let value = match swap {
        Swap::Unlimited => None,
        Swap::Total(total) => Some(total),
    };
    let Some(present) = file::read_u64_optional(&total_file)? else {
        // No swap accounting: as in v2, only what needs none is as good as kept.
        if value.is_none() || value == memory {
            return write_memory();
        }
        return Err(Error::NoController {
            controller: "memory.memsw",
            hint: ": the kernel runs without swapaccount=1",
        });
    };
    let write_total = || {
        write_bytes(&total_file, value, "-1")
            .map_err(|error| below_use(place, value.unwrap_or(u64::MAX), error))
    };
    if value.is_none_or(|total| total > present) {
        write_total()?;
        write_memory()
    } else {
        write_memory()?;
        write_total()
    }
}

/// Writes bytes or the word for unlimited; what is read back may be rounded down to pages.
fn write_bytes(path: &Path, bytes: Option<u64>, unlimited: &str) -> Result<(), Error> {
    let text = bytes.map_or_else(|| unlimited.to_owned(), |bytes| bytes.to_string());
    file::write(path, &text)?;
    let kept = file::read(path)?;
    if same_limit(bytes, &kept) {
        return Ok(());
    }
    Err(Error::NotKept {
        path: path.to_owned(),
        wrote: text,
        read: kept,
    })
}

fn same_limit(wrote: Option<u64>, kept: &str) -> bool {
    let page = procfs::page_size();
    let kept = limit(kept);
    match wrote {
        // Both versions keep the largest count of pages and show it as no limit.
        None => kept.is_none(),
        Some(bytes) if bytes / page >= i64::MAX.unsigned_abs() / page => kept.is_none(),
        Some(bytes) => kept.is_some_and(|kept| kept == bytes || kept == bytes / page * page),
    }
}

/// `max`, `-1` and v1's largest count of pages mean no limit.
fn limit(text: &str) -> Option<u64> {
    let largest = i64::MAX.unsigned_abs() / procfs::page_size() * procfs::page_size();
    text.parse().ok().filter(|&bytes: &u64| bytes < largest)
}

fn below_use(place: &Place, limit: u64, error: Error) -> Error {
    if error.raw_os_error() != Some(nix::libc::EBUSY) {
        return error;
    }
    let read = |name| file::read_u64(&place.file(name)).unwrap_or(0);
    Error::BelowUse {
        path: place.file("memory.limit_in_bytes"),
        limit,
        usage: read("memory.usage_in_bytes"),
        peak: read("memory.max_usage_in_bytes"),
    }
}

/// Whether this kernel limits swap for this cgroup at all.
pub(crate) fn accounts_swap(place: &Place) -> bool {
    let name = match place.version {
        Version::V1 => "memory.memsw.limit_in_bytes",
        Version::V2 => "memory.swap.max",
    };
    place.file(name).exists()
}

pub(crate) fn stats(place: &Place, stats: &mut Stats) -> Result<(), Error> {
    let [usage, peak, max, events, inactive] = match place.version {
        Version::V1 => [
            "memory.usage_in_bytes",
            "memory.max_usage_in_bytes",
            "memory.limit_in_bytes",
            "memory.oom_control",
            "total_inactive_file",
        ],
        Version::V2 => [
            "memory.current",
            "memory.peak",
            "memory.max",
            "memory.events",
            "inactive_file",
        ],
    };
    let text = |name: &str| file::read_optional(&place.file(name));
    stats.memory_usage_bytes = file::read_u64_optional(&place.file(usage))?;
    // `memory.peak` is there from 5.19 on.
    stats.memory_peak_bytes = file::read_u64_optional(&place.file(peak))?;
    stats.memory_limit_bytes = text(max)?.as_deref().and_then(limit);
    stats.memory_oom_kills = text(events)?.and_then(|text| file::flat_key(&text, "oom_kill"));
    let inactive = text("memory.stat")?.and_then(|text| file::flat_key(&text, inactive));
    stats.memory_working_set_bytes = stats
        .memory_usage_bytes
        .map(|usage| usage.saturating_sub(inactive.unwrap_or(0)));
    Ok(())
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
