//! CPU time: quota, burst, shares and idle, v1 `cpu.cfs_*`, `cpu.shares`, v2 `cpu.max`,
//! `cpu.weight`, and v1's real-time budget.
//!
//! Shares become a weight by the quadratic formula that runc, crun and systemd settled on
//! (opencontainers/cgroups `ConvertCPUSharesToCgroupV2Value`), which takes 1024 to 100.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use crate::{
    CpuLimits, Error, Stats,
    change::{Change, exactly},
    discovery::Version,
    file,
    readable::Readable,
    tree::children,
};

use super::{Offer, Place};

/// The kernel's bounds: `MIN_SHARES` and `MAX_SHARES` of kernel/sched/sched.h.
pub(crate) const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

const fn offer(limit: &'static str, v1: &'static str, v2: Option<&'static str>) -> Offer {
    Offer {
        limit,
        controller: "cpu",
        v1: Some(v1),
        v2,
    }
}

const QUOTA: Offer = offer("cpu quota", "cpu.cfs_quota_us", Some("cpu.max"));
const PERIOD: Offer = offer("cpu period", "cpu.cfs_period_us", Some("cpu.max"));
const BURST: Offer = offer("cpu burst", "cpu.cfs_burst_us", Some("cpu.max.burst"));
const IDLE: Offer = offer("cpu idle", "cpu.idle", Some("cpu.idle"));
const RT_PERIOD: Offer = offer("cpu rt period", "cpu.rt_period_us", None);
const RT_RUNTIME: Offer = offer("cpu rt runtime", "cpu.rt_runtime_us", None);

pub(crate) fn plan(place: &Place, limits: &CpuLimits) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    // The kernel refuses shares of a cgroup that is idle, so idleness ends before and begins
    // after; of one that stays idle they count for nothing.
    if limits.idle == Some(false) {
        changes.push(idle(place, false)?);
    }
    let is_idle = || file::read(&place.file("cpu.idle")).is_ok_and(|text| text == "1");
    if let Some(shares) = limits
        .shares
        .filter(|_| limits.idle != Some(true) || !is_idle())
    {
        changes.push(share(place, shares)?);
    }
    if limits.quota.is_some() || limits.period.is_some() {
        quota(place, limits.quota, limits.period, &mut changes)?;
    }
    if let Some(burst) = limits.burst {
        let path = place.offers(BURST)?;
        changes.push(Change::new(path, burst.to_string(), exactly)?);
    }
    if limits.idle == Some(true) {
        changes.push(idle(place, true)?);
    }
    if let Some(period) = limits.rt_period {
        let path = place.offers(RT_PERIOD)?;
        changes.push(Change::new(path, period.to_string(), exactly)?);
    }
    if let Some(runtime) = limits.rt_runtime {
        let path = place.offers(RT_RUNTIME)?;
        real_time_budget(place, runtime)?;
        changes.push(Change::new(path, runtime.to_string(), exactly)?);
    }
    Ok(changes)
}

fn idle(place: &Place, idle: bool) -> Result<Change, Error> {
    Change::new(place.offers(IDLE)?, u8::from(idle).to_string(), exactly)
}

/// -1 is unlimited. Under a limited parent, and with a burst, the order of v1's two files
/// matters: the writer finds it.
fn quota(
    place: &Place,
    quota: Option<i64>,
    period: Option<u64>,
    changes: &mut Vec<Change>,
) -> Result<(), Error> {
    if place.version == Version::V1 {
        if let Some(period) = period {
            let path = place.offers(PERIOD)?;
            changes.push(Change::new(path, period.to_string(), exactly)?);
        }
        if let Some(quota) = quota {
            let path = place.offers(QUOTA)?;
            changes.push(Change::new(path, quota.to_string(), exactly)?);
        }
        return Ok(());
    }
    let path = place.offers(QUOTA)?;
    let present = file::read(&path)?;
    let (quota_now, period_now) = present.split_once(' ').unwrap_or(("max", "100000"));
    let quota = match quota {
        None => quota_now.to_owned(),
        Some(-1) => "max".to_owned(),
        Some(quota) => quota.to_string(),
    };
    let period = period.map_or_else(|| period_now.to_owned(), |period| period.to_string());
    changes.push(Change::new(path, format!("{quota} {period}"), exactly)?);
    Ok(())
}

fn share(place: &Place, shares: u64) -> Result<Change, Error> {
    if !SHARES.contains(&shares) {
        return Err(Error::Limit {
            name: "cpu shares",
            value: shares.to_string(),
            reason: format!("allowed are {} to {}", SHARES.start(), SHARES.end()),
        });
    }
    match place.version {
        Version::V1 => Change::new(place.file("cpu.shares"), shares.to_string(), exactly),
        Version::V2 => Change::new(
            place.file("cpu.weight"),
            shares_to_weight(shares).to_string(),
            exactly,
        ),
    }
}

