//! One thing that happened, as people and JSON lines see it.

use paddock_probe::network::{direction, protocol};
use serde::{Deserialize, Serialize};

/// Version of the JSON form; grows when a field changes meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    /// Grows when a field changes its meaning or goes.
    pub schema_version: u32,
    /// Grows by one over the instance's life, also from one agent to the next; of `lost` the last
    /// one that is missing.
    pub id: u64,
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// Container's name; absent for what happened outside of all.
    pub container: Option<String>,
    pub container_id: Option<String>,
    #[serde(flatten)]
    pub kind: Kind,
}

/// The actor, as the kernel saw it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Actor {
    pub pid: i32,
    pub tid: i32,
    pub uid: u32,
    pub comm: String,
    /// Its id in its own pid namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_pid: Option<i32>,
    /// The user in its own user namespace; absent where that has none for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_uid: Option<u32>,
    /// Last part of its program's path, 31 bytes at most: unlike `comm`, nobody can choose it.
    /// Absent where the process has given its memory back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Benign,
    Notable,
    EscapeAttempt,
    Escape,
}

impl Verdict {
    /// Each with its name in JSON.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Benign, "benign"),
        (Self::Notable, "notable"),
        (Self::EscapeAttempt, "escape_attempt"),
        (Self::Escape, "escape"),
    ];
}

/// What an event was judged, if it is one that is.
pub fn verdict_of(kind: &Kind) -> Option<Verdict> {
    match kind {
        Kind::NamespaceCall { verdict, .. } | Kind::Activity { verdict, .. } => Some(*verdict),
        _ => None,
    }
}

/// One namespace type in a setns, unshare or clone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NamespaceTarget {
    /// `uts`, as in /proc/PID/ns.
    pub namespace: String,
    /// `own`, `peer`, `host`, `new`, or `unknown` when a failed call named nothing resolvable.
    pub target: String,
    pub inode: Option<u64>,
}

/// Whom a container talks to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Peer {
    /// `egress` where the container begins, `ingress` where the peer does.
    pub direction: String,
    /// `tcp`, `udp`, `other`.
    pub protocol: String,
    pub address: String,
    /// The peer's for egress, the container's own for ingress.
    pub port: u16,
}

impl Peer {
    /// As rules have it; `None` where the address is none.
    #[must_use]
    pub fn judged(&self) -> Option<paddock_policy::Peer> {
        Some(paddock_policy::Peer {
            address: self.address.parse().ok()?,
            port: self.port,
            protocol: match self.protocol.as_str() {
                "tcp" => protocol::TCP,
                "udp" => protocol::UDP,
                _ => protocol::OTHER,
            },
            direction: match self.direction.as_str() {
                "ingress" => direction::IN,
                _ => direction::OUT,
            },
        })
    }
}

