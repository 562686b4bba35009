//! Which devices a container may use: v1's `devices.deny` and `devices.allow`.

use std::{fs, path::PathBuf};

use paddock_cgroups::Cgroup;

use crate::{error::Error, translate::DeviceRule};

/// In the bundle's order; without rules everything stays as the parent has it.
pub(super) fn restrict(cgroup: &Cgroup, rules: &[DeviceRule]) -> Result<(), Error> {
    if rules.is_empty() {
        return Ok(());
    }
    let Some(directory) = v1_directory(cgroup) else {
        return Err(Error::config(
            "linux.resources.devices: no mounted cgroup hierarchy has v1's devices controller",
        ));
    };
    for rule in rules {
        let file = directory.join(if rule.allow {
            "devices.allow"
        } else {
            "devices.deny"
        });
        fs::write(&file, rule.line()).map_err(Error::io("write", &file))?;
    }
    Ok(())
}

fn v1_directory(cgroup: &Cgroup) -> Option<PathBuf> {
    cgroup
        .v1_dirs()
        .into_iter()
        .find(|directory| directory.join("devices.allow").exists())
}
