//! A container's directory: what the agent writes there, and what monitors leave.
//!
//! `config.json` (agent, at creation), `started.json`, `exit.json` or `failed.json` (monitor,
//! or the agent for a monitor that was killed), `outcome.json` (agent, at the end: what only
//! it knew).

use std::{io, path::Path};

use paddock_probe::{NsInums, Shares, SlotCounters};
use paddock_runtime::{
    record::{Exit, Failed, Started},
    spec::IdMaps,
};
use serde::{Deserialize, Serialize};

use crate::{
    api::CreateRequest,
    counters::{Counters, CpuCounters},
    disk::{read_json, write_json},
};

pub(super) const SOCKET: &str = "monitor.sock";

/// What a container was made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) created_at_ns: u64,
    pub(super) cgroup: String,
    /// Valid while the kernel half that gave it is loaded.
    pub(super) slot: Option<u32>,
    /// Mask of the namespace types that are the host's.
    pub(super) shared_with_host: u32,
    /// Namespaces of other containers that it was put into.
    pub(super) joined: NsInums,
    /// Ids of its user namespace that were chosen for it.
    #[serde(default)]
    pub(super) id_maps: Option<IdMaps>,
    pub(super) request: CreateRequest,
}

impl Config {
    pub(super) fn shares(&self) -> Shares {
        Shares {
            with_host: self.shared_with_host,
            joined: self.joined,
        }
    }
}

/// `exit.json`, with the reason that only the agent writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ExitFile {
    #[serde(flatten)]
    pub(super) exit: Exit,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// What the kernel half had told by the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) oom_killed: bool,
    /// [`SlotCounters`]' cells.
    kernel: Vec<u64>,
    cpu: CpuCounters,
    memory_oom_kills: Option<u64>,
}

impl Outcome {
    pub(super) fn new(oom_killed: bool, counters: &Counters) -> Self {
        Self {
            oom_killed,
            kernel: counters.kernel.cells.to_vec(),
            cpu: counters.cpu,
            memory_oom_kills: counters.memory_oom_kills,
        }
    }

    /// Zeros where another version counted other things.
    pub(super) fn counters(&self) -> Counters {
        let cells = self.kernel.clone().try_into().ok();
        Counters {
            kernel: cells.map_or(SlotCounters::ZERO, |cells| SlotCounters { cells }),
            cpu: self.cpu,
            memory_oom_kills: self.memory_oom_kills,
        }
    }
}

/// All that a directory tells, `None` for what is not there or cannot be read.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) config: Option<Config>,
    pub(super) started: Option<Started>,
    pub(super) exit: Option<ExitFile>,
    pub(super) failed: Option<Failed>,
    pub(super) outcome: Option<Outcome>,
}

impl Left {
    pub(super) fn read(dir: &Path) -> Self {
        Self {
            config: read(dir, "config.json"),
            started: read(dir, "started.json"),
            exit: read(dir, "exit.json"),
            failed: read(dir, "failed.json"),
            outcome: read(dir, "outcome.json"),
        }
    }
}

pub(super) fn read<T: serde::de::DeserializeOwned>(dir: &Path, name: &str) -> Option<T> {
    let path = dir.join(name);
    read_json(&path).unwrap_or_else(|error| {
        tracing::warn!("{}: {error}", path.display());
        None
    })
}

pub(super) fn write_config(dir: &Path, config: &Config) -> io::Result<()> {
    write_json(dir, "config.json", config)
}

pub(super) fn write_exit(dir: &Path, exit: &ExitFile) -> io::Result<()> {
    write_json(dir, "exit.json", exit)
}

pub(super) fn write_outcome(dir: &Path, outcome: &Outcome) -> io::Result<()> {
    write_json(dir, "outcome.json", outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitors_exit_record_is_read_and_ours_by_a_monitors_reader() {
        let exit = Exit {
            exit_code: 137,
            signal: Some(9),
            finished_at_ns: 7,
            stats: Box::default(),
        };
        let theirs = serde_json::to_string(&exit).unwrap();
        let read: ExitFile = serde_json::from_str(&theirs).unwrap();
        assert_eq!((read.exit, read.reason), (exit.clone(), None));
        let ours = ExitFile {
            exit: exit.clone(),
            reason: Some("monitor was killed".into()),
        };
        let ours = serde_json::to_string(&ours).unwrap();
        assert_eq!(serde_json::from_str::<Exit>(&ours).unwrap(), exit);
    }

    #[test]
    fn an_outcome_keeps_the_counters() {
        let mut counters = Counters::default();
        counters.kernel.cells[5] = 3;
        counters.cpu.usage_usec = Some(9);
        let json = serde_json::to_string(&Outcome::new(true, &counters)).unwrap();
        let read: Outcome = serde_json::from_str(&json).unwrap();
        assert_eq!(read.counters(), counters);
    }
}