/// What is done to a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileAct {
    /// `read`, `write`, `create`, `remove`, `exec`.
    pub operation: String,
    /// From the root of the mount namespace; of one over 255 bytes the beginning.
    pub path: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Kind {
    /// Life of a container: `created`, `started`, `paused`, `unpaused`, `updated`, `found`,
    /// `exited`, `restarting`, `stopped` (it was to restart), `removed`.
    Container {
        action: String,
        exit_code: Option<i32>,
        oom_killed: Option<bool>,
    },
    /// setns, unshare, clone or clone3 with new-namespace flags.
    NamespaceCall {
        syscall: String,
        actor: Actor,
        /// `allowed`, `failed`.
        outcome: String,
        errno: Option<String>,
        flags: u64,
        fd: Option<i32>,
        targets: Vec<NamespaceTarget>,
        verdict: Verdict,
    },
    OomKill {
        victim: Actor,
        trigger: Actor,
        /// `memcg`, `cpuset` (a cpuset's or a policy's memory nodes), `host`.
        constraint: String,
        /// Bytes of the limit that was hit.
        limit_bytes: Option<u64>,
        main_process: bool,
        /// Where the limit stands: `own`, `nested` (below the container's cgroup), `ancestor`,
        /// `host`; absent for what is no container's.
        #[serde(default)]
        level: Option<String>,
        /// The cgroup that has it; absent where it is none or gone.
        #[serde(default)]
        limit_cgroup: Option<String>,
        /// `memory.oom.group` took it, alone or with others.
        #[serde(default)]
        group: bool,
        /// What the victim had in memory; absent where it could not be read.
        #[serde(default)]
        rss_anon_bytes: Option<u64>,
        #[serde(default)]
        rss_file_bytes: Option<u64>,
        #[serde(default)]
        rss_shmem_bytes: Option<u64>,
        #[serde(default)]
        total_vm_bytes: Option<u64>,
        #[serde(default)]
        oom_score_adj: Option<i32>,
    },
    Exec {
        actor: Actor,
        filename: String,
    },
    Exit {
        actor: Actor,
        exit_code: i32,
        signal: Option<i32>,
    },
    /// Something that concerns the container's walls: docs/verdicts.md.
    Activity {
        /// `mount`, `ptrace`, …
        activity: String,
        actor: Actor,
        /// `own`, `peer`, `host`, `new`, `unknown`.
        target: String,
        /// `allowed`, `failed`.
        outcome: String,
        errno: Option<String>,
        /// What: a file, a file system's type.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        object: Option<String>,
        /// Where to, or in what it is found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<String>,
        /// The process reached for, and its container's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        other_pid: Option<i32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        other_container: Option<String>,
        /// Flags and numbers, as each activity has them.
        arguments: Vec<u64>,
        verdict: Verdict,
    },
    /// What a policy forbids.
    Denial {
        /// As in `activity`, or `setns`, `unshare`, `clone`, `network`, `capability`,
        /// `device`, `file`.
        activity: String,
        /// Absent for `network` of direction `ingress`: no process of the container's acts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<Actor>,
        /// `own`, `peer`, `host`, `new`, `unknown`.
        target: String,
        /// `audit` (it was let through), `deny`, `kill`.
        action: String,
        /// What decided; absent where the policy was replaced before the event was read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
        /// The process reached for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        other_pid: Option<i32>,
        /// Of `network`. Of what peers begin at one port a container is told 10 times a second at
        /// most; each is counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<Peer>,
        /// Of `capability`: `CAP_SYS_TIME`, as in capabilities(7), or its number where it has no
        /// name yet. Of one capability a container is told 10 times a second at most; each use is
        /// counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capability: Option<String>,
        /// Of `device`, as in a policy file: `c 1:3 rw`. Of one device a container is told as seldom
        /// as of one capability.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// Of `file`. Of one file a container is told as seldom as of one capability.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<FileAct>,
    },
    /// Somebody who is not paddock reached for what is paddock's own in the kernel.
    Tampering {
        /// `map`, `program`, `link`, `pin`, `mount`, `process` (the agent).
        what: String,
        /// `denied`, `seen` (it was let through, or is known by what it left).
        outcome: String,
        /// Absent where only what was left shows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<Actor>,
        /// The object's id, a pin's path, a map's word.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        object: Option<String>,
    },
    /// What a denial led to beyond itself, since its rule says so.
    Reaction {
        /// `pause` (its processes are frozen), `stop`, `kill` (what a found container has for
        /// `stop`: all its processes), `disarm` (the rule only counts from now on).
        action: String,
        policy: String,
        rule: String,
        /// `done`, `failed`.
        outcome: String,
        /// Why it failed; of `disarm` the containers that were hit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// With `--follow` or `--after` only: as many are missing here, since this reader was too slow
    /// or since they are not stored (any more).
    Lost {
        count: u64,
    },
    /// Records of a container began to be withheld (`started`), or that is over (`stopped`).
    Limited {
        action: String,
        /// As in `paddock_records_total`: `rate_limited`, `pressure`, `ring_full`.
        reason: String,
        /// Records since it started.
        withheld: u64,
    },
    /// `mkdir`, `attach`, `rmdir`.
    Cgroup {
        action: String,
        actor: Actor,
        path: String,
        cgroup_id: u64,
    },
}

/// The names that events have in JSON. Their order is what the store has: new ones come last.
pub const KINDS: [&str; 12] = [
    "container",
    "namespace_call",
    "oom_kill",
    "exec",
    "exit",
    "activity",
    "denial",
    "tampering",
    "reaction",
    "lost",
    "limited",
    "cgroup",
];

impl Kind {
    /// One of [`KINDS`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::Container { .. } => "container",
            Self::NamespaceCall { .. } => "namespace_call",
            Self::OomKill { .. } => "oom_kill",
            Self::Exec { .. } => "exec",
            Self::Exit { .. } => "exit",
            Self::Activity { .. } => "activity",
            Self::Denial { .. } => "denial",
            Self::Tampering { .. } => "tampering",
            Self::Reaction { .. } => "reaction",
            Self::Lost { .. } => "lost",
            Self::Limited { .. } => "limited",
            Self::Cgroup { .. } => "cgroup",
        }
    }
}

#[cfg(test)]
#[path = "event_docs.rs"]
pub(crate) mod docs;
