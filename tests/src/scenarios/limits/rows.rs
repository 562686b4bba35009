//! The flags with one value: their files in both versions, and what is to be read there.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::flags::{first_line, refused};
use crate::context::{Context, cgroup_file, pure_v2};

/// One flag: its files, and value and text at `run`, then at `update`.
pub(super) struct Row {
    pub(super) flag: &'static str,
    /// As errors call it.
    limit: &'static str,
    /// Controller and file.
    v1: Option<(&'static str, &'static str)>,
    v2: Option<&'static str>,
    /// Value, text in v1, text in v2.
    pub(super) run: (&'static str, &'static str, &'static str),
    pub(super) update: (&'static str, &'static str, &'static str),
}

pub(super) const ROWS: &[Row] = &[
    Row {
        flag: "--memory",
        limit: "memory",
        v1: Some(("memory", "memory.limit_in_bytes")),
        v2: Some("memory.max"),
        run: ("256m", "268435456", "268435456"),
        update: ("300m", "314572800", "314572800"),
    },
    Row {
        flag: "--memory-swap",
        limit: "memory swap",
        v1: Some(("memory", "memory.memsw.limit_in_bytes")),
        v2: Some("memory.swap.max"),
        run: ("512m", "536870912", "268435456"),
        update: ("400m", "419430400", "104857600"),
    },
    Row {
        flag: "--memory-reservation",
        limit: "memory reservation",
        v1: Some(("memory", "memory.soft_limit_in_bytes")),
        v2: Some("memory.low"),
        run: ("64m", "67108864", "67108864"),
        update: ("32m", "33554432", "33554432"),
    },
    Row {
        flag: "--memory-high",
        limit: "memory high",
        v1: None,
        v2: Some("memory.high"),
        run: ("200m", "", "209715200"),
        update: ("-1", "", "max"),
    },
    Row {
        flag: "--memory-min",
        limit: "memory min",
        v1: None,
        v2: Some("memory.min"),
        run: ("8m", "", "8388608"),
        update: ("0", "", "0"),
    },
    Row {
        flag: "--memory-swappiness",
        limit: "memory swappiness",
        v1: Some(("memory", "memory.swappiness")),
        v2: None,
        run: ("10", "10", ""),
        update: ("20", "20", ""),
    },
    Row {
        flag: "--oom-group",
        limit: "oom group",
        v1: None,
        v2: Some("memory.oom.group"),
        run: ("true", "", "1"),
        update: ("false", "", "0"),
    },
    Row {
        flag: "--oom-kill-disable",
        limit: "oom kill disable",
        v1: Some(("memory", "memory.oom_control")),
        v2: None,
        run: ("true", "oom_kill_disable 1", ""),
        update: ("false", "oom_kill_disable 0", ""),
    },
    Row {
        flag: "--cpu-period",
        limit: "cpu period",
        v1: Some(("cpu", "cpu.cfs_period_us")),
        v2: Some("cpu.max"),
        run: ("50000", "50000", "30000 50000"),
        update: ("60000", "60000", "30000 60000"),
    },
    Row {
        flag: "--cpu-quota",
        limit: "cpu quota",
        v1: Some(("cpu", "cpu.cfs_quota_us")),
        v2: Some("cpu.max"),
        run: ("30000", "30000", "30000 50000"),
        update: ("40000", "40000", "40000 60000"),
    },
    Row {
        flag: "--cpu-burst",
        limit: "cpu burst",
        v1: Some(("cpu", "cpu.cfs_burst_us")),
        v2: Some("cpu.max.burst"),
        run: ("10000", "10000", "10000"),
        update: ("20000", "20000", "20000"),
    },
    Row {
        flag: "--cpu-shares",
        limit: "cpu shares",
        v1: Some(("cpu", "cpu.shares")),
        v2: Some("cpu.weight"),
        // 10^((l² + 125 l) / 612 - 7 / 34), l being 9 and 11, rounded up.
        run: ("512", "512", "59"),
        update: ("2048", "2048", "174"),
    },
    Row {
        flag: "--cpuset-cpus",
        limit: "cpuset cpus",
        v1: Some(("cpuset", "cpuset.cpus")),
        v2: Some("cpuset.cpus"),
        run: ("0", "0", "0"),
        update: ("0", "0", "0"),
    },
    Row {
        flag: "--cpuset-mems",
        limit: "cpuset mems",
        v1: Some(("cpuset", "cpuset.mems")),
        v2: Some("cpuset.mems"),
        run: ("0", "0", "0"),
        update: ("0", "0", "0"),
    },
    Row {
        flag: "--blkio-weight",
        limit: "blkio weight",
        v1: Some(("blkio", "blkio.bfq.weight")),
        v2: Some("io.weight"),
        run: ("500", "500", "default 4950"),
        update: ("600", "600", "default 5960"),
    },
    Row {
        flag: "--pids-limit",
        limit: "pids",
        v1: Some(("pids", "pids.max")),
        v2: Some("pids.max"),
        run: ("23", "23", "23"),
        update: ("0", "max", "max"),
    },
];

impl Row {
    /// The file below a cgroup; `None` where this host's version of cgroups has no such limit.
    pub(super) fn file(&self, cgroup: &str) -> Option<PathBuf> {
        if pure_v2() {
            self.v2.map(|file| cgroup_file(cgroup, file, ("", "")))
        } else {
            self.v1.map(|file| cgroup_file(cgroup, "", file))
        }
    }

    /// The version of cgroups has it and this kernel not yet: cpu.max.burst before 5.14.
    pub(super) fn is_too_new(&self, cgroup: &str) -> bool {
        self.file(cgroup).is_some_and(|file| !file.exists())
    }

    pub(super) fn check(&self, cgroup: &str, want: (&str, &str, &str)) -> Result<()> {
        let path = self.file(cgroup).context("no file")?;
        let want = if pure_v2() { want.2 } else { want.1 };
        let saw = first_line(&path)?;
        ensure!(
            saw == want,
            "{} {}: {}: {saw}",
            self.flag,
            want,
            path.display()
        );
        Ok(())
    }

    /// `run` with it fails, in exactly these words.
    pub(super) fn is_refused(&self, context: &Context) -> Result<()> {
        if let Some(file) = self.file("") {
            let file = file.file_name().unwrap_or_default().to_string_lossy();
            let own = if pure_v2() { "v2" } else { "v1" };
            let want = format!(
                "paddock: {}: the cpu controller (cgroup {own}) has no {file} on this kernel",
                self.limit
            );
            return refused(context, &format!("{}={}", self.flag, self.run.0), &want);
        }
        let (own, other) = if pure_v2() {
            ("v2", "v1")
        } else {
            ("v1", "v2")
        };
        let controller = self.limit.split(' ').next().unwrap_or_default();
        let controller = if controller == "oom" {
            "memory"
        } else {
            controller
        };
        let want = format!(
            "paddock: {}: the {controller} controller (cgroup {own}) has no such limit, cgroup {other} has",
            self.limit
        );
        refused(context, &format!("{}={}", self.flag, self.run.0), &want)
    }
}
