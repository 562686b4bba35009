//! The devices that every container may use: docker's.
#![forbid(unsafe_code)]

use paddock_cgroups::{DeviceAccess, DeviceKind, DeviceRule};

/// Nothing, but any node may be made (which opens nothing), and those that are in every /dev.
pub fn device_rules() -> Vec<DeviceRule> {
    use DeviceKind::{Block, Character};

    let nodes = |kind| DeviceRule {
        kind,
        access: DeviceAccess::MKNOD,
        ..DeviceRule::ALLOW_ALL
    };
    let mut rules = vec![DeviceRule::DENY_ALL, nodes(Character), nodes(Block)];
    // null, zero, full, random, urandom; tty, console, ptmx; pts/*.
    for (major, minor) in [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
    ] {
        rules.push(DeviceRule::allow(Character, major, minor));
    }
    rules
}