/// A cgroup gets real-time only out of its parent's budget, which is nothing until somebody
/// gives it some: the kernel would answer a bare EINVAL.
fn real_time_budget(place: &Place, runtime: i64) -> Result<(), Error> {
    let Some(parent) = place.dir.parent() else {
        return Ok(());
    };
    let path = parent.join("cpu.rt_runtime_us");
    match file::read_optional(&path)?.as_deref() {
        Some("0") if runtime != 0 => Err(Error::Limit {
            name: "cpu rt runtime",
            value: runtime.to_string(),
            reason: format!(
                "the cpu controller has no real-time budget to give: {} is 0, raise it there and above",
                path.display()
            ),
        }),
        _ => Ok(()),
    }
}

/// From the top down, since each parent's comes out of its own parent's; then the cgroup's own,
/// which may have to wait. What counts is the share of the time, whatever the periods.
pub(crate) fn lend_real_time(mount: &Path, dir: &Path, limits: &CpuLimits) {
    let Some(runtime) = limits.rt_runtime.filter(|runtime| *runtime > 0) else {
        return;
    };
    let number = |dir: &Path, name| file::read_u64(&dir.join(name)).unwrap_or(0);
    let period_of = |dir: &Path| number(dir, "cpu.rt_period_us").max(1);
    let own = (
        runtime.unsigned_abs(),
        limits.rt_period.unwrap_or_else(|| period_of(dir)).max(1),
    );
    let mut chain: Vec<&Path> = dir.ancestors().take_while(|one| *one != mount).collect();
    chain.reverse();
    for pair in chain.windows(2) {
        let &[parent, child] = pair else { continue };
        let period = period_of(parent);
        let taken = |(runtime, of): (u64, u64)| runtime.saturating_mul(period).div_ceil(of);
        let siblings = children(parent).unwrap_or_default();
        let others = siblings.iter().filter(|sibling| *sibling != child);
        let others = others.map(|one| taken((number(one, "cpu.rt_runtime_us"), period_of(one))));
        let sum = others.sum::<u64>() + taken(own);
        if number(parent, "cpu.rt_runtime_us") < sum {
            drop(file::write(
                &parent.join("cpu.rt_runtime_us"),
                &sum.to_string(),
            ));
        }
    }
    // What a removed sibling had is free again only after a grace period of the kernel's. Whether
    // it is at last, the limit's own write says.
    let wait = Instant::now() + RT_WAIT;
    let path = dir.join("cpu.rt_runtime_us");
    while let Err(Error::Write { source, .. }) = file::write(&path, &runtime.to_string()) {
        if source.raw_os_error() != Some(Errno::EINVAL as i32) || Instant::now() > wait {
            return;
        }
        thread::sleep(RT_WAIT / 50);
    }
}

const RT_WAIT: Duration = Duration::from_millis(500);

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
pub(crate) fn stats_v2(files: &Readable, stats: &mut Stats) -> Result<(), Error> {
    let Some(text) = files.text("cpu.stat")? else {
        return Ok(());
    };
    stats.totals.cpu_usage_usec = file::flat_key(&text, "usage_usec");
    stats.totals.cpu_user_usec = file::flat_key(&text, "user_usec");
    stats.totals.cpu_system_usec = file::flat_key(&text, "system_usec");
    stats.totals.cpu_periods = file::flat_key(&text, "nr_periods");
    stats.totals.cpu_throttled_periods = file::flat_key(&text, "nr_throttled");
    stats.totals.cpu_throttled_usec = file::flat_key(&text, "throttled_usec");
    if let Some(text) = files.text("cpu.max")? {
        let mut words = text.split(' ').map(str::parse);
        stats.cpu_quota_usec = words.next().and_then(Result::ok);
        stats.cpu_period_usec = words.next().and_then(Result::ok);
    }
    Ok(())
}

pub(crate) fn usage_v1(files: &Readable) -> Result<Option<u64>, Error> {
    let nanos = files.number("cpuacct.usage")?;
    Ok(nanos.map(|nanos| nanos / 1000))
}

pub(crate) fn usage_v2(files: &Readable) -> Result<Option<u64>, Error> {
    let text = files.text("cpu.stat")?;
    Ok(text.and_then(|text| file::flat_key(&text, "usage_usec")))
}

/// v1's `cpuacct` counts nanoseconds.
pub(crate) fn stats_cpuacct(files: &Readable, stats: &mut Stats) -> Result<(), Error> {
    let usec = |name: &str| -> Result<Option<u64>, Error> {
        Ok(files.number(name)?.map(|nanos| nanos / 1000))
    };
    stats.totals.cpu_usage_usec = usec("cpuacct.usage")?;
    stats.totals.cpu_user_usec = usec("cpuacct.usage_user")?;
    stats.totals.cpu_system_usec = usec("cpuacct.usage_sys")?;
    Ok(())
}

