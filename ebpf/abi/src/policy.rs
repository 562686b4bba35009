//! What policy says of an activity at a target, as one number of a table that hooks look up.
//!
//! A cell holds what to do and which rule says so, so that a denial can be counted by its rule
//! without a second lookup. User space writes the table, the kernel half only reads it.

use crate::{
    activity::Activity,
    namespace::{NS_TYPES, Target},
    path::PathRoot,
};

/// Nothing is forbidden.
pub const ACTION_ALLOW: u16 = 0;
/// It happens, and is counted as what would have been denied.
pub const ACTION_AUDIT: u16 = 1;
/// It does not happen: EPERM.
pub const ACTION_DENY: u16 = 2;
/// It does not happen, and who tried gets SIGKILL.
pub const ACTION_KILL: u16 = 3;

const ACTION_BITS: u32 = 2;

/// Rules that cells can tell apart.
pub const RULES: usize = 1 << (u16::BITS - ACTION_BITS);

/// Room for each activity, a power of two, so that an index is bounded by a mask.
const TARGETS: usize = 8;
/// Cells of the table, 1 KiB of them.
pub const POLICY_CELLS: usize = 64 * TARGETS;

/// Room for each capability by its number, a power of two, for the mask.
pub const CAPABILITY_CELLS: usize = 64;

/// Devices, majors and kinds of them that one merge may name: looked through one by one.
pub const DEVICES: usize = 64;

/// What is done to devices, by its place in [`DeviceAnswer::cells`].
pub mod device_access {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const MAKE: usize = 2;
}

/// What one merge says of a device, all of a major or all of a kind.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceAnswer {
    /// [`device_number`], of the bits that count.
    pub number: u32,
    /// Those bits.
    pub mask: u32,
    /// By [`device_access`].
    pub cells: [u16; 3],
    /// [`device_kind`]; 0 ends the list.
    pub kind: u16,
}

/// As the kernel tells them apart: `BPF_DEVCG_DEV_*` of
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h>.
pub mod device_kind {
    pub const BLOCK: u16 = 1;
    pub const CHAR: u16 = 2;
}

/// As the kernel keeps it: twelve bits of major, twenty of minor.
#[must_use]
#[inline]
pub const fn device_number(major: u32, minor: u32) -> u32 {
    major << 20 | (minor & 0xf_ffff)
}

/// Distinct merges of policies that hold at a time; the first is of no policy.
pub const RULESETS: usize = 64;

/// What one merge says, by [`policy_index`], of namespaces by type and target, of capabilities by
/// number, of devices, the first that fits, and of paths where their walk begins.
///
/// A container's is named by one word, so that a swap is one store: at each moment the old or the
/// new holds. User space writes one that no word names.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    pub cells: [u16; POLICY_CELLS],
    pub namespaces: [u16; NS_TYPES * TARGETS],
    pub capabilities: [u16; CAPABILITY_CELLS],
    pub devices: [DeviceAnswer; DEVICES],
    pub paths: PathRoot,
    /// 1: something is said of what peers begin.
    pub ingress: u64,
}

/// Whose attempts are counted: a container's by the rule that decided and what came of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HitKey {
    pub slot: u32,
    /// Rules have numbers within one merge only.
    pub ruleset: u32,
    pub rule: u32,
    /// `ACTION_*`.
    pub action: u32,
}

/// Of a rule's number only as many bits as there are are kept.
#[must_use]
#[inline]
pub const fn cell(action: u16, rule: u16) -> u16 {
    (rule << ACTION_BITS) | (action & ACTION_KILL)
}

/// `ACTION_*`; they are ordered, the strictest is the greatest.
#[must_use]
#[inline]
pub const fn action(cell: u16) -> u16 {
    cell & ACTION_KILL
}

/// Number of the rule; nothing where the action is [`ACTION_ALLOW`].
#[must_use]
#[inline]
pub const fn rule(cell: u16) -> u16 {
    cell >> ACTION_BITS
}

/// Place of a cell in the table.
#[must_use]
#[inline]
pub const fn policy_index(activity: Activity, target: Target) -> usize {
    activity as usize * TARGETS + target as usize
}

/// Place of a namespace type's cell.
#[must_use]
#[inline]
pub const fn namespace_index(ty: usize, target: Target) -> usize {
    ty * TARGETS + target as usize
}

const _: () = assert!(POLICY_CELLS * size_of::<u16>() == 1024);
const _: () = assert!(size_of::<Answers>() == 1024 + 128 + 128 + 16 * DEVICES + 104 + 8);
const _: () = assert!(size_of::<DeviceAnswer>() == 16);
const _: () = assert!(CAPABILITY_CELLS.is_power_of_two());
const _: () = assert!(size_of::<HitKey>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_keeps_both_halves() {
        for action_in in [ACTION_ALLOW, ACTION_AUDIT, ACTION_DENY, ACTION_KILL] {
            for rule_in in [0, 1, 255, 256, 16_383] {
                let cell = cell(action_in, rule_in);
                assert_eq!((action(cell), rule(cell)), (action_in, rule_in));
            }
        }
        assert_eq!(RULES, 16_384);
        // Nothing said is nothing forbidden: maps begin with zeroes.
        assert_eq!(action(0), ACTION_ALLOW);
    }

    #[test]
    fn every_activity_and_target_has_a_place_of_its_own() {
        let mut seen = [false; POLICY_CELLS];
        for activity in Activity::ALL {
            for target in Target::ALL {
                let index = policy_index(*activity, target);
                assert!(!seen[index], "{} {target:?}", activity.name());
                seen[index] = true;
            }
        }
    }
}
