//! What a monitor tells and leaves on disk, each file written atomically: `started.json`
//! before `Started` is sent, `exit.json` before `Exited`, `failed.json` before `Failed`.
#![forbid(unsafe_code)]

use std::fmt;

use nix::errno::Errno;
use paddock_cgroups::Stats;
use serde::{Deserialize, Serialize};

use crate::{
    apparmor, network,
    plan::{account, idmap, layers, mounts},
    trace::Traced,
};

/// The workload runs: its exec succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: with the pid, an identity.
    pub start_time: u64,
    pub monitor_pid: i32,
    /// Seconds and nanoseconds since the epoch, as RFC 3339 where people see it.
    pub started_at_ns: u64,
    /// What was done for it, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Traced>,
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

impl fmt::Display for Failed {
    /// `exec nope: no such file or directory`: what, where, why; what to do is the caller's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)?;
        if let Some(path) = &self.path {
            write!(f, " {path}")?;
        }
        write!(f, ": {}", Errno::from_raw(self.errno).desc().to_lowercase())
    }
}

/// How it ended, with the last readings of its cgroup, taken before the cgroup was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The workload's, or 128 + signal.
    pub exit_code: i32,
    pub signal: Option<i32>,
    pub finished_at_ns: u64,
    pub stats: Box<Stats>,
}

impl Failed {
    /// The line for who asked to run `program` in `container`: what, where, why.
    pub fn explain(&self, container: &str, program: &str) -> String {
        let why = Errno::from_raw(self.errno).desc();
        let code = self.exit_code;
        let path = self.path.as_deref().unwrap_or_default();
        match (self.step.as_str(), code) {
            ("exec", 127) => {
                format!("{container}: {program}: command not found in the container (exit {code})")
            }
            ("exec", 126) => {
                format!("{container}: {program}: cannot be executed: {why} (exit {code})")
            }
            (account::USER, _) => format!(
                "{container}: user {path}: not in the container's /etc/passwd; a number needs no line there (exit {code})"
            ),
            (account::USERS_GROUP, _) => format!(
                "{container}: group {path}: not in the container's /etc/group; a number needs no line there (exit {code})"
            ),
            (account::FILE, _) => format!(
                "{container}: cannot look up users: the container's {path} is no regular file of at most 4 MiB: {why} (exit {code})"
            ),
            (idmap::STEP, _) => format!(
                "{container}: {path}: cannot show its files' owners as the container's ids (idmapped mounts: {why}); leave --userns-remap out, or give a volume's files away by ':U' (exit {code})"
            ),
            (layers::OWNERS, _) => format!(
                "{container}: {path}: cannot show an image's owners as the container's ids (idmapped mounts: {why}); keep images on a file system that has them, such as ext4, by --data-dir, or leave --userns-remap out (exit {code})"
            ),
            (mounts::PROPAGATION, _) => format!(
                "{container}: {path}: not on a shared mount, so nothing can propagate: mount --make-shared its mount point first (exit {code})"
            ),
            (network::STEP, _) => format!("{container}: {path} (exit {code})"),
            (apparmor::STEP, _) if self.errno == Errno::ENOENT as i32 => format!(
                "{container}: {} (exit {code})",
                apparmor::Error::NotLoaded {
                    profile: path.to_owned()
                }
            ),
            (KILLED, _) => format!(
                "{container}: killed during set-up: too little memory to start in, unless somebody killed it"
            ),
            _ => format!("{container}: cannot start: {self} (exit {code})"),
        }
    }
}

/// Step of a [`Failed`] whose process was killed before it could execute anything.
pub const KILLED: &str = "killed during set-up";

/// One line of `log.jsonl`; `log.jsonl.1`, `.2`… hold the older ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub time_ns: u64,
    /// `stdout` or `stderr`; a terminal has only the first.
    pub stream: String,
    /// Lossy UTF-8, with its line feed when it had one.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_explained_by_its_step() {
        let failed = |step: &str, errno, path: Option<&str>, exit_code| {
            let path = path.map(str::to_owned);
            Failed {
                step: step.into(),
                errno,
                path,
                exit_code,
            }
            .explain("x", "nope")
        };
        assert_eq!(
            failed("exec", 2, Some("nope"), 127),
            "x: nope: command not found in the container (exit 127)"
        );
        assert_eq!(
            failed("exec", 13, None, 126),
            "x: nope: cannot be executed: Permission denied (exit 126)"
        );
        assert_eq!(
            failed("working directory", 2, Some("/y"), 126),
            "x: cannot start: working directory /y: no such file or directory (exit 126)"
        );
        assert!(
            failed(KILLED, 4, None, 125).starts_with("x: killed during set-up: too little memory")
        );
    }

    #[test]
    fn a_failure_reads_as_one_line() {
        let failed = Failed {
            step: "exec".into(),
            errno: 2,
            path: Some("nope".into()),
            exit_code: 127,
        };
        assert_eq!(failed.to_string(), "exec nope: no such file or directory");
        assert_eq!(
            Failed {
                path: None,
                ..failed
            }
            .to_string(),
            "exec: no such file or directory"
        );
    }
}
