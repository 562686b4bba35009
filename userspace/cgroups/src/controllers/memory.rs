//! Memory and swap: v1 `memory.limit_in_bytes` and `memory.memsw.*`, v2 `memory.max` and
//! `memory.swap.max`, and what only one of the two has.
//!
//! `swap` is docker's: memory plus swap. v1 counts so too; v2 counts swap alone. The kernel
//! rounds down to whole pages. A limit below what is in use and cannot be reclaimed is EBUSY on
//! v1; v2 would take it and kill, so what the kernel can reclaim is asked of it before. Either
//! way the present use is told, and nothing is killed.

use std::path::PathBuf;

use crate::{
    Error, MemoryLimits, Stats,
    change::{Change, exactly},
    discovery::Version,
    file,
    readable::Readable,
};

use super::{Offer, Place};

/// What docker's two values come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swap {
    Unlimited,
    /// Memory plus swap, not below memory.
    Total(i64),
}

const fn offer(limit: &'static str, v1: Option<&'static str>, v2: Option<&'static str>) -> Offer {
    Offer {
        limit,
        controller: "memory",
        v1,
        v2,
    }
}

const RESERVATION: Offer = offer(
    "memory reservation",
    Some("memory.soft_limit_in_bytes"),
    Some("memory.low"),
);
const HIGH: Offer = offer("memory high", None, Some("memory.high"));
const MIN: Offer = offer("memory min", None, Some("memory.min"));
const SWAPPINESS: Offer = offer("memory swappiness", Some("memory.swappiness"), None);
const OOM_GROUP: Offer = offer("oom group", None, Some("memory.oom.group"));
const OOM_CONTROL: Offer = offer("oom kill disable", Some("memory.oom_control"), None);

pub(crate) fn plan(place: &Place, limits: &MemoryLimits) -> Result<Vec<Change>, Error> {
    let swap = limits
        .swap
        .map(|total| check_swap(limits.limit, total))
        .transpose()?;
    let mut changes = Vec::new();
    // Protection and the brake come before the hard limit, which can kill.
    for (offer, value) in [
        (MIN, limits.min),
        (RESERVATION, limits.reservation),
        (HIGH, limits.high),
    ] {
        if let Some(value) = value {
            let path = place.offers(offer)?;
            changes.push(bytes(place, path, offer.limit, value)?);
        }
    }
    match place.version {
        Version::V1 => hard_v1(place, limits.limit, swap, &mut changes)?,
        Version::V2 => hard_v2(place, limits.limit, swap, &mut changes)?,
    }
    if let Some(swappiness) = limits.swappiness {
        let path = place.offers(SWAPPINESS)?;
        changes.push(Change::new(path, swappiness.to_string(), exactly)?);
    }
    if let Some(group) = limits.oom_group {
        let path = place.offers(OOM_GROUP)?;
        changes.push(Change::new(path, u8::from(group).to_string(), exactly)?);
    }
    if let Some(disable) = limits.oom_kill_disable {
        changes.push(oom_control(place.offers(OOM_CONTROL)?, disable)?);
    }
    Ok(changes)
}

fn check_swap(memory: Option<i64>, total: i64) -> Result<Swap, Error> {
    let refused = |reason: String| Error::Limit {
        name: "memory swap",
        value: total.to_string(),
        reason,
    };
    if total == -1 {
        return Ok(Swap::Unlimited);
    }
    if total < 0 {
        return Err(refused("allowed are bytes or -1 for unlimited".to_owned()));
    }
    let memory = memory
        .filter(|&memory| memory >= 0)
        .ok_or_else(|| refused("needs a memory limit beside it".to_owned()))?;
    if total < memory {
        return Err(refused(format!(
            "is memory plus swap, so not below the memory limit of {memory}"
        )));
    }
    Ok(Swap::Total(total))
}

fn hard_v2(
    place: &Place,
    memory: Option<i64>,
    swap: Option<Swap>,
    changes: &mut Vec<Change>,
) -> Result<(), Error> {
    if let Some(swap) = swap {
        let path = place.file("memory.swap.max");
        let value = match swap {
            Swap::Unlimited => -1,
            Swap::Total(total) => total - memory.unwrap_or(total),
        };
        // A kernel without swap accounting: no swap and any swap come to the same, an amount doesn't.
        if path.exists() {
            changes.push(bytes(place, path, "memory swap", value)?);
        } else if value > 0 {
            return Err(Error::NotOffered {
                limit: "memory swap",
                controller: "memory",
                version: Version::V2,
                reason: "has no memory.swap.max on this kernel".to_owned(),
            });
        }
    }
    if let Some(memory) = memory {
        changes.push(bytes(place, place.file("memory.max"), "memory", memory)?);
    }
    Ok(())
}

