//! The eight namespace types, in the order every array here uses.

/// Number of namespace types.
pub const NS_TYPES: usize = 8;

/// A namespace type; the discriminant indexes every `[_; NS_TYPES]` and is the bit in every mask.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NsType {
    Cgroup = 0,
    Ipc = 1,
    Mnt = 2,
    Net = 3,
    /// The namespace that children are born in: setns and unshare change no process' own.
    Pid = 4,
    /// Likewise the one for children.
    Time = 5,
    User = 6,
    Uts = 7,
}

/// `CLONE_NEW*` of every type, in array order.
///
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/sched.h>
pub const CLONE_FLAGS: [u64; NS_TYPES] = [
    0x0200_0000,
    0x0800_0000,
    0x0002_0000,
    0x4000_0000,
    0x2000_0000,
    0x0000_0080,
    0x1000_0000,
    0x0400_0000,
];

impl NsType {
    /// Every type, in array order.
    pub const ALL: [Self; NS_TYPES] = [
        Self::Cgroup,
        Self::Ipc,
        Self::Mnt,
        Self::Net,
        Self::Pid,
        Self::Time,
        Self::User,
        Self::Uts,
    ];

    /// Place in every `[_; NS_TYPES]`.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Bit in every namespace mask.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Name in `/proc/PID/ns`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Mnt => "mnt",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Time => "time",
            Self::User => "user",
            Self::Uts => "uts",
        }
    }
}

/// Whose a namespace is, from the view of the container that reaches for it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// This type was not part of the call.
    None = 0,
    Own = 1,
    /// Neither the container's own nor the host's.
    Peer = 2,
    /// The first namespace of its type, and the slot does not share it.
    Host = 3,
    /// Made by the call.
    New = 4,
    /// A failed call that named nothing resolvable.
    Unknown = 5,
}

impl Target {
    /// In the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Own,
        Self::Peer,
        Self::Host,
        Self::New,
        Self::Unknown,
    ];

    /// By its number.
    #[must_use]
    #[inline]
    pub const fn of(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Own,
            2 => Self::Peer,
            3 => Self::Host,
            4 => Self::New,
            _ => Self::Unknown,
        }
    }
}

/// Mask of namespace types from `CLONE_NEW*` flags.
///
/// Without a branch: the verifier would follow each of the 256 masks by itself.
#[must_use]
#[inline]
pub const fn mask_of_flags(flags: u64) -> u32 {
    let mut mask = 0;
    let mut index = 0;
    while index < NS_TYPES {
        mask |= ((flags >> CLONE_FLAGS[index].trailing_zeros()) & 1) << index;
        index += 1;
    }
    (mask & 0xff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_masks_agree() {
        for ty in NsType::ALL {
            assert_eq!(mask_of_flags(CLONE_FLAGS[ty.index()]), ty.bit());
        }
        assert_eq!(mask_of_flags(CLONE_FLAGS.iter().sum()), 0xff);
        // CLONE_VM, CLONE_FILES and the exit signal are no namespaces.
        assert_eq!(mask_of_flags(0x0000_0511), 0);
    }

    #[test]
    fn targets_have_their_numbers() {
        for target in Target::ALL {
            assert_eq!(Target::of(target as u8), target);
        }
    }
}