/// v1's `cpu.stat` has throttling only, its time in nanoseconds.
pub(crate) fn stats_v1(files: &Readable, stats: &mut Stats) -> Result<(), Error> {
    let Some(text) = files.text("cpu.stat")? else {
        return Ok(());
    };
    stats.totals.cpu_periods = file::flat_key(&text, "nr_periods");
    stats.totals.cpu_throttled_periods = file::flat_key(&text, "nr_throttled");
    stats.totals.cpu_throttled_usec =
        file::flat_key(&text, "throttled_time").map(|nanos| nanos / 1000);
    // -1 is none.
    let quota = files.text("cpu.cfs_quota_us")?;
    stats.cpu_quota_usec = quota.and_then(|text| text.parse().ok());
    stats.cpu_period_usec = files.number("cpu.cfs_period_us")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::execute, fixture::Dir};

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

    fn place(dir: &Dir, version: Version) -> Place {
        Place {
            dir: dir.path().to_owned(),
            version,
        }
    }

    fn write(dir: &Dir, version: Version, limits: &CpuLimits) {
        let _ = execute(plan(&place(dir, version), limits).unwrap()).unwrap();
    }

    #[test]
    fn quota_goes_to_one_file_on_v2_and_two_on_v1() {
        let dir = Dir::new();
        let limits = CpuLimits {
            quota: Some(50_000),
            period: Some(100_000),
            ..CpuLimits::default()
        };
        dir.file("cpu.max", "max 200000\n");
        write(&dir, Version::V2, &limits);
        assert_eq!(dir.read("cpu.max"), "50000 100000");
        let quota = CpuLimits {
            quota: Some(-1),
            ..CpuLimits::default()
        };
        write(&dir, Version::V2, &quota);
        assert_eq!(dir.read("cpu.max"), "max 100000");
        dir.file("cpu.cfs_quota_us", "-1\n");
        dir.file("cpu.cfs_period_us", "200000\n");
        write(&dir, Version::V1, &limits);
        assert_eq!(dir.read("cpu.cfs_quota_us"), "50000");
        assert_eq!(dir.read("cpu.cfs_period_us"), "100000");
    }

    #[test]
    fn parents_get_what_their_children_take_together() {
        let dir = Dir::new();
        for (at, runtime) in [
            ("", "950000"),
            ("own/", "100"),
            ("own/one/", "700"),
            ("own/other/", "0"),
        ] {
            dir.file(&format!("{at}cpu.rt_runtime_us"), runtime);
            dir.file(&format!("{at}cpu.rt_period_us"), "1000000\n");
        }
        let lend = |runtime, period| {
            let limits = CpuLimits {
                rt_runtime: Some(runtime),
                rt_period: period,
                ..CpuLimits::default()
            };
            lend_real_time(dir.path(), &dir.path().join("own/other"), &limits);
            dir.read("own/cpu.rt_runtime_us")
        };
        assert_eq!(lend(-1, None), "100");
        assert_eq!(lend(1000, None), "1700");
        assert_eq!(lend(1000, Some(100_000)), "10700");
        assert_eq!(dir.read("own/other/cpu.rt_runtime_us"), "1000");
        assert_eq!(dir.read("own/one/cpu.rt_runtime_us"), "700");
        assert_eq!(dir.read("cpu.rt_runtime_us"), "950000");
    }

    #[test]
    fn what_a_version_or_kernel_lacks_is_told() {
        let dir = Dir::new();
        let told = |version, limits: CpuLimits| {
            plan(&place(&dir, version), &limits)
                .unwrap_err()
                .to_string()
        };
        let runtime = CpuLimits {
            rt_runtime: Some(1000),
            ..CpuLimits::default()
        };
        assert_eq!(
            told(Version::V2, runtime),
            "cpu rt runtime: the cpu controller (cgroup v2) has no such limit, cgroup v1 has"
        );
        let burst = CpuLimits {
            burst: Some(1000),
            ..CpuLimits::default()
        };
        assert_eq!(
            told(Version::V1, burst),
            "cpu burst: the cpu controller (cgroup v1) has no cpu.cfs_burst_us on this kernel"
        );
    }

    #[test]
    fn shares_out_of_bounds_are_refused_before_the_kernel_clamps_them() {
        let dir = Dir::new();
        dir.file("cpu.shares", "1024\n");
        for shares in [1, 262_145] {
            let limits = CpuLimits {
                shares: Some(shares),
                ..CpuLimits::default()
            };
            assert!(plan(&place(&dir, Version::V1), &limits).is_err());
        }
    }

    #[test]
    fn v1_times_become_microseconds() {
        let dir = Dir::new();
        dir.file("cpuacct.usage", "5000123\n");
        dir.file(
            "cpu.stat",
            "nr_periods 9\nnr_throttled 4\nthrottled_time 7000000\n",
        );
        let files = Readable::open(dir.path().to_owned(), Version::V1).unwrap();
        let mut stats = Stats::default();
        stats_cpuacct(&files, &mut stats).unwrap();
        stats_v1(&files, &mut stats).unwrap();
        assert_eq!(stats.totals.cpu_usage_usec, Some(5000));
        assert_eq!(stats.totals.cpu_user_usec, None);
        assert_eq!(stats.totals.cpu_throttled_periods, Some(4));
        assert_eq!(stats.totals.cpu_throttled_usec, Some(7000));
    }
}