/// The kernel wants memory not above memory plus swap at every moment: when lowering memory
/// comes first, when raising the sum does.
fn hard_v1(
    place: &Place,
    memory: Option<i64>,
    swap: Option<Swap>,
    changes: &mut Vec<Change>,
) -> Result<(), Error> {
    let path = place.file("memory.limit_in_bytes");
    let memory_change = memory
        .map(|memory| bytes(place, path, "memory", memory))
        .transpose()?;
    let path = place.file("memory.memsw.limit_in_bytes");
    let swap_change = match swap {
        None => None,
        // No swap accounting: as in v2, only what needs none is as good as kept.
        Some(Swap::Total(total)) if !path.exists() && Some(total) != memory => {
            return Err(Error::NoController {
                controller: "memory.memsw",
                hint: ": the kernel runs without swapaccount=1",
            });
        }
        Some(_) if !path.exists() => None,
        Some(Swap::Unlimited) => Some(bytes(place, path, "memory swap", -1)?),
        Some(Swap::Total(total)) => Some(bytes(place, path, "memory swap", total)?),
    };
    let raises = swap_change.as_ref().is_some_and(|change| {
        let new = limit(&change.value).unwrap_or(u64::MAX);
        new > limit(&change.former).unwrap_or(u64::MAX)
    });
    if raises {
        changes.extend(swap_change);
        changes.extend(memory_change);
    } else {
        changes.extend(memory_change);
        changes.extend(swap_change);
    }
    Ok(())
}

/// Bytes or -1; what is read back may be rounded down to pages.
fn bytes(place: &Place, path: PathBuf, name: &'static str, value: i64) -> Result<Change, Error> {
    let text = match (value, place.version) {
        (-1, Version::V1) => "-1".to_owned(),
        (-1, Version::V2) => "max".to_owned(),
        (0.., _) => value.to_string(),
        _ => {
            return Err(Error::Limit {
                name,
                value: value.to_string(),
                reason: "allowed are bytes or -1 for unlimited".to_owned(),
            });
        }
    };
    Change::new(path, text, same_bytes)
}

/// Shown as `oom_kill_disable 0` with other lines, written as `0`.
fn oom_control(path: PathBuf, disable: bool) -> Result<Change, Error> {
    let shown = file::read(&path)?;
    let former = file::flat_key(&shown, "oom_kill_disable").unwrap_or(0);
    Ok(Change {
        path,
        value: u8::from(disable).to_string(),
        shown,
        former: former.to_string(),
        kept: |wrote, shown| {
            file::flat_key(shown, "oom_kill_disable").map(|flag| flag.to_string())
                == Some(wrote.to_owned())
        },
    })
}

/// Whether bytes written (or the word for no limit) are what is shown.
pub(crate) fn same_bytes(wrote: &str, shown: &str) -> bool {
    let page = procfs::page_size();
    match (amount(wrote), amount(shown)) {
        // Both versions keep the largest count of pages and show it as no limit.
        (Some(Amount::Unlimited), Some(Amount::Unlimited)) => true,
        (Some(Amount::Bytes(wrote)), Some(Amount::Bytes(shown))) => {
            shown == wrote || shown == wrote / page * page
        }
        _ => false,
    }
}

#[derive(Clone, Copy)]
enum Amount {
    Unlimited,
    Bytes(u64),
}

/// `max`, `-1` and v1's largest count of pages mean no limit; `None` is neither that nor bytes.
fn amount(text: &str) -> Option<Amount> {
    let largest = i64::MAX.unsigned_abs() / procfs::page_size() * procfs::page_size();
    if matches!(text, "max" | "-1") {
        return Some(Amount::Unlimited);
    }
    let bytes: u64 = text.parse().ok()?;
    Some(if bytes < largest {
        Amount::Bytes(bytes)
    } else {
        Amount::Unlimited
    })
}

fn limit(text: &str) -> Option<u64> {
    match amount(text) {
        Some(Amount::Bytes(bytes)) => Some(bytes),
        _ => None,
    }
}

/// The brake, put on for as long as it takes to write a hard limit below it.
#[derive(Debug)]
pub(crate) struct Room {
    path: PathBuf,
    former: String,
}

impl Room {
    pub(crate) fn leave(self) -> Result<(), Error> {
        file::write(&self.path, &self.former)
    }
}

