//! What a monitor tells and leaves on disk: `started.json`, `exit.json`, both written atomically.

use paddock_cgroups::Stats;
use serde::{Deserialize, Serialize};

/// The workload runs: its exec succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: with the pid, an identity.
    pub start_time: u64,
    pub monitor_pid: i32,
    /// Seconds and nanoseconds since the epoch, as RFC 3339 where people see it.
    pub started_at_ns: u64,
}

/// The workload never ran; nothing is left of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Name of the plan's step.
    pub step: String,
    pub errno: i32,
    pub path: Option<String>,
    /// 125 set-up, 126 cannot invoke, 127 not found.
    pub exit_code: i32,
}

/// How it ended, with the last readings of its cgroup, taken before the cgroup was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The workload's, or 128 + signal.
    pub exit_code: i32,
    pub signal: Option<i32>,
    pub finished_at_ns: u64,
    pub stats: Stats,
}

/// One line of `log.jsonl`; `log.jsonl.1` holds the older ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub time_ns: u64,
    /// `stdout` or `stderr`; a terminal has only the first.
    pub stream: String,
    /// Lossy UTF-8, with its line feed when it had one.
    pub text: String,
}
