//! The end of a launched container: last counters, who killed it, records, slot, removal.

use std::{sync::Arc, time::Duration};

use paddock_cgroups::{Cgroup, Stats};
use paddock_probe::{Ring, SlotCounters};
use paddock_runtime::record::{Exit, Failed};
use tokio::time::{sleep, timeout};

use super::{
    control::take_out,
    files::{self, ExitFile, Outcome},
};
use crate::{
    api::State,
    clock,
    container::{Container, End},
    counters::{self, Counters},
    shared::Shared,
};

const SIGKILL: i32 = 9;
pub(super) const KILLED: i32 = 128 + SIGKILL;
const MONITOR_KILLED: &str = "monitor was killed";

/// How long the kernel half's telling of an OOM kill may take to come through the ring.
const TELLING: Duration = Duration::from_secs(1);
/// Late records still find the container by its slot for so long.
const SLOT_REST: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) enum Ending {
    Exited {
        exit: Exit,
        reason: Option<String>,
    },
    /// The workload never ran.
    Failed {
        failed: Failed,
        at_ns: u64,
    },
    /// Nobody is left who could tell.
    MonitorKilled,
}

/// Carries a container over to its end, once.
pub(super) async fn end(shared: &Arc<Shared>, container: &Arc<Container>, ending: Ending) {
    if container.state() == State::Exited {
        return;
    }
    let (exit, reason, failed) = match ending {
        Ending::Exited { exit, reason } => (exit, reason, None),
        Ending::Failed { failed, at_ns } => {
            let exit = Exit {
                exit_code: failed.exit_code,
                signal: None,
                finished_at_ns: at_ns,
                stats: Box::default(),
            };
            (
                exit,
                Some(format!("not started: {}", failed.step)),
                Some(failed),
            )
        }
        Ending::MonitorKilled => (
            clean_up(shared, container).await,
            Some(MONITOR_KILLED.to_owned()),
            None,
        ),
    };
    let kernel = container.kernel_counters(&shared.kernel);
    let oom_killed = if failed.is_some() {
        counters::oom_kills(&kernel) > 0
    } else {
        was_oom_killed(shared, container, &exit, &kernel).await
    };
    finish(
        shared,
        container,
        Finish {
            exit,
            reason,
            failed,
            oom_killed,
            kernel,
        },
    );
    if container
        .request
        .as_ref()
        .is_some_and(|request| request.remove)
    {
        take_out(shared, container);
    }
}

/// All that is known at the end.
struct Finish {
    exit: Exit,
    reason: Option<String>,
    failed: Option<Failed>,
    oom_killed: bool,
    kernel: SlotCounters,
}

fn finish(shared: &Arc<Shared>, container: &Arc<Container>, last: Finish) {
    let counters = Counters::new(&last.kernel, &last.exit.stats);
    let dir = shared.instance.container_dir(&container.id);
    // Without it a later agent knows less of an ended container, and nothing else is wrong.
    if let Err(error) = files::write_outcome(&dir, &Outcome::new(last.oom_killed, &counters)) {
        Shared::warn(container, "cannot write outcome.json", &error);
    }
    shared.registry.freeze(container, counters);
    // Its monitor is gone or will be; the counters that stay hold no descriptor.
    container.facts().link = None;
    container.set_life(|life| {
        life.state = State::Exited;
        life.end = Some(End {
            exit_code: Some(last.exit.exit_code),
            finished_at_ns: last.exit.finished_at_ns,
            oom_killed: last.oom_killed,
            reason: last.reason.clone(),
            failed: last.failed,
        });
    });
    tracing::info!(
        "{}: ended, exit code {}{}{}",
        container.name,
        last.exit.exit_code,
        if last.oom_killed {
            ", out of memory"
        } else {
            ""
        },
        last.reason
            .map_or_else(String::new, |reason| format!(", {reason}"))
    );
    shared.publish(container, "exited");
    tokio::spawn(release_slot(Arc::clone(shared), Arc::clone(container)));
}

/// Whether the main process itself was a victim; children's kills are only counted.
async fn was_oom_killed(
    shared: &Shared,
    container: &Container,
    exit: &Exit,
    kernel: &SlotCounters,
) -> bool {
    let by_cgroup = exit.stats.memory_oom_kills.unwrap_or(0) > 0;
    let init = container
        .request
        .as_ref()
        .is_some_and(|request| request.init);
    if init && exit.exit_code == KILLED {
        // The program was the first process' child: which one the kernel half can't know.
        return by_cgroup;
    }
    if exit.signal != Some(SIGKILL) {
        return false;
    }
    let slot = container.facts().slot;
    if slot.is_none() || !shared.kernel.serves("oom") {
        if by_cgroup {
            tracing::info!(
                "{}: killed, and its cgroup counts an OOM kill: taken for the main process, \
                 since no kernel half saw the victim",
                container.name
            );
        }
        return by_cgroup;
    }
    if counters::oom_kills(kernel) == 0 {
        return false;
    }
    let told = async {
        loop {
            let next = container.oom_told.notified();
            if container.facts().main_oom_killed {
                return;
            }
            next.await;
        }
    };
    if timeout(TELLING, told).await.is_ok() {
        return true;
    }
    // A full ring can have lost the telling, never the count.
    kernel.ring(Ring::Critical).lost_ring_full > 0 && by_cgroup
}

/// Does what the monitor would have done.
async fn clean_up(shared: &Arc<Shared>, container: &Arc<Container>) -> Exit {
    let hierarchies = shared.hierarchies.clone();
    let path = container.cgroup.clone();
    let cleaned = tokio::task::spawn_blocking(move || {
        let cgroup = match Cgroup::open(&hierarchies, &path) {
            Ok(cgroup) => cgroup,
            Err(paddock_cgroups::Error::NotFound { .. }) => return Ok(Stats::default()),
            Err(error) => return Err(error),
        };
        cgroup.kill()?;
        let stats = cgroup.stats().unwrap_or_default();
        cgroup.remove().map(|()| stats)
    });
    let stats = match cleaned.await {
        Ok(Ok(stats)) => stats,
        Ok(Err(error)) => {
            Shared::warn(container, "cannot clean up after its monitor", &error);
            Stats::default()
        }
        Err(_) => Stats::default(),
    };
    let exit = Exit {
        exit_code: KILLED,
        signal: Some(SIGKILL),
        finished_at_ns: clock::now_ns(),
        stats: Box::new(stats),
    };
    let dir = shared.instance.container_dir(&container.id);
    let _ = std::fs::remove_file(dir.join(files::SOCKET));
    let file = ExitFile {
        exit: exit.clone(),
        reason: Some(MONITOR_KILLED.to_owned()),
    };
    if let Err(error) = files::write_exit(&dir, &file) {
        Shared::warn(container, "cannot write exit.json", &error);
    }
    exit
}

/// Late records are over then, and the slot can be another's.
pub(crate) async fn release_slot(shared: Arc<Shared>, container: Arc<Container>) {
    let Some(slot) = container.facts().slot else {
        return;
    };
    let mut shutdown = shared.shutdown.subscribe();
    tokio::select! {
        () = sleep(SLOT_REST) => {}
        _ = shutdown.wait_for(|down| *down) => {}
    }
    shared.registry.forget_slot(slot);
    container.facts().slot = None;
    if let Err(error) = shared.kernel.release(slot) {
        Shared::warn(&container, "cannot free its slot", &error);
    }
}
