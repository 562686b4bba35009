//! What to say about a workload that did not start, or was out of memory.

use paddock_runtime::record::{Exit, Failed};

use crate::{
    exit::{self, Coded},
    human,
};

/// 128 + SIGKILL.
const KILLED: u8 = 137;

/// Why it never ran, with docker's exit code.
pub(crate) fn failed(name: &str, command: &str, failed: &Failed) -> Coded {
    let code = u8::try_from(failed.exit_code).unwrap_or(exit::OWN_FAILURE);
    Coded::new(code, failed.explain(name, command))
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
            stats: Box::new(stats),
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
}
