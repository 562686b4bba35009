//! Block devices: v1 `blkio.throttle.*` and `blkio[.bfq].weight`, v2 `io.max` and `io.weight`.
//!
//! A weight is OCI's, 10 to 1000. BFQ's files take it as it is; `io.weight` of 1 to 10000 by
//! runc's line (opencontainers/cgroups `ConvertBlkIOToIOWeightValue`).

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    Device, Error, IoLimits, Stats,
    change::{Change, exactly},
    discovery::Version,
    file,
    readable::Readable,
};

use super::{Offer, Place, keyed};

pub(crate) const WEIGHTS: std::ops::RangeInclusive<u64> = 10..=1000;

pub(crate) fn plan(place: &Place, limits: &IoLimits) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    let weights = limits.weight.iter().chain(limits.device_weight.values());
    for weight in weights {
        check_weight(*weight)?;
    }
    if let Some(weight) = limits.weight {
        let (path, weight) = weight_file(place, "blkio weight", false, weight)?;
        changes.push(match place.version {
            Version::V1 => Change::new(path, weight.to_string(), exactly_or_default)?,
            Version::V2 => {
                let shown = file::read(&path)?;
                let former = shown.lines().next().unwrap_or("default 100").to_owned();
                Change {
                    path,
                    value: format!("default {weight}"),
                    shown,
                    former,
                    kept: exactly_or_default,
                }
            }
        });
    }
    for (device, weight) in &limits.device_weight {
        let (path, weight) = weight_file(place, "blkio weight device", true, *weight)?;
        let absent = match place.version {
            Version::V1 => "0",
            Version::V2 => "default",
        };
        changes.push(keyed::change(
            path,
            &device.to_string(),
            &weight.to_string(),
            absent,
        )?);
    }
    for (rate, rates) in [
        (READ_BPS, &limits.read_bps),
        (WRITE_BPS, &limits.write_bps),
        (READ_IOPS, &limits.read_iops),
        (WRITE_IOPS, &limits.write_iops),
    ] {
        throttle(place, rate, rates, &mut changes)?;
    }
    Ok(changes)
}

#[derive(Clone, Copy)]
struct Rate {
    limit: &'static str,
    v1: &'static str,
    /// In `io.max`.
    key: &'static str,
}

const READ_BPS: Rate = Rate {
    limit: "device read bps",
    v1: "blkio.throttle.read_bps_device",
    key: "rbps",
};
const WRITE_BPS: Rate = Rate {
    limit: "device write bps",
    v1: "blkio.throttle.write_bps_device",
    key: "wbps",
};
const READ_IOPS: Rate = Rate {
    limit: "device read iops",
    v1: "blkio.throttle.read_iops_device",
    key: "riops",
};
const WRITE_IOPS: Rate = Rate {
    limit: "device write iops",
    v1: "blkio.throttle.write_iops_device",
    key: "wiops",
};

fn throttle(
    place: &Place,
    rate: Rate,
    rates: &BTreeMap<Device, u64>,
    changes: &mut Vec<Change>,
) -> Result<(), Error> {
    let Rate { limit, v1, key } = rate;
    for (device, value) in rates {
        let path = place.offers(Offer {
            limit,
            controller: controller(place),
            v1: Some(v1),
            v2: Some("io.max"),
        })?;
        let device = device.to_string();
        changes.push(match place.version {
            Version::V1 => keyed::change(path, &device, &value.to_string(), "0")?,
            Version::V2 => {
                let value = match value {
                    0 => format!("{key}=max"),
                    value => format!("{key}={value}"),
                };
                keyed::change(
                    path,
                    &device,
                    &value,
                    "rbps=max wbps=max riops=max wiops=max",
                )?
            }
        });
    }
    Ok(())
}

fn controller(place: &Place) -> &'static str {
    match place.version {
        Version::V1 => "blkio",
        Version::V2 => "io",
    }
}

fn check_weight(weight: u64) -> Result<(), Error> {
    if WEIGHTS.contains(&weight) {
        return Ok(());
    }
    Err(Error::Limit {
        name: "blkio weight",
        value: weight.to_string(),
        reason: format!("allowed are {} to {}", WEIGHTS.start(), WEIGHTS.end()),
    })
}

/// Which file takes a weight here, and what it is in that file's measure.
fn weight_file(
    place: &Place,
    limit: &'static str,
    device: bool,
    weight: u64,
) -> Result<(PathBuf, u64), Error> {
    let bfq = match (place.version, device) {
        (Version::V1, false) => "blkio.bfq.weight",
        (Version::V1, true) => "blkio.bfq.weight_device",
        (Version::V2, _) => "io.bfq.weight",
    };
    let path = place.file(bfq);
    if path.exists() {
        return Ok((path, weight));
    }
    let path = place.offers(Offer {
        limit,
        controller: controller(place),
        v1: Some(if device {
            "blkio.weight_device"
        } else {
            "blkio.weight"
        }),
        v2: Some("io.weight"),
    })?;
    let weight = match place.version {
        Version::V1 => weight,
        Version::V2 => io_weight(weight),
    };
    Ok((path, weight))
}

/// 10 to 1000 onto 1 to 10000.
pub fn io_weight(weight: u64) -> u64 {
    1 + (weight.saturating_sub(*WEIGHTS.start())) * 9999 / 990
}

