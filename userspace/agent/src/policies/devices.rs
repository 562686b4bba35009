//! What a ruleset says of devices, as the kernel half looks through it: the one with most numbers
//! first.

use paddock_policy::{DeviceNode, Ruleset, model::DeviceKind};
use paddock_probe::{
    DEVICES, DeviceAnswer,
    policy::{device_kind, device_number},
};

/// More devices than the kernel half looks through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "policies that hold for one container name {devices} devices, more than {DEVICES}; let rules \
     name majors, as 'b 8:*', or fewer"
)]
pub(crate) struct TooManyDevices {
    devices: usize,
}

pub(super) fn devices(ruleset: &Ruleset) -> Result<[DeviceAnswer; DEVICES], TooManyDevices> {
    let mut answers = [DeviceAnswer::default(); DEVICES];
    let nodes = &ruleset.devices;
    if nodes.len() > answers.len() {
        return Err(TooManyDevices {
            devices: nodes.len(),
        });
    }
    // They are in the order of their numbers, none before any.
    for (to, node) in answers.iter_mut().zip(nodes.iter().rev()) {
        *to = answer(node);
    }
    Ok(answers)
}

fn answer(node: &DeviceNode) -> DeviceAnswer {
    let all = |number: Option<u32>| number.map_or(0, |_| u32::MAX);
    let mask = device_number(all(node.major), all(node.minor));
    let number = device_number(node.major.unwrap_or(0), node.minor.unwrap_or(0));
    DeviceAnswer {
        number: number & mask,
        mask,
        cells: node.cells,
        kind: match node.kind {
            DeviceKind::Block => device_kind::BLOCK,
            DeviceKind::Char => device_kind::CHAR,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use paddock_policy::{compile, parse};
    use paddock_probe::policy::{ACTION_AUDIT, ACTION_DENY, action};

    use super::*;

    fn table(text: &str) -> Result<[DeviceAnswer; DEVICES], TooManyDevices> {
        let policy = parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
        devices(&compile(&[&policy]).unwrap())
    }

    /// As `device_cell` of the kernel half looks it up.
    fn actions(table: &[DeviceAnswer], kind: u16, major: u32, minor: u32) -> [u16; 3] {
        let number = device_number(major, minor);
        let fits = |one: &&DeviceAnswer| one.kind == kind && number & one.mask == one.number;
        let told = table.iter().take_while(|one| one.kind != 0).find(fits);
        told.map_or([0; 3], |one| one.cells.map(action))
    }

    #[test]
    fn the_one_with_most_numbers_is_found_first() {
        let table = table(
            "name = \"p\"\nmode = \"enforce\"\n[[rule]]\ndevice = \"c *:* rw\"\n\
             [[rule]]\nmode = \"audit\"\ndevice = \"c 1:* rwm\"\n\
             [[rule]]\neffect = \"allow\"\ndevice = [\"c 1:3 rwm\", \"c 4095:1048575 r\"]\n\
             [[rule]]\ndevice = \"b 8:* m\"\n",
        )
        .unwrap();
        let (block, char) = (device_kind::BLOCK, device_kind::CHAR);
        assert_eq!(actions(&table, char, 1, 3), [0; 3]);
        assert_eq!(actions(&table, char, 1, 5), [ACTION_AUDIT; 3]);
        assert_eq!(actions(&table, char, 5, 2), [ACTION_DENY, ACTION_DENY, 0]);
        assert_eq!(actions(&table, char, 4095, 1_048_575), [0, ACTION_DENY, 0]);
        assert_eq!(actions(&table, block, 8, 0), [0, 0, ACTION_DENY]);
        assert_eq!(actions(&table, block, 1, 5), [0; 3]);
    }

    #[test]
    fn so_many_fit_and_no_more() {
        let many = |count: usize| {
            let mut text = "name = \"p\"\n[[rule]]\ndevice = [".to_owned();
            for minor in 0..count {
                write!(text, "\"c 1:{minor}\",").unwrap();
            }
            table(&(text + "]\n"))
        };
        assert!(many(DEVICES).is_ok());
        let devices = DEVICES + 1;
        assert_eq!(many(devices), Err(TooManyDevices { devices }));
    }
}
