//! Seccomp profiles, Docker's and OCI's form, compiled to classic BPF.
//!
//! [`Profile::parse`] reads the JSON, [`Profile::compile`] chooses the rules that hold for a
//! container on this host and makes a [`Filter`] of them; [`default_filter`] does it without a
//! profile. Pure computation: who installs the filter is somebody else's. A filter finds a
//! call's outcome by binary search over runs of numbers with equal outcome, so that a call
//! costs some eight comparisons wherever in the list it is, and the kernel (5.11) can see
//! which numbers are always allowed and not run the filter for them at all.
#![forbid(unsafe_code)]

mod action;
mod arch;
mod asking;
mod compile;
mod default;
mod filter;
mod hardened;
mod multiplex;
mod profile;
mod rules;

pub use arch::Arch;
pub use asking::{asking_filter, passes_setns};
pub use filter::{Filter, Instruction};
pub use profile::Profile;

/// What decides which rules of a profile hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host<'a> {
    pub arch: Arch,
    /// Version and patch level: 6.1.
    pub kernel: (u32, u32),
    /// The container's bounding set, names in full: `CAP_CHOWN`.
    pub capabilities: &'a [String],
}

impl Host<'_> {
    fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|name| name == capability)
    }
}

/// The filter of a container that brings no profile.
pub fn default_filter(host: &Host<'_>) -> Result<Filter, Error> {
    compile::compile(&default::rules(host), true)
}

/// The filter of `--profile hardened`: less than the default's.
pub fn hardened_filter(host: &Host<'_>) -> Result<Filter, Error> {
    compile::compile(&hardened::rules(host), true)
}

/// A profile that cannot be used; one line, and the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{bytes} bytes are more than a profile may have, {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// serde's words, which have line and column.
    #[error("{reason}")]
    Syntax { reason: String },
    #[error("'architectures' and 'archMap' exclude each other")]
    TwoArchitectureLists,
    #[error("rule {rule}: 'name' and 'names' exclude each other")]
    TwoNames { rule: usize },
    #[error("rule {rule}: no syscall is named")]
    NoNames { rule: usize },
    #[error("rule {rule}: argument {index}: a syscall has arguments 0 to 5")]
    ArgumentIndex { rule: usize, index: u64 },
    #[error("{place}: errno {errno} is out of range, 0 to {limit}")]
    Errno {
        place: String,
        errno: u64,
        limit: u16,
    },
    #[error("{place}: {action} returns no errno")]
    NoErrno { place: String, action: &'static str },
    #[error("SCMP_ACT_NOTIFY as the default action would stop the listener itself")]
    NotifyByDefault,
    #[error("{instructions} instructions are more than the kernel takes, {limit}")]
    TooLong { instructions: usize, limit: usize },
}
