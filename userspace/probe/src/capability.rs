//! What serves a capability on this kernel, and why nothing better does.

use serde::{Deserialize, Serialize};

/// What serves a capability on this kernel, and why nothing better does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityStatus {
    /// `setns`, `unshare`, `clone`, `oom`, `cgroup`, `exec`, `exit`, `mount`, `process`, `signal`,
    /// `privilege`, `kernel`, `open`, `connect`, `guard`, `enforce`, `question`, `network`,
    /// `device`, `traffic`.
    pub capability: String,
    /// `fentry`, `btf_tracepoint`, `tracepoint`, `lsm`, `cgroup`, `seccomp`; `None` is off.
    pub rung: Option<String>,
    /// Higher rungs that were tried, each with its reason and errno.
    pub refused: Vec<Refusal>,
    /// When the rung does not serve, though it is there.
    #[serde(default)]
    pub caveat: Option<String>,
}

/// A rung that does not serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub rung: String,
    /// Symbolic, such as `EPERM`, where a syscall refused.
    pub errno: Option<String>,
    pub reason: String,
}
