//! Whose namespaces a found container has: read from its processes, while its maker sets it up.
//!
//! A runtime's process joins the cgroup first and leaves the host's namespaces after that. So
//! what counts as shared with the host by configuration is decided only when there have been
//! processes for [`SETTLED`] and none of them has one of its own; until then nothing does.

use std::{sync::Arc, time::Duration};

use paddock_cgroups::Cgroup;
use paddock_probe::{NS_TYPES, NsInums, NsType};
use procfs::process::Process;
use tokio::time::{Instant, timeout};

use super::state;
use crate::{api::State, clock, container::Container, namespaces, shared::Shared};

/// Set-up takes a runtime some tenths of a second.
const SETTLED: Duration = Duration::from_secs(2);
/// Looks while nothing stirs: its first process may have come unseen.
const EMPTY: Duration = Duration::from_secs(1);
const SETTING_UP: Duration = Duration::from_millis(100);
/// Of a crowd, these are enough to see whose namespaces it has.
const SAMPLE: usize = 64;
/// So often what its runtime wrote is looked for.
const TRIES: u32 = 20;

pub(super) async fn settle(shared: Arc<Shared>, container: Arc<Container>, at_start: bool) {
    let mut shutdown = shared.shutdown.subscribe();
    let mut since: Option<Instant> = None;
    loop {
        let (this, seen) = (Arc::clone(&shared), Arc::clone(&container));
        let look = tokio::task::spawn_blocking(move || look(&this, &seen, at_start));
        let Ok(Some(own)) = look.await else { return };
        if own.alive {
            let first = *since.get_or_insert_with(Instant::now);
            // What ran before the agent came is set up.
            if at_start || first.elapsed() >= SETTLED {
                let shared_types = own.shared;
                return decide(&shared, &container, shared_types);
            }
        }
        let pause = if since.is_some() { SETTING_UP } else { EMPTY };
        tokio::select! {
            _ = timeout(pause, container.stirred.notified()) => {}
            _ = shutdown.wait_for(|down| *down) => return,
        }
    }
}

/// What its processes have now.
#[derive(Debug)]
struct Own {
    alive: bool,
    /// Types of which no process has one of its own, now or before.
    shared: u32,
}

/// `None` when it is over. `was_there`: before the agent.
fn look(shared: &Shared, container: &Container, was_there: bool) -> Option<Own> {
    if container.state() == State::Exited {
        return None;
    }
    if read_written(container)
        && let Err(error) = shared.policies.refresh(shared)
    {
        Shared::warn(container, "policies hold for it by its name only", &error);
    }
    let pids = Cgroup::open(&shared.hierarchies, &container.cgroup)
        .and_then(|cgroup| cgroup.pids())
        .unwrap_or_default();
    let mut processes: Vec<Seen> = pids
        .into_iter()
        .take(SAMPLE)
        .filter_map(|pid| see(pid, shared.kernel.host()))
        .collect();
    processes.sort_by_key(|process| process.start_time);
    let own_types = processes
        .iter()
        .fold(0, |mask, process| mask | process.own_types);
    let mut facts = container.facts();
    facts.own_types |= own_types;
    let own = Own {
        alive: !processes.is_empty(),
        shared: all_types() & !facts.own_types,
    };
    // PID 1 of its own is the container's first process; else the oldest is.
    let main = processes
        .iter()
        .find(|process| process.is_init)
        .or(processes.first());
    if let Some(main) = main {
        facts.namespaces = main.inums;
        let born = facts.born;
        drop(facts);
        // Once for each: it may join others' later, which does not make them its own. The kernel
        // half saw by itself what was brought into one that was born with its slot.
        if !born && container.life().main != Some((main.pid, main.start_time)) {
            shared.enter_namespaces(container);
        }
        let (pid, start_time) = (main.pid, main.start_time);
        let started = container.state() == State::Created;
        container.set_life(|life| {
            life.state = State::Running;
            life.main = Some((pid, start_time));
            // As old as it is, however often agents begin anew.
            life.started_at_ns.get_or_insert_with(|| {
                if was_there {
                    clock::began_ns(start_time)
                } else {
                    clock::now_ns()
                }
            });
        });
        if started {
            shared.publish(container, "started");
        }
    }
    Some(own)
}

/// Its runtime may write it down later than it makes the cgroup. Whether something is new.
fn read_written(container: &Container) -> bool {
    let id = {
        let mut facts = container.facts();
        let written = &mut facts.written;
        if written.known.is_some() || written.tries >= TRIES {
            return false;
        }
        written.tries += 1;
        written.runtime_id.clone()
    };
    let known = id.as_deref().and_then(state::written);
    let new = known.is_some();
    if new {
        container.facts().written.known = known;
    }
    new
}

#[derive(Debug)]
struct Seen {
    pid: i32,
    start_time: u64,
    inums: NsInums,
    /// Types that differ from the host's.
    own_types: u32,
    is_init: bool,
}

/// `None` when it is gone already.
fn see(pid: i32, host: &NsInums) -> Option<Seen> {
    let process = Process::new(pid).ok()?;
    let start_time = process.stat().ok()?.starttime;
    let nspid = process.status().ok()?.nspid.unwrap_or_default();
    let inums = namespaces::of(pid).ok()?;
    let known = all_types() & !unknown(&inums);
    Some(Seen {
        pid,
        start_time,
        own_types: known & !namespaces::common(&inums, host),
        is_init: nspid.len() > 1 && nspid.last() == Some(&1),
        inums,
    })
}

fn decide(shared: &Shared, container: &Container, shared_types: u32) {
    let slot = {
        let mut facts = container.facts();
        facts.shared = shared_types;
        facts.slot
    };
    if let Some(slot) = slot
        && let Err(error) =
            shared
                .kernel
                .share_with_host(slot, shared_types, first_process_ns(container))
    {
        Shared::warn(
            container,
            "cannot tell the kernel half what it shares",
            &error,
        );
    }
    tracing::debug!(
        "{}: shares with the host: {}",
        container.name,
        namespaces::names(shared_types).join(",")
    );
}

/// When its first process began; 0 where that is not known.
fn first_process_ns(container: &Container) -> u64 {
    let Some((_, ticks)) = container.life().main else {
        return 0;
    };
    let per_second = procfs::ticks_per_second().max(1);
    let since_boot = u128::from(ticks) * 1_000_000_000 / u128::from(per_second);
    clock::boot_ns().saturating_add(u64::try_from(since_boot).unwrap_or(u64::MAX))
}

fn all_types() -> u32 {
    NsType::ALL.into_iter().fold(0, |mask, ty| mask | ty.bit())
}

fn unknown(inums: &NsInums) -> u32 {
    namespaces::common(&inums.map(|inum| u32::from(inum == 0)), &[1; NS_TYPES])
}
