//! `--device`: a node like the host's, and the rule that lets it be used.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Component, Path},
};

use nix::sys::stat::{major, minor};
use paddock_cgroups::{DeviceAccess, DeviceKind, DeviceRule};
use paddock_runtime::{defaults, spec::Device};

use super::{Error, request::reason};
use crate::api::{CreateRequest, HostDevice};

/// Nodes to make, and every rule of the container.
pub(super) fn devices(request: &CreateRequest) -> Result<(Vec<Device>, Vec<DeviceRule>), Error> {
    let mut rules = defaults::device_rules();
    let mut nodes = Vec::new();
    if request.privileged {
        // No rule at all is no limit.
        rules.clear();
        below("", &mut nodes);
    }
    for device in &request.devices {
        let (node, rule) = one(device)?;
        nodes.push(node);
        if !request.privileged {
            rules.push(rule);
        }
    }
    if !request.privileged {
        rules.extend(&request.device_rules);
    }
    Ok((nodes, rules))
}

/// Numbers of the block devices that were asked for by name; one that has gone is none.
pub(super) fn blocks(request: &CreateRequest) -> Vec<(u32, u32)> {
    let nodes = request.devices.iter().filter_map(|device| one(device).ok());
    nodes
        .filter(|(node, _)| node.kind == 'b')
        .map(|(node, _)| (node.major, node.minor))
        .collect()
}

/// A privileged container's: every node below the host's /dev but those that a container has of
/// its own. One that vanishes meanwhile is none.
fn below(directory: &str, nodes: &mut Vec<Device>) {
    const OWN: [&str; 5] = ["console", "mqueue", "ptmx", "pts", "shm"];
    let entries = fs::read_dir(Path::new("/dev").join(directory));
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        if directory.is_empty() && OWN.iter().any(|own| name == *own) {
            continue;
        }
        let Some(name) = name.to_str() else { continue };
        let path = if directory.is_empty() {
            name.to_owned()
        } else {
            format!("{directory}/{name}")
        };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&path, nodes);
            continue;
        }
        // Not through a link: what it means is there itself.
        if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
            let source = entry.path();
            let device = HostDevice {
                target: source.clone(),
                source,
                access: DeviceAccess::ALL,
            };
            nodes.extend(one(&device).map(|(node, _)| node));
        }
    }
}

fn one(device: &HostDevice) -> Result<(Device, DeviceRule), Error> {
    let source = device.source.display();
    let wrong = |what: &str| Error::invalid(format!("device {source}: {what}"));
    let found = fs::metadata(&device.source).map_err(|error| wrong(&reason(&error)))?;
    let (letter, kind) = if found.file_type().is_char_device() {
        ('c', DeviceKind::Character)
    } else if found.file_type().is_block_device() {
        ('b', DeviceKind::Block)
    } else {
        return Err(wrong("not a device node"));
    };
    if !is_below_dev(&device.target) {
        let target = device.target.display();
        return Err(wrong(&format!(
            "target {target}: expected a path below /dev"
        )));
    }
    let number = |part: u64| u32::try_from(part).map_err(|_| wrong("its number is too large"));
    let (major, minor) = (number(major(found.rdev()))?, number(minor(found.rdev()))?);
    let node = Device {
        path: device.target.clone(),
        kind: letter,
        major,
        minor,
        mode: found.mode() & 0o777,
        uid: found.uid(),
        gid: found.gid(),
    };
    let rule = DeviceRule {
        access: device.access,
        ..DeviceRule::allow(kind, major, Some(minor))
    };
    Ok((node, rule))
}

fn is_below_dev(path: &Path) -> bool {
    path.strip_prefix("/dev").is_ok_and(|below| {
        let mut parts = below.components();
        !below.as_os_str().is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::request::tests::request;

    fn with(source: &str, target: &str) -> Result<(Vec<Device>, Vec<DeviceRule>), Error> {
        let device = HostDevice {
            source: source.into(),
            target: target.into(),
            access: DeviceAccess::ALL,
        };
        devices(&CreateRequest {
            devices: vec![device],
            ..request()
        })
    }

    #[test]
    fn a_device_is_a_node_and_a_rule() {
        let (nodes, rules) = with("/dev/null", "/dev/net/nothing").unwrap();
        let node = &nodes[0];
        assert_eq!((node.kind, node.major, node.minor), ('c', 1, 3));
        let rule = DeviceRule::allow(DeviceKind::Character, 1, Some(3));
        assert_eq!(rules.last(), Some(&rule));
        assert_eq!(rules.first(), Some(&DeviceRule::DENY_ALL));
    }

    #[test]
    fn a_privileged_container_has_them_all() {
        let all = CreateRequest {
            privileged: true,
            ..request()
        };
        let (nodes, rules) = devices(&all).unwrap();
        assert!(rules.is_empty());
        assert!(nodes.iter().any(|node| node.path == Path::new("/dev/null")));
        assert!(nodes.iter().all(|node| !node.path.starts_with("/dev/pts")));
    }

    #[test]
    fn what_is_no_device_or_no_place_is_refused() {
        for (source, target) in [
            ("/nowhere-at-all", "/dev/x"),
            ("/etc/passwd", "/dev/x"),
            ("/dev", "/dev/x"),
            ("/dev/null", "/dev"),
            ("/dev/null", "/dev/../etc/x"),
            ("/dev/null", "/tmp/x"),
        ] {
            let line = with(source, target).unwrap_err().to_string();
            assert!(line.contains(source) && !line.contains('\n'), "{line}");
        }
    }
}