/// On v2: has the kernel reclaim down to a new hard limit (a write of `memory.high` does that
/// before it returns); an error when that is not enough, where `memory.max` would kill.
pub(crate) fn make_room(place: &Place, limits: &MemoryLimits) -> Result<Option<Room>, Error> {
    let Some(limit) = limits.limit.and_then(|limit| u64::try_from(limit).ok()) else {
        return Ok(None);
    };
    let usage = || file::read_u64(&place.file("memory.current"));
    if place.version == Version::V1 || usage()? <= limit {
        return Ok(None);
    }
    let path = place.file("memory.high");
    let room = Room {
        former: file::read(&path)?,
        path,
    };
    file::write(&room.path, &limit.to_string())?;
    match usage() {
        Ok(usage) if usage <= limit => Ok(Some(room)),
        Ok(usage) => {
            room.leave()?;
            Err(Error::BelowUse {
                path: place.file("memory.max"),
                limit,
                usage,
                // `memory.peak` is there from 5.19 on.
                peak: file::read_u64(&place.file("memory.peak")).ok(),
            })
        }
        Err(error) => {
            room.leave()?;
            Err(error)
        }
    }
}

/// v1's EBUSY, with the numbers.
pub(crate) fn below_use(place: &Place, error: Error) -> Error {
    let Error::Write { path, value, .. } = &error else {
        return error;
    };
    let (true, Some(limit)) = (
        error.raw_os_error() == Some(nix::libc::EBUSY) && path.starts_with(&place.dir),
        limit(value),
    ) else {
        return error;
    };
    let memsw = path.ends_with("memory.memsw.limit_in_bytes");
    let [usage, peak] = if memsw {
        [
            "memory.memsw.usage_in_bytes",
            "memory.memsw.max_usage_in_bytes",
        ]
    } else {
        ["memory.usage_in_bytes", "memory.max_usage_in_bytes"]
    };
    Error::BelowUse {
        path: path.clone(),
        limit,
        usage: file::read_u64(&place.file(usage)).unwrap_or(0),
        peak: file::read_u64(&place.file(peak)).ok(),
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

pub(crate) fn stats(files: &Readable, stats: &mut Stats) -> Result<(), Error> {
    let [usage, peak, max, events, inactive, anon, cache, faults] = match files.version {
        Version::V1 => [
            "memory.usage_in_bytes",
            "memory.max_usage_in_bytes",
            "memory.limit_in_bytes",
            "memory.oom_control",
            "total_inactive_file",
            "total_rss",
            "total_cache",
            "total_pgmajfault",
        ],
        Version::V2 => [
            "memory.current",
            "memory.peak",
            "memory.max",
            "memory.events",
            "inactive_file",
            "anon",
            "file",
            "pgmajfault",
        ],
    };
    stats.memory_usage_bytes = files.number(usage)?;
    // `memory.peak` is there from 5.19 on.
    stats.memory_peak_bytes = files.number(peak)?;
    stats.memory_swap_bytes = match files.version {
        Version::V1 => files
            .number("memory.memsw.usage_in_bytes")?
            .zip(stats.memory_usage_bytes)
            .map(|(both, memory)| both.saturating_sub(memory)),
        Version::V2 => files.number("memory.swap.current")?,
    };
    stats.memory_limit_bytes = files.text(max)?.as_deref().and_then(limit);
    let events = files.text(events)?.unwrap_or_default();
    let totals = &mut stats.totals;
    for (key, field) in [
        ("low", &mut totals.memory_low_events),
        ("high", &mut totals.memory_high_events),
        ("max", &mut totals.memory_max_events),
        ("oom", &mut totals.memory_oom_events),
        ("oom_kill", &mut totals.memory_oom_kills),
        ("oom_group_kill", &mut totals.memory_oom_group_kills),
    ] {
        *field = file::flat_key(&events, key);
    }
    if files.version == Version::V1 {
        // Where memory with swap has the same limit the kernel asks that one first.
        totals.memory_max_events = files
            .number("memory.failcnt")?
            .map(|memory| Ok(memory + files.number("memory.memsw.failcnt")?.unwrap_or(0)))
            .transpose()?;
    }
    let stat = files.text("memory.stat")?.unwrap_or_default();
    let inactive = file::flat_key(&stat, inactive);
    totals.memory_major_faults = file::flat_key(&stat, faults);
    stats.memory_anon_bytes = file::flat_key(&stat, anon);
    stats.memory_file_bytes = file::flat_key(&stat, cache);
    stats.memory_working_set_bytes = stats
        .memory_usage_bytes
        .map(|usage| usage.saturating_sub(inactive.unwrap_or(0)));
    Ok(())
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
