//! `events`: a container's use of resources, in runc's JSON.

use std::{path::Path, thread::sleep, time::Duration};

use paddock_cgroups::Stats;
use serde_json::{Value, json};

use super::line;
use crate::{
    args::Events,
    config::shorten,
    container::{self, Status},
    error::Error,
};

pub(super) fn verb(root: &Path, wanted: &Events) -> Result<(), Error> {
    let interval = humantime::parse_duration(&wanted.interval)
        .ok()
        .filter(|interval| *interval > Duration::ZERO)
        .ok_or_else(|| {
            Error::usage(format!(
                "--interval {:?}: a time such as 5s",
                shorten(&wanted.interval)
            ))
        })?;
    loop {
        let (record, status) = match container::peek(root, &wanted.id) {
            // It was there when this began.
            Err(Error::NotFound { .. }) if !wanted.stats => return Ok(()),
            other => other?,
        };
        if status == Status::Stopped {
            return Err(Error::Status {
                verb: "read events of",
                id: wanted.id.clone(),
                status: status.word(),
            });
        }
        let cgroup = record.needed_cgroup("read events of")?;
        let data = data(&cgroup.stats()?);
        line(&json!({"type": "stats", "id": wanted.id, "data": data}).to_string())?;
        if wanted.stats {
            return Ok(());
        }
        sleep(interval);
        if container::peek(root, &wanted.id).is_ok_and(|(_, status)| status == Status::Stopped) {
            return Ok(());
        }
    }
}

fn data(stats: &Stats) -> Value {
    let nanoseconds = |usec: Option<u64>| usec.unwrap_or(0).saturating_mul(1000);
    json!({
        "cpu": {
            "usage": {
                "total": nanoseconds(stats.totals.cpu_usage_usec),
                "kernel": nanoseconds(stats.totals.cpu_system_usec),
                "user": nanoseconds(stats.totals.cpu_user_usec),
            },
            "throttling": {
                "periods": stats.totals.cpu_periods.unwrap_or(0),
                "throttledPeriods": stats.totals.cpu_throttled_periods.unwrap_or(0),
                "throttledTime": nanoseconds(stats.totals.cpu_throttled_usec),
            },
        },
        "memory": {
            "usage": {
                "limit": stats.memory_limit_bytes.unwrap_or(u64::MAX),
                "usage": stats.memory_usage_bytes.unwrap_or(0),
                "max": stats.memory_peak_bytes.unwrap_or(0),
            },
        },
        "pids": {
            "current": stats.pids_current.unwrap_or(0),
            "limit": stats.pids_limit.unwrap_or(0),
        },
    })
}