/// BFQ shows its default alone, `io.weight` a `default` before it, with lines of devices below.
fn exactly_or_default(wrote: &str, shown: &str) -> bool {
    let number = |text: &str| {
        let first = text.lines().next().unwrap_or_default();
        first.trim_start_matches("default ").to_owned()
    };
    exactly(&number(wrote), &number(shown))
}

/// Bytes and operations of all devices together.
pub(crate) fn stats(files: &Readable, stats: &mut Stats) -> Result<(), Error> {
    if files.version == Version::V2 {
        let Some(text) = files.text("io.stat")? else {
            return Ok(());
        };
        stats.totals.io_read_bytes = Some(sum(&text, "rbytes="));
        stats.totals.io_write_bytes = Some(sum(&text, "wbytes="));
        stats.totals.io_reads = Some(sum(&text, "rios="));
        stats.totals.io_writes = Some(sum(&text, "wios="));
        return Ok(());
    }
    if let Some(text) = files.text("blkio.throttle.io_service_bytes_recursive")? {
        stats.totals.io_read_bytes = Some(sum_v1(&text, "Read"));
        stats.totals.io_write_bytes = Some(sum_v1(&text, "Write"));
    }
    if let Some(text) = files.text("blkio.throttle.io_serviced_recursive")? {
        stats.totals.io_reads = Some(sum_v1(&text, "Read"));
        stats.totals.io_writes = Some(sum_v1(&text, "Write"));
    }
    Ok(())
}

/// `8:0 rbytes=1 wbytes=2 …`
fn sum(text: &str, key: &str) -> u64 {
    text.split_whitespace()
        .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
        .sum()
}

/// `8:0 Read 1`
fn sum_v1(text: &str, what: &str) -> u64 {
    text.lines()
        .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, word, number] if word == what => number.parse::<u64>().ok(),
            _ => None,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::execute, fixture::Dir};

    const SDA: Device = Device { major: 8, minor: 0 };

    fn place(dir: &Dir, version: Version) -> Place {
        Place {
            dir: dir.path().to_owned(),
            version,
        }
    }

    #[test]
    fn weights_are_those_of_runc() {
        for (weight, io) in [(10, 1), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight(weight), io);
        }
    }

    #[test]
    fn v2_rates_are_one_line_of_io_max_each() {
        let dir = Dir::new();
        dir.file("io.max", "8:0 rbps=5 wbps=max riops=max wiops=max\n");
        let limits = IoLimits {
            read_bps: BTreeMap::from([(SDA, 1 << 20)]),
            write_iops: BTreeMap::from([(SDA, 0)]),
            ..IoLimits::default()
        };
        let changes = plan(&place(&dir, Version::V2), &limits).unwrap();
        assert_eq!(changes[0].value, "8:0 rbps=1048576");
        assert_eq!(changes[0].former, "8:0 rbps=5 wbps=max riops=max wiops=max");
        assert_eq!(changes[1].value, "8:0 wiops=max");
    }

    #[test]
    fn bfq_is_preferred_and_a_kernel_without_weights_is_told() {
        let dir = Dir::new();
        let limits = IoLimits {
            weight: Some(500),
            ..IoLimits::default()
        };
        let error = plan(&place(&dir, Version::V2), &limits).unwrap_err();
        assert_eq!(
            error.to_string(),
            "blkio weight: the io controller (cgroup v2) has no io.weight on this kernel"
        );
        dir.file("io.weight", "default 100\n");
        let _ = execute(plan(&place(&dir, Version::V2), &limits).unwrap()).unwrap();
        assert_eq!(dir.read("io.weight"), "default 4950");
        dir.file("io.bfq.weight", "default 100\n");
        let _ = execute(plan(&place(&dir, Version::V2), &limits).unwrap()).unwrap();
        assert_eq!(dir.read("io.bfq.weight"), "default 500");
        dir.file("blkio.bfq.weight", "100\n");
        let _ = execute(plan(&place(&dir, Version::V1), &limits).unwrap()).unwrap();
        assert_eq!(dir.read("blkio.bfq.weight"), "500");
        let wrong = IoLimits {
            weight: Some(9),
            ..IoLimits::default()
        };
        assert!(plan(&place(&dir, Version::V1), &wrong).is_err());
    }

    #[test]
    fn readings_of_both_versions() {
        let dir = Dir::new();
        dir.file("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:16 rbytes=10 wbytes=0 rios=1 wios=0\n");
        let mut found = Stats::default();
        stats(&place(&dir, Version::V2).open().unwrap(), &mut found).unwrap();
        assert_eq!(
            (found.totals.io_read_bytes, found.totals.io_writes),
            (Some(11), Some(4))
        );
        dir.file(
            "blkio.throttle.io_service_bytes_recursive",
            "8:0 Read 5\n8:0 Write 6\n8:0 Total 11\nTotal 11\n",
        );
        let mut found = Stats::default();
        stats(&place(&dir, Version::V1).open().unwrap(), &mut found).unwrap();
        assert_eq!(
            (
                found.totals.io_read_bytes,
                found.totals.io_write_bytes,
                found.totals.io_reads
            ),
            (Some(5), Some(6), None)
        );
    }
}
