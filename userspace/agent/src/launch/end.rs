//! The end of a run of a launched container: last counters, who killed it, records; then
//! another run after a pause, or slot and removal.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use paddock_cgroups::{Cgroup, Stats};
use paddock_probe::{Ring, SlotCounters};
use paddock_runtime::{
    network::leave,
    record::{Exit, Failed},
};
use tokio::time::{sleep, timeout};

use super::{
    again,
    control::take_out,
    files::{self, ExitFile, Outcome, Past, Sums},
};
use crate::{
    api::{OomReport, State},
    chain::chain,
    clock,
    container::{Container, End},
    counters,
    shared::Shared,
};

const SIGKILL: i32 = 9;
pub(super) const KILLED: i32 = 128 + SIGKILL;
const MONITOR_KILLED: &str = "monitor was killed";

/// How long the kernel half's telling of an OOM kill may take to come through the ring.
const TELLING: Duration = Duration::from_secs(1);
/// Late records still find the container by its slot for so long.
const SLOT_REST: Duration = Duration::from_secs(2);
/// Slots that come free within so long are freed by one walk through the kernel's maps.
const TOGETHER: Duration = Duration::from_millis(250);

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

/// Carries a container over to its end, or to the pause before its next run, once.
pub(super) async fn end(shared: &Arc<Shared>, container: &Arc<Container>, ending: Ending) {
    if container.state() == State::Exited {
        return;
    }
    shared.restorer.forget(container);
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
        counters::oom_kills(&kernel) > container.facts().oom.before
    } else {
        was_oom_killed(shared, container, &exit, &kernel).await
    };
    container.facts().oom.main |= oom_killed;
    let last = End {
        exit_code: Some(exit.exit_code),
        finished_at_ns: exit.finished_at_ns,
        oom_killed,
        oom: container.oom(&kernel, Some(&exit.stats)),
        reason,
        failed,
    };
    log_end(container, &last);
    let _turn = container.turn.lock().await;
    if let Some(pause) = next_pause(container, &last) {
        rest(shared, container, last, &exit.stats, pause);
        return;
    }
    let request = container.request.as_ref();
    let leaves = request.is_some_and(|request| request.remove) && !container.facts().stays;
    // Before it is told that it has ended: who waits for that waits for its name, too.
    container.set_life(|life| life.leaves = leaves);
    close(shared, container, last, &kernel, &exit.stats);
    remember(shared, container, None);
    shared.publish(container, "exited");
    if leaves {
        take_out(shared, container);
    }
}

/// What its restart policy says; what never ran is not tried again.
fn next_pause(container: &Container, last: &End) -> Option<Duration> {
    let policy = container.request.as_ref()?.life.restart;
    let started = container.life().started_at_ns?;
    if last.failed.is_some() {
        return None;
    }
    let lasted = Duration::from_nanos(last.finished_at_ns.saturating_sub(started));
    let code = last.exit_code.unwrap_or(0);
    container.facts().backoff.after(policy, code, lasted)
}

/// From a run to the pause before the next. Its `turn` is the caller's.
fn rest(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    last: End,
    stats: &Stats,
    pause: Duration,
) {
    // First the life, then the sums: who reads both sees that they belong to different runs.
    container.set_life(|life| {
        life.state = State::Restarting;
        life.end = Some(last);
        life.ended += 1;
    });
    let mut sums = container.counters(&SlotCounters::ZERO, stats);
    {
        let mut facts = container.facts();
        sums.kernel = facts.earlier.kernel;
        facts.earlier = sums;
        facts.restored = 0;
        facts.recent = None;
        facts.link = None;
    }
    remember(shared, container, Some(pause));
    tracing::info!("{}: restarts in {} ms", container.name, pause.as_millis());
    shared.publish(container, "exited");
    shared.publish(container, "restarting");
    again::later(shared, container, pause);
}

