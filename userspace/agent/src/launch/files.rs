//! A container's directory: what the agent writes there, and what monitors leave.
//!
//! `config.json` (agent, at creation), `started.json`, `exit.json` or `failed.json` (monitor,
//! or the agent for a monitor that was killed), `outcome.json` (agent, at the end: what only
//! it knew), `past.json` (agent: what of earlier runs the next one needs).

use std::{io, path::Path, time::Duration};

use paddock_cgroups::Totals;
use paddock_probe::{NsInums, Shares, SlotCounters};
use paddock_runtime::{
    record::{Exit, Failed, Started},
    spec::{IdMaps, Rootfs},
};
use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use crate::{
    api::{CreateRequest, OomReport},
    counters::Counters,
    disk::{read_json, write_json},
};

pub(super) const SOCKET: &str = "monitor.sock";
/// What one run leaves, and the next one takes away.
pub(super) const OF_A_RUN: [&str; 4] = ["started.json", "exit.json", "failed.json", "outcome.json"];

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
    /// Its setns are judged before they happen, if they get as far; not so where an earlier build
    /// launched it.
    #[serde(default)]
    pub(super) setns_before: bool,
    /// Namespaces of other containers that it was put into.
    pub(super) joined: NsInums,
    /// Ids of its user namespace that were chosen for it.
    #[serde(default)]
    pub(super) id_maps: Option<IdMaps>,
    /// Whose what it writes over its image is on disk, from its first run on.
    #[serde(default)]
    pub(super) writes_as: Option<IdMaps>,
    /// What the root file system is made of, each run anew.
    pub(super) rootfs: Rootfs,
    pub(super) request: CreateRequest,
    /// It has had a monitor; one without waits for its first start.
    #[serde(default = "prepared")]
    pub(super) prepared: bool,
}

fn prepared() -> bool {
    true
}

impl Config {
    /// For a run that begins now.
    pub(super) fn shares(&self) -> Shares {
        Shares {
            with_host: self.shared_with_host,
            started_at_ns: crate::clock::now_ns(),
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
    #[serde(default)]
    pub(super) oom: Option<OomReport>,
    #[serde(flatten)]
    pub(super) sums: Sums,
}

/// [`Counters`] on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sums {
    /// [`SlotCounters`]' cells.
    kernel: Vec<u64>,
    cgroup: Totals,
    #[serde(default)]
    oom_mismatch: Option<u64>,
    #[serde(default)]
    limits_restored: u64,
}

/// `past.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Past {
    restarts: u32,
    pause_ms: u64,
    stopped: bool,
    /// When the last run that is summed here ended.
    pub(super) ended_ns: Option<u64>,
    /// It restarts: when.
    pub(super) due_ns: Option<u64>,
    /// Earlier runs' counts, of the kernel half's those of slots that were given back.
    #[serde(flatten)]
    pub(super) earlier: Sums,
}

impl Past {
    pub(super) fn new(
        backoff: Backoff,
        ended_ns: Option<u64>,
        due_ns: Option<u64>,
        earlier: &Counters,
    ) -> Self {
        Self {
            restarts: backoff.restarts,
            pause_ms: u64::try_from(backoff.pause.as_millis()).unwrap_or(0),
            stopped: backoff.stopped,
            ended_ns,
            due_ns,
            earlier: Sums::new(earlier),
        }
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff {
            restarts: self.restarts,
            pause: Duration::from_millis(self.pause_ms),
            stopped: self.stopped,
        }
    }
}

impl Sums {
    pub(super) fn new(counters: &Counters) -> Self {
        Self {
            kernel: counters.kernel.cells.to_vec(),
            cgroup: counters.cgroup,
            oom_mismatch: counters.oom_mismatch,
            limits_restored: counters.limits_restored,
        }
    }

    /// Zeros where another version counted other things.
    pub(super) fn counters(&self) -> Counters {
        let cells = self.kernel.clone().try_into().ok();
        Counters {
            kernel: cells.map_or(SlotCounters::ZERO, |cells| SlotCounters { cells }),
            cgroup: self.cgroup,
            oom_mismatch: self.oom_mismatch,
            limits_restored: self.limits_restored,
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
    pub(super) past: Option<Past>,
}

impl Left {
    pub(super) fn read(dir: &Path) -> Self {
        Self {
            config: read(dir, "config.json"),
            started: read(dir, "started.json"),
            exit: read(dir, "exit.json"),
            failed: read(dir, "failed.json"),
            outcome: read(dir, "outcome.json"),
            past: read(dir, "past.json"),
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

pub(super) fn write_past(dir: &Path, past: &Past) -> io::Result<()> {
    write_json(dir, "past.json", past)
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
        counters.cgroup.cpu_usage_usec = Some(9);
        let outcome = Outcome {
            oom_killed: true,
            oom: None,
            sums: Sums::new(&counters),
        };
        let json = serde_json::to_string(&outcome).unwrap();
        let read: Outcome = serde_json::from_str(&json).unwrap();
        assert_eq!(read.sums.counters(), counters);
    }

    #[test]
    fn a_past_keeps_the_pause_and_the_counters() {
        let mut earlier = Counters::default();
        earlier.kernel.cells[2] = 8;
        let backoff = Backoff {
            restarts: 3,
            pause: Duration::from_millis(400),
            stopped: true,
        };
        let json = serde_json::to_string(&Past::new(backoff, Some(1), Some(2), &earlier)).unwrap();
        let read: Past = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (read.backoff(), read.earlier.counters()),
            (backoff, earlier)
        );
    }
}
