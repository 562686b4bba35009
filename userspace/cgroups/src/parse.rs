//! The command line's values, in docker's notation; strict, with errors that say what is allowed.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::controllers::{blkio::WEIGHTS, cpu::SHARES};

/// One page of the smallest kind: less than that is no memory at all.
const SMALLEST_MEMORY: u64 = 4096;
/// What a number of CPUs is a share of, in microseconds.
pub const PERIOD: u64 = 100_000;
/// The kernel takes no quota below 1 ms: `min_cfs_quota_period` of kernel/sched/core.c.
const SMALLEST_NANO_CPUS: u64 = 10_000_000;
const NANO: u64 = 1_000_000_000;
/// `CONFIG_NR_CPUS` is at most this anywhere.
const MOST_CPUS: u32 = 8192;

/// `value` as typed, and what would have been right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?}: {reason}")]
pub struct ParseError {
    pub value: String,
    pub reason: String,
}

fn refused<T>(value: &str, reason: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError {
        value: value.to_owned(),
        reason: reason.into(),
    })
}

/// Bytes, as docker's `--memory`: digits, a fraction if a unit follows, and `b k m g t p`
/// (powers of 1024, also as `kb`, `KiB`), without sign.
pub fn size(text: &str) -> Result<u64, ParseError> {
    const ALLOWED: &str = "expected bytes with an optional unit b, k, m, g, t or p, such as 256m";
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return refused(text, ALLOWED),
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let Ok(whole) = whole.parse::<u64>() else {
        let digits = !whole.is_empty() && whole.bytes().all(|b| b.is_ascii_digit());
        return refused(text, if digits { "too large" } else { ALLOWED });
    };
    let parts = match fraction {
        None => 0,
        Some(_) if shift == 0 => return refused(text, "a fraction of a byte; add a unit"),
        Some(digits) => match (digits.len(), digits.parse::<u64>()) {
            // Twelve digits times 2^50 fit 128 bits with room.
            (1..=12, Ok(value)) => {
                let scale = 10_u128.pow(u32::try_from(digits.len()).unwrap_or(12));
                (u128::from(value) << shift) / scale
            }
            _ => return refused(text, ALLOWED),
        },
    };
    match u64::try_from((u128::from(whole) << shift) + parts) {
        Ok(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => refused(text, "too large"),
    }
}

/// A memory limit: a [`size`] of at least 4096 bytes, or -1 for unlimited.
pub fn memory(text: &str) -> Result<i64, ParseError> {
    if text == "-1" {
        return Ok(-1);
    }
    match size(text) {
        Ok(0) => refused(text, "-1 is no limit"),
        Ok(bytes) if bytes < SMALLEST_MEMORY => refused(
            text,
            format!("the smallest limit is {SMALLEST_MEMORY} bytes"),
        ),
        Ok(bytes) => signed(text, bytes),
        Err(_) if text.starts_with('-') => {
            refused(text, "the only negative value is -1, unlimited")
        }
        Err(error) => Err(error),
    }
}

/// A guarantee or a mark: as [`memory`], and 0 is none.
pub fn memory_mark(text: &str) -> Result<i64, ParseError> {
    match size(text) {
        Ok(0) => Ok(0),
        _ => memory(text),
    }
}

fn signed(text: &str, bytes: u64) -> Result<i64, ParseError> {
    i64::try_from(bytes).or_else(|_| refused(text, "too large"))
}

/// v1's `memory.swappiness`.
pub fn swappiness(text: &str) -> Result<u64, ParseError> {
    match text.parse() {
        Ok(value @ 0..=200) => Ok(value),
        _ => refused(text, "expected 0 to 100 (200 from Linux 5.8 on)"),
    }
}

/// Docker's `--cpus`: a decimal of at least 0.01 and at most nine places; the microseconds of
/// each [`PERIOD`].
pub fn cpus(text: &str) -> Result<i64, ParseError> {
    const ALLOWED: &str = "expected a number of CPUs such as 0.5";
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return refused(text, ALLOWED);
    }
    if fraction.len() > 9 {
        return refused(text, "more than nine decimal places");
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let nanos = whole
        .parse::<u64>()
        .ok()
        .filter(|&cpus| cpus <= u64::from(MOST_CPUS))
        .zip(format!("{fraction:0<9}").parse::<u64>().ok())
        .map(|(cpus, nanos)| cpus * NANO + nanos);
    match nanos {
        None => refused(text, format!("more than {MOST_CPUS} CPUs")),
        Some(nanos) if nanos < SMALLEST_NANO_CPUS => refused(text, "the smallest value is 0.01"),
        Some(nanos) => signed(text, nanos * PERIOD / NANO),
    }
}

/// Microseconds of a period that may be used, or -1 for all; the kernel's least is 1000.
pub fn cpu_quota(text: &str) -> Result<i64, ParseError> {
    match text.parse() {
        Ok(quota) if quota == -1 || quota >= 1000 => Ok(quota),
        _ => refused(
            text,
            "expected microseconds, at least 1000, or -1 for unlimited",
        ),
    }
}

/// The kernel's bounds: 1 ms to 1 s.
pub fn cpu_period(text: &str) -> Result<u64, ParseError> {
    match text.parse() {
        Ok(period @ 1000..=1_000_000) => Ok(period),
        _ => refused(text, "expected microseconds, 1000 to 1000000"),
    }
}

/// Microseconds.
pub fn microseconds(text: &str) -> Result<u64, ParseError> {
    match text.parse() {
        Ok(time) if i64::try_from(time).is_ok() => Ok(time),
        _ => refused(text, "expected microseconds"),
    }
}

/// Docker's `--blkio-weight`.
pub fn blkio_weight(text: &str) -> Result<u64, ParseError> {
    match text.parse() {
        Ok(weight) if WEIGHTS.contains(&weight) => Ok(weight),
        _ => refused(
            text,
            format!("expected {} to {}", WEIGHTS.start(), WEIGHTS.end()),
        ),
    }
}

/// Docker's `--cpu-shares`, 2 to 262144.
pub fn cpu_shares(text: &str) -> Result<u64, ParseError> {
    match text.parse() {
        Ok(shares) if SHARES.contains(&shares) => Ok(shares),
        _ => refused(
            text,
            format!("expected {} to {}", SHARES.start(), SHARES.end()),
        ),
    }
}

/// A pids limit: at least 1; -1 and, as docker has it, 0 are unlimited.
pub fn pids_limit(text: &str) -> Result<i64, ParseError> {
    match text.parse() {
        Ok(-1 | 0) => Ok(-1),
        Ok(limit) if limit > 0 => Ok(limit),
        _ => refused(text, "expected a count of at least 1, or -1 for unlimited"),
    }
}

/// The kernel's list format, such as `0-2,5`.
pub(crate) fn number_list(text: &str) -> Result<BTreeSet<u32>, ParseError> {
    const ALLOWED: &str = "expected a list such as 0-2,5";
    let number = |part: &str| match part.parse::<u32>() {
        Ok(cpu) if cpu < MOST_CPUS && part.bytes().all(|b| b.is_ascii_digit()) => Ok(cpu),
        Ok(_) => refused(text, format!("the highest is {}", MOST_CPUS - 1)),
        Err(_) => refused(text, ALLOWED),
    };
    let mut found = BTreeSet::new();
    for item in text.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return refused(text, format!("{item} runs backwards"));
        }
        found.extend(first..=last);
    }
    Ok(found)
}

/// The syntax check for `--cpuset-cpus` and `--cpuset-mems`; the text goes on as it is.
pub fn cpuset(text: &str) -> Result<String, ParseError> {
    number_list(text).map(|_| text.to_owned())
}

/// The inverse of [`number_list`], as the kernel prints it.
pub(crate) fn format_list(cpus: &BTreeSet<u32>) -> String {
    let mut out = String::new();
    let mut rest = cpus.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while rest.peek() == Some(&(last + 1)) {
            last += 1;
            rest.next();
        }
        if !out.is_empty() {
            out.push(',');
        }
        // Writing to a string cannot fail.
        let _ = write!(out, "{first}");
        if last > first {
            let _ = write!(out, "-{last}");
        }
    }
    out
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
