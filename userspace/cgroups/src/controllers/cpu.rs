//! CPU time: quota and shares, v1 `cpu.cfs_*` and `cpu.shares`, v2 `cpu.max` and `cpu.weight`.
//!
//! Shares become a weight by the quadratic formula that runc, crun and systemd settled on
//! (opencontainers/cgroups `ConvertCPUSharesToCgroupV2Value`), which takes 1024 to 100.

use crate::{CpuQuota, Error, Stats, discovery::Version, file};

use super::Place;

/// The kernel's bounds: `MIN_SHARES` and `MAX_SHARES` of kernel/sched/sched.h.
pub(crate) const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

pub(crate) fn apply_quota(place: &Place, limit: CpuQuota) -> Result<(), Error> {
    let CpuQuota { quota, period } = limit;
    if place.version == Version::V2 {
        return file::write_exactly(&place.file("cpu.max"), &format!("{quota} {period}"));
    }
    let quota_file = place.file("cpu.cfs_quota_us");
    let period_file = place.file("cpu.cfs_period_us");
    let (quota, period) = (quota.to_string(), period.to_string());
    // Under a limited parent the quotient must never exceed the parent's, so one of the two orders works.
    if file::write(&period_file, &period).is_ok() {
        file::write(&quota_file, &quota)?;
    } else {
        file::write(&quota_file, &quota)?;
        file::write(&period_file, &period)?;
    }
    file::write_exactly(&quota_file, &quota)?;
    file::write_exactly(&period_file, &period)
}

pub(crate) fn apply_shares(place: &Place, shares: u64) -> Result<(), Error> {
    if !SHARES.contains(&shares) {
        return Err(Error::Limit {
            name: "cpu shares",
            value: shares.to_string(),
            reason: format!("allowed are {} to {}", SHARES.start(), SHARES.end()),
        });
    }
    match place.version {
        Version::V1 => file::write_exactly(&place.file("cpu.shares"), &shares.to_string()),
        Version::V2 => file::write_exactly(
            &place.file("cpu.weight"),
            &shares_to_weight(shares).to_string(),
        ),
    }
}

/// `ceil(10^((l² + 125 l) / 612 - 7 / 34))` with `l = log2(shares)`, clamped at both ends.
pub fn shares_to_weight(shares: u64) -> u64 {
    if shares <= *SHARES.start() {
        return 1;
    }
    if shares >= *SHARES.end() {
        return 10_000;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shares are below 2^18 and the result lies between 1 and 10000"
    )]
    {
        let log = (shares as f64).log2();
        let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
        10_f64.powf(exponent).ceil() as u64
    }
}

/// v2's `cpu.stat` has usage even where the controller is not enabled.
pub(crate) fn stats_v2(place: &Place, stats: &mut Stats) -> Result<(), Error> {
    let Some(text) = file::read_optional(&place.file("cpu.stat"))? else {
        return Ok(());
    };
    stats.cpu_usage_usec = file::flat_key(&text, "usage_usec");
    stats.cpu_user_usec = file::flat_key(&text, "user_usec");
    stats.cpu_system_usec = file::flat_key(&text, "system_usec");
    stats.cpu_periods = file::flat_key(&text, "nr_periods");
    stats.cpu_throttled_periods = file::flat_key(&text, "nr_throttled");
    stats.cpu_throttled_usec = file::flat_key(&text, "throttled_usec");
    Ok(())
}

/// v1's `cpuacct` counts nanoseconds.
pub(crate) fn stats_cpuacct(place: &Place, stats: &mut Stats) -> Result<(), Error> {
    let usec = |name: &str| -> Result<Option<u64>, Error> {
        Ok(file::read_u64_optional(&place.file(name))?.map(|nanos| nanos / 1000))
    };
    stats.cpu_usage_usec = usec("cpuacct.usage")?;
    stats.cpu_user_usec = usec("cpuacct.usage_user")?;
    stats.cpu_system_usec = usec("cpuacct.usage_sys")?;
    Ok(())
}

/// v1's `cpu.stat` has throttling only, its time in nanoseconds.
pub(crate) fn stats_v1(place: &Place, stats: &mut Stats) -> Result<(), Error> {
    let Some(text) = file::read_optional(&place.file("cpu.stat"))? else {
        return Ok(());
    };
    stats.cpu_periods = file::flat_key(&text, "nr_periods");
    stats.cpu_throttled_periods = file::flat_key(&text, "nr_throttled");
    stats.cpu_throttled_usec = file::flat_key(&text, "throttled_time").map(|nanos| nanos / 1000);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Dir;

    #[test]
    fn weights_are_those_of_runc() {
        // The table of opencontainers/cgroups' own test, and both ends.
        for (shares, weight) in [
            (0, 1),
            (2, 1),
            (3, 2),
            (1023, 100),
            (1024, 100),
            (1025, 101),
            (262_143, 10_000),
            (262_144, 10_000),
        ] {
            assert_eq!(shares_to_weight(shares), weight, "{shares}");
        }
    }

    #[test]
    fn quota_goes_to_one_file_on_v2_and_two_on_v1() {
        let dir = Dir::new();
        let limit = CpuQuota {
            quota: 50_000,
            period: 100_000,
        };
        dir.file("cpu.max", "max 100000\n");
        let place = |version| Place {
            dir: dir.path().to_owned(),
            version,
        };
        apply_quota(&place(Version::V2), limit).unwrap();
        assert_eq!(dir.read("cpu.max"), "50000 100000");
        dir.file("cpu.cfs_quota_us", "-1\n");
        dir.file("cpu.cfs_period_us", "100000\n");
        apply_quota(&place(Version::V1), limit).unwrap();
        assert_eq!(dir.read("cpu.cfs_quota_us"), "50000");
        assert_eq!(dir.read("cpu.cfs_period_us"), "100000");
    }

    #[test]
    fn shares_out_of_bounds_are_refused_before_the_kernel_clamps_them() {
        let dir = Dir::new();
        dir.file("cpu.shares", "1024\n");
        let place = Place {
            dir: dir.path().to_owned(),
            version: Version::V1,
        };
        assert!(apply_shares(&place, 1).is_err());
        assert!(apply_shares(&place, 262_145).is_err());
        assert_eq!(dir.read("cpu.shares"), "1024\n");
    }

    #[test]
    fn v1_times_become_microseconds() {
        let dir = Dir::new();
        dir.file("cpuacct.usage", "5000123\n");
        dir.file(
            "cpu.stat",
            "nr_periods 9\nnr_throttled 4\nthrottled_time 7000000\n",
        );
        let place = Place {
            dir: dir.path().to_owned(),
            version: Version::V1,
        };
        let mut stats = Stats::default();
        stats_cpuacct(&place, &mut stats).unwrap();
        stats_v1(&place, &mut stats).unwrap();
        assert_eq!(stats.cpu_usage_usec, Some(5000));
        assert_eq!(stats.cpu_user_usec, None);
        assert_eq!(stats.cpu_throttled_periods, Some(4));
        assert_eq!(stats.cpu_throttled_usec, Some(7000));
    }
}
