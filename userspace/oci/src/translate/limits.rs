//! `linux.resources`: limits, and which devices may be used.

use oci_spec::runtime::{Linux, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};
use paddock_cgroups::{CpuQuota, Limits};

use crate::error::Error;

/// One line of `devices.allow` or `devices.deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRule {
    pub allow: bool,
    /// `a`, `b` or `c`.
    pub kind: char,
    /// `None`: all.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Of `rwm`.
    pub access: String,
}

pub(crate) fn limits(resources: &LinuxResources) -> Result<Limits, Error> {
    let refuse = |name: &str| Err(Error::config(format!("linux.resources.{name} is not supported")));
    let mut limits = Limits::default();
    if let Some(memory) = resources.memory() {
        limits.memory = memory.limit().and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
        limits.memory_swap = memory.swap().filter(|swap| *swap != 0);
        if memory.reservation().is_some_and(|value| value > 0) {
            return refuse("memory.reservation");
        }
        if memory.swappiness().is_some() {
            return refuse("memory.swappiness");
        }
        if memory.disable_oom_killer() == Some(true) {
            return refuse("memory.disableOOMKiller");
        }
    }
    if let Some(cpu) = resources.cpu() {
        limits.cpu_shares = cpu.shares().filter(|shares| *shares > 0);
        if let Some(quota) = cpu.quota().and_then(|quota| u64::try_from(quota).ok()).filter(|quota| *quota > 0) {
            limits.cpu_quota = Some(CpuQuota {
                quota,
                period: cpu.period().filter(|period| *period > 0).unwrap_or(100_000),
            });
        }
        limits.cpuset_cpus = cpu.cpus().clone().filter(|list| !list.is_empty());
        if cpu.mems().as_deref().is_some_and(|list| !list.is_empty()) {
            return refuse("cpu.mems");
        }
        if cpu.burst().is_some_and(|value| value > 0) || cpu.idle().is_some_and(|value| value != 0) {
            return refuse("cpu.burst and cpu.idle");
        }
        if cpu.realtime_runtime().is_some_and(|value| value != 0) || cpu.realtime_period().is_some_and(|value| value != 0) {
            return refuse("cpu.realtimeRuntime");
        }
    }
    if let Some(pids) = resources.pids() {
        limits.pids = (pids.limit() != 0).then_some(pids.limit().max(-1));
    }
    if resources.block_io().is_some() {
        return refuse("blockIO");
    }
    if resources.hugepage_limits().as_ref().is_some_and(|all| !all.is_empty()) {
        return refuse("hugepageLimits");
    }
    if resources.rdma().as_ref().is_some_and(|all| !all.is_empty()) {
        return refuse("rdma");
    }
    if resources.unified().as_ref().is_some_and(|all| !all.is_empty()) {
        return refuse("unified");
    }
    Ok(limits)
}

/// The bundle's rules, then what the specification promises to every container: its default
/// devices and the nodes of its own list.
pub(crate) fn device_rules(linux: &Linux) -> Result<Vec<DeviceRule>, Error> {
    let mut rules = Vec::new();
    let wanted = linux.resources().as_ref().and_then(|all| all.devices().as_ref());
    for rule in wanted.into_iter().flatten() {
        rules.push(device_rule(rule)?);
    }
    if rules.is_empty() {
        return Ok(rules);
    }
    let node = |kind, major, minor| DeviceRule {
        allow: true,
        kind,
        major: Some(major),
        minor,
        access: "rwm".to_owned(),
    };
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(node('c', major, Some(minor)));
    }
    // Terminals of devpts.
    rules.push(node('c', 136, None));
    Ok(rules)
}

fn device_rule(rule: &LinuxDeviceCgroup) -> Result<DeviceRule, Error> {
    let wrong = |why: &str| Error::config(format!("linux.resources.devices {rule}: {why}"));
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| wrong("major and minor must be numbers of 32 bits")),
    };
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => 'a',
        LinuxDeviceType::B => 'b',
        LinuxDeviceType::C | LinuxDeviceType::U => 'c',
        LinuxDeviceType::P => return Err(wrong("a pipe is no device")),
    };
    let access = rule.access().clone().unwrap_or_default();
    if !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(wrong("access is made of r, w and m"));
    }
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major: number(rule.major())?,
        minor: number(rule.minor())?,
        access: if access.is_empty() { "rwm".to_owned() } else { access },
    })
}

impl DeviceRule {
    /// As v1's files take it.
    pub(crate) fn line(&self) -> String {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
        if self.kind == 'a' {
            return "a".to_owned();
        }
        format!(
            "{} {}:{} {}",
            self.kind,
            number(self.major),
            number(self.minor),
            self.access
        )
    }
}
