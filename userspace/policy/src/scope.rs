//! What a statement reaches, and which of two is the narrower: the one order that checks and
//! compilation share.

use crate::{
    model::{Device, Match, Namespaces, Network, PathRule, Rule, below},
    named::NamedRule,
};

/// A statement's reach.
#[derive(Clone, Debug)]
pub(crate) enum Scope<'p> {
    Acts(&'static NamedRule),
    Namespaces(Namespaces),
    /// A bit for each.
    Capabilities(u64),
    Device(Device),
    Network(Network),
    Path {
        path: &'p str,
        operations: u8,
    },
    Syscall(&'p str),
}

/// How two reaches lie to each other where both hold for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing is of both.
    Apart,
    /// The first decides.
    Narrower,
    /// The second decides.
    Wider,
    /// Neither is the narrower.
    Level,
}

impl<'p> From<&'p Match> for Scope<'p> {
    fn from(matched: &'p Match) -> Self {
        match matched {
            Match::Named(rule) => Self::Acts(rule),
            Match::Namespace(namespaces) => Self::Namespaces(*namespaces),
            Match::Capability(bits) => Self::Capabilities(*bits),
            Match::Device(device) => Self::Device(*device),
            Match::Network(network) => Self::Network(*network),
            Match::Path(PathRule { path, operations }) => Self::Path {
                path,
                operations: *operations,
            },
            Match::Syscall(name) => Self::Syscall(name),
        }
    }
}

impl Scope<'_> {
    /// The smaller, the narrower; of one kind, and only where both hold for the same thing.
    pub(crate) fn width(&self) -> u64 {
        match self {
            Self::Acts(rule) => rule.cells().count() as u64,
            Self::Namespaces(Namespaces { types, targets }) => {
                u64::from(types.count_ones() * targets.count_ones())
            }
            Self::Capabilities(bits) => u64::from(bits.count_ones()),
            Self::Device(device) => match (device.major, device.minor) {
                (Some(_), Some(_)) => 0,
                (Some(_), None) => 1,
                _ => 2,
            },
            Self::Network(network) => {
                let (from, to) = network.ports;
                let net = u64::from(128 - network.net.bits);
                net << 32 | u64::from(to - from) << 8 | u64::from(network.protocols.count_ones())
            }
            Self::Path { path, .. } => u64::MAX - path_depth(path),
            Self::Syscall(_) => 0,
        }
    }

    /// Whether all of `other` is also its own.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Acts(wide), Self::Acts(narrow)) => narrow
                .cells()
                .all(|(activity, target)| wide.holds(activity, target)),
            (Self::Namespaces(wide), Self::Namespaces(narrow)) => {
                narrow.types & !wide.types == 0 && narrow.targets & !wide.targets == 0
            }
            (Self::Capabilities(wide), Self::Capabilities(narrow)) => narrow & !wide == 0,
            (Self::Device(wide), Self::Device(narrow)) => {
                holds(wide, narrow) && narrow.access & !wide.access == 0
            }
            (Self::Network(wide), Self::Network(narrow)) => {
                wide.net.covers(&narrow.net)
                    && wide.ports.0 <= narrow.ports.0
                    && narrow.ports.1 <= wide.ports.1
                    && narrow.protocols & !wide.protocols == 0
                    && narrow.directions & !wide.directions == 0
            }
            (
                Self::Path {
                    path: wide,
                    operations: all,
                },
                Self::Path { path, operations },
            ) => below(wide, path) && operations & !all == 0,
            (Self::Syscall(wide), Self::Syscall(narrow)) => wide == narrow,
            _ => false,
        }
    }

    /// Whether there is something that both hold for.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Acts(one), Self::Acts(two)) => one
                .cells()
                .any(|(activity, target)| two.holds(activity, target)),
            (Self::Namespaces(one), Self::Namespaces(two)) => {
                one.types & two.types != 0 && one.targets & two.targets != 0
            }
            (Self::Capabilities(one), Self::Capabilities(two)) => one & two != 0,
            (Self::Device(one), Self::Device(two)) => {
                (holds(one, two) || holds(two, one)) && one.access & two.access != 0
            }
            (Self::Network(one), Self::Network(two)) => {
                (one.net.covers(&two.net) || two.net.covers(&one.net))
                    && one.ports.0 <= two.ports.1
                    && two.ports.0 <= one.ports.1
                    && one.protocols & two.protocols != 0
                    && one.directions & two.directions != 0
            }
            (
                Self::Path {
                    path: one,
                    operations: ones,
                },
                Self::Path {
                    path: two,
                    operations: twos,
                },
            ) => (below(one, two) || below(two, one)) && ones & twos != 0,
            (Self::Syscall(one), Self::Syscall(two)) => one == two,
            _ => false,
        }
    }

    pub(crate) fn order(&self, other: &Self) -> Order {
        if !self.meets(other) {
            return Order::Apart;
        }
        // Ports and protocols of one net may cross, and then no count says who is the narrower.
        if let (Self::Network(one), Self::Network(two)) = (self, other)
            && one.net == two.net
        {
            let inside = |a: &Network, b: &Network| {
                b.ports.0 <= a.ports.0 && a.ports.1 <= b.ports.1 && a.protocols & !b.protocols == 0
            };
            return match (inside(one, two), inside(two, one)) {
                (true, false) => Order::Narrower,
                (false, true) => Order::Wider,
                _ => Order::Level,
            };
        }
        match self.width().cmp(&other.width()) {
            std::cmp::Ordering::Less => Order::Narrower,
            std::cmp::Ordering::Equal => Order::Level,
            std::cmp::Ordering::Greater => Order::Wider,
        }
    }
}

/// Of paths that hold for one file the longer is the deeper.
const fn path_depth(path: &str) -> u64 {
    if path.len() == 1 {
        0
    } else {
        path.len() as u64
    }
}

/// Whether all devices of `narrow` are `wide`'s, whatever is done to them.
pub(crate) fn holds(wide: &Device, narrow: &Device) -> bool {
    wide.kind == narrow.kind
        && (wide.major.is_none() || wide.major == narrow.major)
        && (wide.minor.is_none() || wide.minor == narrow.minor)
}

/// Two rules that end a matter the same way.
pub(crate) fn same_end(one: &Rule, two: &Rule) -> bool {
    one.verb == two.verb
        && one.mode == two.mode
        && one.reaction == two.reaction
        && one.disarm == two.disarm
}
