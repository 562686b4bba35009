//! What to say about a workload that did not start, or was out of memory.

use paddock_agent::api::{OomReport, OomVictim};
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

/// Left by the keys or a signal.
pub(crate) fn detached(name: &str) -> String {
    format!("{name}: detached, it goes on; `paddock attach {name}` comes back")
}

/// The line for a workload that met its memory limit, or a machine without memory.
pub(crate) fn out_of_memory(name: &str, exit: &Exit, report: &OomReport) -> Option<String> {
    if report.kills == 0 {
        return None;
    }
    let of_host = report.constraint.as_deref() == Some("host");
    let limit = report.limit_bytes.or(exit.stats.memory_limit_bytes);
    let why = match limit {
        _ if of_host => " because the host had no more".to_owned(),
        Some(limit) => format!(" at the {} limit", human::bytes(limit)),
        None => String::new(),
    };
    let code = exit.exit_code;
    let kills = report.kills;
    Some(match report.victim {
        OomVictim::MainProcess => {
            format!("{name}: out of memory: main process killed{why} (exit {code})")
        }
        OomVictim::Group => {
            format!("{name}: out of memory: all its processes killed{why} (exit {code})")
        }
        OomVictim::Child => {
            let processes = if kills == 1 { "process" } else { "processes" };
            format!(
                "{name}: out of memory: {kills} {processes} killed{why}; the main process went on (exit {code})"
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(victim: OomVictim, kills: u64, constraint: &str, limit: Option<u64>) -> String {
        let exit = Exit {
            exit_code: 137,
            signal: Some(9),
            finished_at_ns: 0,
            stats: Box::default(),
        };
        let report = OomReport {
            victim,
            constraint: Some(constraint.into()),
            limit_bytes: limit,
            kills,
        };
        out_of_memory("web", &exit, &report).unwrap_or_default()
    }

    #[test]
    fn out_of_memory_names_limit_and_victim() {
        assert_eq!(
            said(OomVictim::MainProcess, 1, "memcg", Some(64 << 20)),
            "web: out of memory: main process killed at the 64 MiB limit (exit 137)"
        );
        assert_eq!(
            said(OomVictim::Child, 2, "memcg", None),
            "web: out of memory: 2 processes killed; the main process went on (exit 137)"
        );
        assert_eq!(
            said(OomVictim::MainProcess, 1, "host", None),
            "web: out of memory: main process killed because the host had no more (exit 137)"
        );
        assert_eq!(
            said(OomVictim::Group, 3, "memcg", Some(1 << 30)),
            "web: out of memory: all its processes killed at the 1 GiB limit (exit 137)"
        );
        assert_eq!(said(OomVictim::Child, 0, "memcg", None), "");
    }
}
