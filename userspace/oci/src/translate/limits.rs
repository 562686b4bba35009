//! `linux.resources`: limits, and which devices may be used.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
    LinuxThrottleDevice,
};
use paddock_cgroups::{
    CpuLimits, CpusetLimits, Device, DeviceAccess, DeviceKind, DeviceRule, IoLimits, Limits,
    MemoryLimits, RdmaLimit,
};

use crate::error::Error;

pub(crate) fn limits(linux: &Linux) -> Result<Limits, Error> {
    let resources = linux.resources().as_ref();
    resources.map_or_else(|| Ok(Limits::default()), limits_of)
}

pub(crate) fn limits_of(resources: &LinuxResources) -> Result<Limits, Error> {
    let network = resources.network().as_ref();
    if network.is_some_and(|net| net.class_id().is_some() || net.priorities().is_some()) {
        return Err(Error::config("linux.resources.network is not supported"));
    }
    let cpu = resources.cpu().as_ref();
    let list = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
    Ok(Limits {
        memory: resources.memory().as_ref().map(memory).unwrap_or_default(),
        cpu: cpu.map(cpu_limits).unwrap_or_default(),
        cpuset: CpusetLimits {
            cpus: cpu.and_then(|cpu| list(cpu.cpus())),
            mems: cpu.and_then(|cpu| list(cpu.mems())),
        },
        io: resources
            .block_io()
            .as_ref()
            .map_or_else(|| Ok(IoLimits::default()), io)?,
        // As runc up to 1.3: 0 is no limit.
        pids: resources
            .pids()
            .map(|pids| pids.limit().max(-1))
            .filter(|limit| *limit != 0),
        hugetlb: resources
            .hugepage_limits()
            .iter()
            .flatten()
            .map(|limit| {
                let size = limit.page_size().clone();
                let bytes = u64::try_from(limit.limit()).map_err(|_| {
                    Error::config(format!(
                        "linux.resources.hugepageLimits {size}: must not be below 0"
                    ))
                })?;
                Ok((size, bytes))
            })
            .collect::<Result<_, Error>>()?,
        rdma: resources
            .rdma()
            .iter()
            .flatten()
            .map(|(device, limit)| {
                let limit = RdmaLimit {
                    hca_handles: limit.hca_handles(),
                    hca_objects: limit.hca_objects(),
                };
                (device.clone(), limit)
            })
            .collect(),
        misc: BTreeMap::new(),
        unified: resources
            .unified()
            .iter()
            .flatten()
            .map(|(file, value)| (file.clone(), value.clone()))
            .collect(),
    })
}

/// A 0 is Go's way to say that nothing was said.
fn memory(memory: &LinuxMemory) -> MemoryLimits {
    let said = |value: Option<i64>| value.filter(|value| *value != 0);
    MemoryLimits {
        limit: said(memory.limit()),
        swap: said(memory.swap()),
        reservation: said(memory.reservation()),
        swappiness: memory.swappiness(),
        oom_kill_disable: memory.disable_oom_killer().filter(|disabled| *disabled),
        ..MemoryLimits::default()
    }
}

fn cpu_limits(cpu: &LinuxCpu) -> CpuLimits {
    CpuLimits {
        shares: cpu.shares().filter(|shares| *shares > 0),
        quota: cpu.quota().filter(|quota| *quota != 0),
        period: cpu.period().filter(|period| *period > 0),
        burst: cpu.burst(),
        idle: cpu.idle().map(|idle| idle != 0),
        rt_runtime: cpu.realtime_runtime().filter(|runtime| *runtime != 0),
        rt_period: cpu.realtime_period().filter(|period| *period > 0),
    }
}

fn io(io: &LinuxBlockIo) -> Result<IoLimits, Error> {
    let leaf = io.leaf_weight().is_some_and(|weight| weight > 0);
    let weights = io.weight_device().iter().flatten();
    if leaf
        || weights
            .clone()
            .any(|one| one.leaf_weight().is_some_and(|weight| weight > 0))
    {
        return Err(Error::config(
            "linux.resources.blockIO.leafWeight: no kernel since 5.0 has it",
        ));
    }
    let device = |major: i64, minor: i64| match (u64::try_from(major), u64::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(Device { major, minor }),
        _ => Err(Error::config(format!(
            "linux.resources.blockIO {major}:{minor}: is no device"
        ))),
    };
    let rates = |rates: &Option<Vec<LinuxThrottleDevice>>| {
        let rate = |one: &LinuxThrottleDevice| Ok((device(one.major(), one.minor())?, one.rate()));
        rates
            .iter()
            .flatten()
            .map(rate)
            .collect::<Result<BTreeMap<_, _>, Error>>()
    };
    Ok(IoLimits {
        weight: io.weight().filter(|weight| *weight > 0).map(u64::from),
        device_weight: weights
            .filter_map(|one| Some((one, one.weight()?)))
            .map(|(one, weight)| Ok((device(one.major(), one.minor())?, weight.into())))
            .collect::<Result<_, Error>>()?,
        read_bps: rates(io.throttle_read_bps_device())?,
        write_bps: rates(io.throttle_write_bps_device())?,
        read_iops: rates(io.throttle_read_iops_device())?,
        write_iops: rates(io.throttle_write_iops_device())?,
    })
}

/// The bundle's rules, then what the specification promises to every container: its default
/// devices and the nodes of its own list.
pub(crate) fn device_rules(linux: &Linux) -> Result<Vec<DeviceRule>, Error> {
    let mut rules = Vec::new();
    let wanted = linux
        .resources()
        .as_ref()
        .and_then(|all| all.devices().as_ref());
    for rule in wanted.into_iter().flatten() {
        rules.push(device_rule(rule)?);
    }
    if rules.is_empty() {
        return Ok(rules);
    }
    let node = |major, minor| DeviceRule {
        allow: true,
        kind: DeviceKind::Character,
        major: Some(major),
        minor,
        access: DeviceAccess::ALL,
    };
    for (major, minor) in [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ] {
        rules.push(node(major, Some(minor)));
    }
    // Terminals of devpts.
    rules.push(node(136, None));
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
        LinuxDeviceType::A => DeviceKind::All,
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Character,
        LinuxDeviceType::P => return Err(wrong("a pipe is no device")),
    };
    let access = match rule.access().as_deref() {
        None | Some("") => DeviceAccess::ALL,
        Some(text) => DeviceAccess::parse(text)
            .ok_or_else(|| wrong("access is made of r, w and m, each once"))?,
    };
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major: number(rule.major())?,
        minor: number(rule.minor())?,
        access,
    })
}
