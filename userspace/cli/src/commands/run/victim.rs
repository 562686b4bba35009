//! Whether the OOM killer took the main process or one of its children.
//!
//! The exit code cannot tell: a kill of a child, long ago, and a SIGKILL by hand look the same.
//! The agent saw the victim in the kernel. It is asked beforehand, since with `--rm` it has
//! forgotten the container when that ends.

use std::{path::Path, sync::mpsc, thread, time::Duration};

use paddock_agent::api::{OomReport, OomVictim, WaitReply};
use paddock_runtime::record::Exit;

use crate::{
    attach,
    client::{Client, container_path},
};

/// How much later than the monitor the agent may know of the end.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Victim {
    answer: mpsc::Receiver<WaitReply>,
}

impl Victim {
    /// Asks, in a thread; signals must be blocked by now.
    pub(crate) fn ask(state_dir: &Path, id: &str) -> Self {
        let (sender, answer) = mpsc::channel();
        let (state_dir, path) = (state_dir.to_owned(), container_path(id, "/wait"));
        thread::spawn(move || {
            // An agent that dies meanwhile closes the channel, and that is its answer.
            if let Ok(reply) = Client::new(&state_dir).and_then(|client| Ok(client.post(&path)?)) {
                let _ = sender.send(reply);
            }
        });
        Self { answer }
    }

    /// What to say of an end by lack of memory; `victim` was asked where there is a limit.
    pub(crate) fn line(victim: Option<Self>, name: &str, exit: &Exit) -> Option<String> {
        let report = victim?.report(exit)?;
        attach::out_of_memory(name, exit, &report)
    }

    /// Where nobody saw it, SIGKILL and a kill in the cgroup's own count have to do.
    fn report(&self, exit: &Exit) -> Option<OomReport> {
        let kills = exit.stats.memory_oom_kills.filter(|kills| *kills > 0)?;
        let told = self.answer.recv_timeout(PATIENCE);
        let seen = told.ok().and_then(|reply| reply.oom);
        Some(seen.unwrap_or(OomReport {
            // With --init the first process passes its child's end on as an exit code.
            victim: if exit.exit_code == 137 {
                OomVictim::MainProcess
            } else {
                OomVictim::Child
            },
            constraint: None,
            limit_bytes: None,
            kills,
        }))
    }
}
