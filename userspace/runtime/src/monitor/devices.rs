//! Which devices the container may use: in force before anybody is in its cgroup.
#![forbid(unsafe_code)]

use std::os::fd::AsFd as _;

use paddock_cgroups::{Cgroup, DeviceRule, device_program};

use super::launch::cgroup_failure;
use crate::{plan::Failure, sys::bpf};

/// By v1's files, else by a program on the v2 cgroup; without rules there is no limit.
pub(crate) fn limit(rules: &[DeviceRule], cgroup: &Cgroup) -> Result<(), Failure> {
    if rules.is_empty() {
        return Ok(());
    }
    let directory = cgroup
        .limit_devices(rules)
        .map_err(|error| cgroup_failure(&error))?;
    match directory {
        Some(directory) => bpf::limit_devices(directory.as_fd(), &device_program(rules))
            .map_err(|errno| Failure::without_path("device rules", errno)),
        None => Ok(()),
    }
}
