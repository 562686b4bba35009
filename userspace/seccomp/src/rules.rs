//! A profile in the form that holds for one container: plain rules, no more conditions on the host.

use crate::Arch;

/// What is to be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// `SECCOMP_RET_*` of a call that no rule names.
    pub(crate) default: u32,
    /// Any other architecture's calls end the thread.
    pub(crate) architectures: Vec<Arch>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(crate) flags: u32,
    pub(crate) list: Vec<Rule>,
}

/// Holds when all its conditions do. A rule without conditions is stronger than those with
/// some, of several without the first counts, of those with conditions the first that holds;
/// one that says what the default says is no rule: libseccomp's ways, as runc uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) names: Vec<String>,
    pub(crate) action: u32,
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Condition {
    /// 0 to 5.
    pub(crate) index: u8,
    pub(crate) test: Test,
}

/// Of the whole register, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Test {
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Equal(u64),
    GreaterOrEqual(u64),
    Greater(u64),
    MaskedEqual { mask: u64, value: u64 },
}

/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: a filter is no reason to slow the program's speculation
/// down; runtimes ask for it unless the profile has flags of its own.
pub(crate) const SPEC_ALLOW: u32 = 4;

impl Rules {
    pub(crate) fn new(default: u32, architectures: &[Arch]) -> Self {
        Self {
            default,
            architectures: architectures.to_vec(),
            flags: SPEC_ALLOW,
            list: Vec::new(),
        }
    }
}