/// Leaves what another agent would need for the next run.
pub(super) fn remember(shared: &Shared, container: &Container, pause: Option<Duration>) {
    let ended_ns = container.life().end.map(|end| end.finished_at_ns);
    let due_ns = pause.map(|pause| {
        clock::now_ns().saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX))
    });
    let past = {
        let facts = container.facts();
        let mut earlier = facts.earlier.clone();
        earlier.limits_restored += facts.restored;
        Past::new(facts.backoff, ended_ns, due_ns, &earlier)
    };
    let dir = shared.instance.container_dir(&container.id);
    if let Err(error) = files::write_past(&dir, &past) {
        Shared::warn(container, "cannot write past.json", &error);
    }
}

/// The last reading is kept, the slot goes back. Its `turn` is the caller's.
pub(super) fn close(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    last: End,
    kernel: &SlotCounters,
    stats: &Stats,
) {
    let mut counters = container.counters(kernel, stats);
    counters.oom_mismatch =
        container.reconcile(&counters, &shared.kernel, &shared.hierarchies, true);
    let dir = shared.instance.container_dir(&container.id);
    let outcome = Outcome {
        oom_killed: last.oom_killed,
        oom: last.oom.clone(),
        sums: Sums::new(&counters),
    };
    // Without it a later agent knows less of an ended container, and nothing else is wrong.
    if let Err(error) = files::write_outcome(&dir, &outcome) {
        Shared::warn(container, "cannot write outcome.json", &error);
    }
    shared.registry.freeze(container, counters);
    // Its monitor is gone or will be; the counters that stay hold no descriptor.
    container.facts().link = None;
    container.set_life(|life| {
        // Given up in its pause: that run's end has been counted.
        life.ended += u64::from(life.state != State::Restarting || last.failed.is_some());
        life.state = State::Exited;
        life.end = Some(last);
    });
    tokio::spawn(release_slot(Arc::clone(shared), Arc::clone(container)));
}

fn log_end(container: &Container, last: &End) {
    let oom = last.oom.as_ref().map_or_else(String::new, |oom| {
        let OomReport { victim, kills, .. } = oom;
        format!(", out of memory ({victim:?}, {kills} killed)")
    });
    tracing::info!(
        "{}: ended, exit code {}{oom}{}",
        container.name,
        last.exit_code.unwrap_or(0),
        last.reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(", {reason}"))
    );
}

/// Whether the main process itself was a victim; children's kills are only counted.
async fn was_oom_killed(
    shared: &Shared,
    container: &Container,
    exit: &Exit,
    kernel: &SlotCounters,
) -> bool {
    let by_cgroup = exit.stats.totals.memory_oom_kills.unwrap_or(0) > 0;
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
    if counters::oom_kills(kernel) <= container.facts().oom.before {
        return false;
    }
    let told = async {
        loop {
            let next = container.oom_told.notified();
            if container.facts().oom.main {
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
    let of = dir.clone();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || leave(&of)).await {
        Shared::warn(container, "cannot take it off its networks", &error);
    }
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
    rest_for(&shared, SLOT_REST).await;
    {
        // A start in the meantime has given it back.
        let mut facts = container.facts();
        if facts.slot != Some(slot) || container.state() != State::Exited {
            return;
        }
        facts.slot = None;
    }
    shared.policies.leave(&shared, slot);
    shared.registry.forget_slot(slot);
    let freed = || shared.freed.lock().unwrap_or_else(PoisonError::into_inner);
    let first = {
        let mut freed = freed();
        freed.push(slot);
        freed.len() == 1
    };
    if !first {
        return;
    }
    rest_for(&shared, TOGETHER).await;
    let slots = std::mem::take(&mut *freed());
    if let Err(error) = shared.kernel.release_all(&slots) {
        tracing::warn!("cannot free slots: {}", chain(&error));
    }
}

/// Shorter when the agent ends.
async fn rest_for(shared: &Shared, time: Duration) {
    let mut shutdown = shared.shutdown.subscribe();
    tokio::select! {
        () = sleep(time) => {}
        _ = shutdown.wait_for(|down| *down) => {}
    }
}
