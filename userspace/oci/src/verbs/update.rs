//! `update`: other limits for a container that runs.

use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use crate::{
    args::Update,
    config::{self, shorten},
    container::{Container, Status},
    error::Error,
    translate,
};

pub(super) fn verb(root: &Path, wanted: &Update) -> Result<(), Error> {
    let container = Container::open(root, &wanted.id)?;
    container.record.check_cgroup("update")?;
    let status = container.status();
    if matches!(status, Status::Stopped | Status::Creating) {
        return Err(Error::Status {
            verb: "update",
            id: wanted.id.clone(),
            status: status.word(),
        });
    }
    let resources = resources(wanted)?;
    if resources
        .devices()
        .as_ref()
        .is_some_and(|rules| !rules.is_empty())
    {
        return Err(Error::usage("update: rules for devices are not changed"));
    }
    let cgroup = container.record.needed_cgroup("update")?;
    cgroup.apply(&translate::limits_of(&resources)?)?;
    Ok(())
}

fn resources(wanted: &Update) -> Result<oci::LinuxResources, Error> {
    if let Some(path) = &wanted.resources {
        let path = if path.as_os_str() == "-" {
            PathBuf::from("/dev/stdin")
        } else {
            path.clone()
        };
        return Ok(config::read(&path)?.0);
    }
    let mut resources = oci::LinuxResources::default();
    let mut memory = oci::LinuxMemory::default();
    memory.set_limit(bytes(wanted.memory.as_deref())?);
    memory.set_swap(bytes(wanted.memory_swap.as_deref())?);
    memory.set_reservation(bytes(wanted.memory_reservation.as_deref())?);
    resources.set_memory(Some(memory));
    let mut cpu = oci::LinuxCpu::default();
    cpu.set_shares(wanted.cpu_share);
    cpu.set_quota(wanted.cpu_quota);
    cpu.set_period(wanted.cpu_period);
    cpu.set_burst(wanted.cpu_burst);
    cpu.set_idle(wanted.cpu_idle);
    cpu.set_cpus(wanted.cpuset_cpus.clone());
    cpu.set_mems(wanted.cpuset_mems.clone());
    resources.set_cpu(Some(cpu));
    if let Some(limit) = wanted.pids_limit {
        let mut pids = oci::LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if let Some(weight) = wanted.blkio_weight {
        let mut io = oci::LinuxBlockIo::default();
        io.set_weight(Some(weight));
        resources.set_block_io(Some(io));
    }
    Ok(resources)
}

/// With k, m, g or t of 1024; -1 is no limit.
fn bytes(text: Option<&str>) -> Result<Option<i64>, Error> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || {
        Error::usage(format!(
            "{:?}: bytes are needed, as a number with or without k, m, g",
            shorten(text)
        ))
    };
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, unit) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        Some(b't') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    digits
        .parse::<i64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << unit))
        .filter(|number| *number >= -1)
        .map(Some)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(bytes(Some("64m")).unwrap(), Some(64 << 20));
        assert_eq!(bytes(Some("-1")).unwrap(), Some(-1));
        assert_eq!(bytes(Some("1Gb")).unwrap(), Some(1 << 30));
        for text in ["", "m", "1x", "-2", "9999999999g", "1.5m"] {
            assert!(bytes(Some(text)).is_err(), "{text}");
        }
    }
}
