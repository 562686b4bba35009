//! What a policy file says, once it is known to be right.

use std::{fmt, net::IpAddr};

use paddock_abi::namespace::{NS_TYPES, Target};
pub use paddock_abi::network::{direction, protocol};

use crate::named::{NamedRule, Targets, bit};

/// One file.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: String,
    pub description: String,
    pub mode: Mode,
    pub when_unenforceable: WhenUnenforceable,
    pub select: Select,
    /// In the order of the file, the default posture last.
    pub rules: Vec<Rule>,
}

/// What a rule's hit leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is stopped, what would have been is counted. The default, since a file that is
    /// tried for the first time is not to break what runs.
    #[default]
    Audit,
    Enforce,
}

impl Mode {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        }
    }

    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        [Self::Audit, Self::Enforce]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

/// What to do with a rule that nothing on this kernel can enforce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnenforceable {
    /// The policy is refused.
    #[default]
    Fail,
    /// The rule only counts.
    Audit,
}

impl WhenUnenforceable {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Audit => "audit",
        }
    }

    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        [Self::Fail, Self::Audit]
            .into_iter()
            .find(|one| one.name() == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Allow,
    Deny,
}

/// What follows a denial. `Kill` is the process', the last two are the container's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reaction {
    /// EPERM.
    #[default]
    Deny,
    /// EPERM, and the container is frozen.
    Pause,
    /// EPERM, and the container is stopped.
    Stop,
    /// SIGKILL.
    Kill,
}

impl Reaction {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Pause => "pause",
            Self::Stop => "stop",
            Self::Kill => "kill",
        }
    }

    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        [Self::Deny, Self::Pause, Self::Stop, Self::Kill]
            .into_iter()
            .find(|one| one.name() == name)
    }
}

/// A rule that hits too many containers at once is taken for a mistake and put to audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disarm {
    /// More containers than these.
    pub hits: u32,
    pub window_s: u32,
}

impl Select {
    /// Whether nothing is given: it holds for every container.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which containers a policy holds for: all of what is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// Any of these globs.
    pub name: Vec<String>,
    /// Any of these globs.
    pub image: Vec<String>,
    /// All of these: a key, and a glob for its value.
    pub label: Vec<(String, String)>,
    /// Any of [`RUNTIMES`].
    pub runtime: Vec<String>,
    pub origin: Option<Origin>,
}

/// Who may have started a container.
pub const RUNTIMES: [&str; 7] = [
    "containerd",
    "crio",
    "docker",
    "lxc",
    "nspawn",
    "paddock",
    "podman",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Launched,
    Found,
}

/// Some statements with one name and one consequence.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub verb: Verb,
    pub mode: Mode,
    pub reaction: Reaction,
    pub disarm: Option<Disarm>,
    /// Of one kind.
    pub matches: Vec<Match>,
    /// Of `[default]`: every other rule of the file is more specific.
    pub posture: bool,
}

/// One thing that a rule is about.
#[derive(Clone, Debug)]
pub enum Match {
    Named(&'static NamedRule),
    Namespace(Namespaces),
    /// A bit for each capability.
    Capability(u64),
    Device(Device),
    Network(Network),
    Path(PathRule),
    Syscall(String),
}

/// Namespaces by type and whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// A bit for each type.
    pub types: u32,
    pub targets: Targets,
}

pub(crate) const EVERY_TYPE: u32 = (1 << NS_TYPES) - 1;
/// What a namespace can be to who asks for it.
pub(crate) const NAMESPACE_TARGETS: [Target; 4] =
    [Target::Own, Target::Peer, Target::Host, Target::New];
/// Where a rule names no target: what is somebody else's.
pub(crate) const FOREIGN: Targets = bit(Target::Peer) | bit(Target::Host);

/// A device or all of a major number, or all of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub kind: DeviceKind,
    pub major: Option<u32>,
    /// Only with a major number.
    pub minor: Option<u32>,
    /// Of [`access`].
    pub access: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    Block,
    Char,
}

/// What is done to a device.
pub mod access {
    pub const READ: u8 = 1;
    pub const WRITE: u8 = 2;
    pub const MKNOD: u8 = 4;
    pub const ALL: u8 = 7;
}

/// Peers by address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub net: Cidr,
    /// From and to, both included.
    pub ports: (u16, u16),
    /// Of [`protocol`].
    pub protocols: u8,
    /// Of [`direction`].
    pub directions: u8,
}

/// Addresses with a common beginning; bits behind it are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    pub address: IpAddr,
    pub bits: u8,
}

impl Cidr {
    /// One address.
    pub(crate) const fn of(address: IpAddr) -> Self {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Self { address, bits }
    }

    /// Whether `other` lies in it or is it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.bits <= other.bits
            && self.address.is_ipv4() == other.address.is_ipv4()
            && masked(other.address, self.bits) == self.address
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The address with all but its first `bits` bits zero.
pub(crate) fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

/// A file, or a directory and all below it, as the container sees its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// Absolute, without `.`, `..` and a slash at the end.
    pub path: String,
    /// Of [`operation`].
    pub operations: u8,
}

/// Whether `path` is `parent` or lies below it.
pub(crate) fn below(parent: &str, path: &str) -> bool {
    parent == "/"
        || path
            .strip_prefix(parent)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is done to a file; bits in the order of [`operation::NAMES`].
pub mod operation {
    pub const READ: u8 = 1;
    pub const WRITE: u8 = 2;
    pub const CREATE: u8 = 4;
    pub const REMOVE: u8 = 8;
    pub const EXEC: u8 = 16;
    /// All but starting it, which has a rule of its own.
    pub const FILES: u8 = READ | WRITE | CREATE | REMOVE;
    pub const COUNT: usize = 5;
    pub const NAMES: [&str; COUNT] = ["read", "write", "create", "remove", "exec"];
}

/// Every capability by number, without `CAP_`.
///
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/capability.h>
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Every capability's bit; those that are added later have none.
pub const EVERY_CAPABILITY: u64 = (1 << CAPABILITIES.len()) - 1;
