//! What to say about a workload that did not start, or was out of memory.

use nix::errno::Errno;
use paddock_runtime::record::{Exit, Failed};

use crate::{
    exit::{self, Coded},
    human,
};

/// 128 + SIGKILL.
const KILLED: u8 = 137;

/// Why it never ran, with docker's exit code.
pub(crate) fn failed(name: &str, command: &str, failed: &Failed) -> Coded {
    let why = Errno::from_raw(failed.errno).desc();
    let path = failed.path.as_deref().unwrap_or_default();
    let message = match failed.exit_code {
        127 => format!("{name}: {command}: command not found in the container (exit 127)"),
        126 => format!("{name}: {command}: cannot be executed: {why} (exit 126)"),
        _ if path.is_empty() => format!("{name}: set-up failed at {}: {why}", failed.step),
        _ => format!("{name}: set-up failed at {} {path}: {why}", failed.step),
    };
    Coded::new(
        u8::try_from(failed.exit_code).unwrap_or(exit::OWN_FAILURE),
        message,
    )
}

/// Its monitor was killed, and then its container dies too.
pub(crate) fn monitor_gone(name: &str) -> anyhow::Error {
    Coded::new(
        KILLED,
        format!("{name}: its monitor was killed, and the container with it (exit {KILLED})"),
    )
    .into()
}

/// The line for a workload that met its memory limit; none when nothing was killed for it.
pub(crate) fn out_of_memory(name: &str, exit: &Exit, main_process: bool) -> Option<String> {
    let kills = exit.stats.memory_oom_kills.unwrap_or(0);
    if kills == 0 && !main_process {
        return None;
    }
    let limit = exit
        .stats
        .memory_limit_bytes
        .map_or_else(String::new, |limit| {
            format!(" at the {} limit", human::bytes(limit))
        });
    let code = exit.exit_code;
    Some(if main_process {
        format!("{name}: out of memory: main process killed{limit} (exit {code})")
    } else {
        let processes = if kills == 1 {
            "1 process".to_owned()
        } else {
            format!("{kills} processes")
        };
        format!(
            "{name}: out of memory: {processes} killed{limit}; the main process went on (exit {code})"
        )
    })
}

#[cfg(test)]
mod tests {
    use paddock_cgroups::Stats;

    use super::*;

    fn record(kills: Option<u64>, limit: Option<u64>) -> Exit {
        let stats = Stats {
            memory_oom_kills: kills,
            memory_limit_bytes: limit,
            ..Stats::default()
        };
        Exit {
            exit_code: 137,
            signal: Some(9),
            finished_at_ns: 0,
            stats,
        }
    }

    #[test]
    fn out_of_memory_names_limit_and_victim() {
        assert_eq!(
            out_of_memory("greedy", &record(Some(1), Some(64 << 20)), true).as_deref(),
            Some("greedy: out of memory: main process killed at the 64 MiB limit (exit 137)")
        );
        assert_eq!(
            out_of_memory("web", &record(Some(2), None), false).as_deref(),
            Some("web: out of memory: 2 processes killed; the main process went on (exit 137)")
        );
        assert_eq!(out_of_memory("web", &record(None, None), false), None);
    }

    #[test]
    fn failures_say_step_path_and_errno() {
        let record = |exit_code, path: Option<&str>| Failed {
            step: "mount".into(),
            errno: 13,
            path: path.map(str::to_owned),
            exit_code,
        };
        let said = |record: &Failed| {
            let coded = failed("x", "nope", record);
            (coded.code, coded.message)
        };
        assert_eq!(
            said(&record(127, None)),
            (
                127,
                "x: nope: command not found in the container (exit 127)".into()
            )
        );
        assert_eq!(
            said(&record(126, None)),
            (
                126,
                "x: nope: cannot be executed: Permission denied (exit 126)".into()
            )
        );
        assert_eq!(
            said(&record(125, Some("/proc"))),
            (
                125,
                "x: set-up failed at mount /proc: Permission denied".into()
            )
        );
    }
}
