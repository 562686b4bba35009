//! The eight namespace types, in the order every array here uses.

/// Number of namespace types.
pub const NS_TYPES: usize = 8;

/// A namespace type; the discriminant indexes every `[_; NS_TYPES]`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NsType {
    Cgroup = 0,
    Ipc = 1,
    Mnt = 2,
    Net = 3,
    Pid = 4,
    Time = 5,
    User = 6,
    Uts = 7,
}
