//! The program: its words, its user, its privileges, its limits.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::Account;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub args: Vec<String>,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    /// Made in a container when missing; for an exec a missing one is a failure (126).
    pub cwd: String,
    /// A terminal (`-t`); else three pipes.
    pub terminal: bool,
    /// Keep stdin open for clients (`-i`); else it is /dev/null.
    pub stdin: bool,
    pub user: User,
    /// Takes the place of `user`, and of `capabilities` for who is not root, once it is looked up.
    pub account: Option<Account>,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub rlimits: Vec<Rlimit>,
    /// -1000 to 1000; `None` is 0, never the agent's own.
    pub oom_score_adj: Option<i32>,
    /// `None`: every syscall the kernel has.
    pub seccomp: Option<paddock_seccomp::Filter>,
    /// Without any the program is confined as its launcher is.
    #[serde(default)]
    pub labels: Vec<Label>,
}

/// Of a security module, for the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// A profile that is loaded, or [`crate::apparmor::UNCONFINED`].
    AppArmor(String),
    SeLinux(String),
}

/// Numbers as the container's user namespace has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; the agent's own are never kept.
    pub groups: Vec<u32>,
    /// `None` is 0022.
    pub umask: Option<u32>,
}

/// Sets by name (`CAP_CHOWN`). Ambient ones are in the inheritable and the permitted set too,
/// or the kernel refuses them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub bounding: Vec<String>,
    pub permitted: Vec<String>,
    pub effective: Vec<String>,
    pub inheritable: Vec<String>,
    pub ambient: Vec<String>,
}

/// Name as in `RLIMIT_NOFILE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

impl Capabilities {
    /// What root gets: bounding, permitted and effective; inheritable stays empty (CVE-2022-29162).
    pub fn of_root(names: Vec<String>) -> Self {
        Self {
            bounding: names.clone(),
            permitted: names.clone(),
            effective: names,
            ..Self::default()
        }
    }

    /// What anybody else gets: the bounding set as a limit, and `own` through exec as ambient
    /// ones, since the kernel takes the others from a user who is not root.
    pub fn of_user(bounding: Vec<String>, own: Vec<String>) -> Self {
        Self {
            bounding,
            permitted: own.clone(),
            effective: own.clone(),
            inheritable: own.clone(),
            ambient: own,
        }
    }
}
