//! Whether the OOM killer took the main process or one of its children.
//!
//! The exit code cannot tell: a kill of a child, long ago, and a SIGKILL by hand look the same.
//! The agent saw the victim in the kernel, and remembers it for a while, also where `--rm` has
//! removed the container by now.

use std::{path::Path, time::Duration};

use paddock_agent::api::{OomReport, OomVictim, WaitReply};
use paddock_runtime::record::Exit;

use crate::{
    attach,
    client::{Client, container_path},
};

/// How much later than the monitor the agent may know of the end.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to say of an end by lack of memory. Asked only where the cgroup counted a kill.
pub(crate) fn line(state_dir: &Path, id: &str, name: &str, exit: &Exit) -> Option<String> {
    let kills = exit
        .stats
        .totals
        .memory_oom_kills
        .filter(|kills| *kills > 0)?;
    let rest = format!("/wait?ended_at_ns={}", exit.finished_at_ns);
    let told: Option<WaitReply> = Client::new(state_dir).ok().and_then(|client| {
        client
            .post_within(&container_path(id, &rest), PATIENCE)
            .ok()
    });
    // Where nobody saw it, SIGKILL and a kill in the cgroup's own count have to do.
    let report = told.and_then(|told| told.oom).unwrap_or(OomReport {
        // With --init the first process passes its child's end on as an exit code.
        victim: if exit.exit_code == 137 {
            OomVictim::MainProcess
        } else {
            OomVictim::Child
        },
        constraint: None,
        limit_bytes: None,
        kills,
    });
    attach::out_of_memory(name, exit, &report)
}
