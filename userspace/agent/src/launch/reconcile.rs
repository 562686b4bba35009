//! At the agent's start: take up again what a predecessor launched.
//!
//! A container whose monitor listens goes on; one with a record has ended; one with neither
//! lost its monitor, is killed and gets its record here; one in the pause before its next run
//! goes on waiting. Slots and counters of a predecessor's kernel half are kept where it is still
//! loaded.

use std::{
    fs,
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use paddock_cgroups::Cgroup;
use paddock_probe::{NS_TYPES, Slot};
use paddock_runtime::{network::leave, protocol::Request};

use super::{
    Backoff, Link, again,
    create::birth,
    devices,
    end::{Ending, KILLED, end, remember},
    files::{self, Config, Left, Past, SOCKET},
    image,
    watch::{on_started, watch},
};
use crate::{
    api::State,
    clock,
    container::{Container, End, Facts},
    counters::Counters,
    life::RestartPolicy,
    naming, oom,
    shared::Shared,
};

/// Ends that a predecessor did not see, to be carried out when the rings are being read.
#[derive(Debug, Default)]
pub(crate) struct Unfinished(Vec<(Arc<Container>, Ending)>);

/// Takes all of them up.
pub(crate) fn reconcile(shared: &Arc<Shared>) -> Unfinished {
    let mut unfinished = Unfinished::default();
    let entries = fs::read_dir(shared.instance.containers_dir());
    for entry in entries.into_iter().flatten().flatten() {
        let dir = entry.path();
        let left = Left::read(&dir);
        match left.config.clone() {
            Some(config) if dir.ends_with(&config.id) => {
                unfinished.0.extend(take_up(shared, config, left, &dir));
            }
            _ => discard(shared, &dir),
        }
    }
    image::sweep(shared);
    unfinished
}

impl Unfinished {
    /// All at a time; returns when each container has ended.
    pub(crate) async fn finish(self, shared: &Arc<Shared>) {
        let tasks: Vec<_> = self
            .0
            .into_iter()
            .map(|(container, ending)| {
                let shared = Arc::clone(shared);
                tokio::spawn(async move { end(&shared, &container, ending).await })
            })
            .collect();
        for task in tasks {
            // A task that panicked has told so.
            let _ = task.await;
        }
    }
}

/// Removes the directories of ended containers: an ephemeral agent's last act.
pub(crate) fn clean_exited(shared: &Arc<Shared>) {
    for container in shared.registry.all() {
        if container.state() == State::Exited {
            super::control::take_out(shared, &container);
        }
    }
}

fn take_up(
    shared: &Arc<Shared>,
    mut config: Config,
    left: Left,
    dir: &Path,
) -> Option<(Arc<Container>, Ending)> {
    let link = Link::connect(&dir.join(SOCKET)).ok().map(Arc::new);
    let before = config.slot;
    let slot = if left.outcome.is_some() && link.is_none() {
        None
    } else {
        slot(shared, &config, link.is_some())
    };
    config.slot = slot.map(|slot| slot.0);
    let place = config.cgroup.clone();
    shared.instance.seen_at(&place);
    if link.is_none() && Cgroup::open(&shared.hierarchies, &config.cgroup).is_err() {
        // Its next run is where this agent has its own.
        config.cgroup = shared.instance.cgroup_of(&config.id);
    }
    if (config.slot != before || config.cgroup != place)
        && let Err(error) = files::write_config(dir, &config)
    {
        tracing::warn!("{}: cannot write config.json: {error}", config.name);
    }
    let facts = Facts {
        slot,
        namespaces: [0; NS_TYPES],
        shared: config.shared_with_host,
        setns_before: config.setns_before,
        link: link.clone(),
        backoff: left.past.as_ref().map(Past::backoff).unwrap_or_default(),
        earlier: earlier(&left),
        ..Facts::default()
    };
    // Two with one name can only come from outside; both stay reachable.
    let free = naming::unused(&config.name, "-", |name| shared.registry.has_name(name));
    let reservation = shared.registry.reserve(&free).ok()?;
    config.name = free;
    let config_prepared = config.prepared;
    let container = shared.registry.insert(reservation, birth(config, facts));
    if let Some(slot) = slot {
        shared.bind_policies(&container, slot);
    }
    let prepared = config_prepared;
    let monitor = link.as_ref().and_then(|link| link.monitor_pid());
    // Of another monitor: an earlier run's, whose agent died before it could take it away.
    let started = left
        .started
        .as_ref()
        .filter(|started| monitor.is_none_or(|monitor| monitor == started.monitor_pid));
    if let Some(started) = started {
        on_started(&container, started);
        // A kernel half that was not there then did not see them made.
        if !shared.kernel.adopted() {
            shared.enter_namespaces(&container);
        }
    }
    if let Some(link) = link {
        tracing::info!("{}: found again", container.name);
        if started.is_none() && left.past.as_ref().is_some_and(|past| past.due_ns.is_some()) {
            start_again(&container, &link);
        }
        tokio::spawn(watch(Arc::clone(shared), container, link));
        return None;
    }
    if !prepared || rests(shared, &container, &left) {
        return None;
    }
    if had_ended(shared, &container, &left, dir) {
        starts_with_the_agent(shared, &container);
        return None;
    }
    let ending = match (left.exit, left.failed) {
        (Some(file), _) => Ending::Exited {
            exit: file.exit,
            reason: file.reason,
        },
        (None, Some(failed)) => Ending::Failed {
            failed,
            at_ns: modified_ns(dir),
        },
        (None, None) => Ending::MonitorKilled,
    };
    Some((container, ending))
}

/// Counts that its present slot has not got.
fn earlier(left: &Left) -> Counters {
    match (&left.outcome, &left.past) {
        (Some(outcome), _) => outcome.sums.counters(),
        (None, Some(past)) => past.earlier.counters(),
        (None, None) => Counters::default(),
    }
}

/// Its agent died between making its next monitor and starting it.
fn start_again(container: &Arc<Container>, link: &Arc<Link>) {
    container.set_life(|life| life.state = State::Restarting);
    let link = Arc::clone(link);
    tokio::spawn(async move {
        // A monitor that is gone is its watcher's to see.
        let _ = link.send(Request::Start, &[]).await;
    });
}

/// Whether it is between two runs: its last end is summed, the next is due.
fn rests(shared: &Arc<Shared>, container: &Arc<Container>, left: &Left) -> bool {
    let Some((past, due_ns)) = left
        .past
        .as_ref()
        .and_then(|past| Some((past, past.due_ns?)))
    else {
        return false;
    };
    let ended_ns = left.exit.as_ref().map(|file| file.exit.finished_at_ns);
    if left.failed.is_some() || (ended_ns.is_some() && ended_ns != past.ended_ns) {
        return false;
    }
    container.set_life(|life| {
        life.state = State::Restarting;
        life.end = left.exit.as_ref().map(|file| End {
            exit_code: Some(file.exit.exit_code),
            finished_at_ns: file.exit.finished_at_ns,
            oom_killed: false,
            oom: None,
            reason: file.reason.clone(),
            failed: None,
        });
    });
    // A clock that was set meanwhile makes it wait no longer than it was to.
    let left_over = Duration::from_nanos(due_ns.saturating_sub(clock::now_ns()));
    again::later(shared, container, left_over.min(past.backoff().pause));
    true
}

/// `always`, and `unless-stopped` where no user had stopped it.
fn starts_with_the_agent(shared: &Arc<Shared>, container: &Arc<Container>) {
    let policy = container
        .request
        .as_ref()
        .map_or(RestartPolicy::No, |request| request.life.restart);
    let backoff = container.facts().backoff;
    let ran = container.life().started_at_ns.is_some();
    if !ran || !backoff.with_the_agent(policy) {
        return;
    }
    container.unfreeze();
    container.facts().backoff = Backoff::default();
    container.set_life(|life| life.state = State::Restarting);
    remember(shared, container, Some(Duration::ZERO));
    shared.publish(container, "restarting");
    again::later(shared, container, Duration::ZERO);
}

/// Its slot in a predecessor's maps, or a new one for one that lives.
fn slot(shared: &Shared, config: &Config, lives: bool) -> Option<Slot> {
    // The agent that ends a container frees its slot after writing its outcome, so without
    // one the slot is still this container's.
    if let Some(slot) = config.slot.map(Slot).filter(|_| shared.kernel.adopted()) {
        let mut inherited = shared
            .inherited
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        inherited.retain(|_, other| *other != slot);
        return Some(slot);
    }
    if !lives {
        return None;
    }
    let cgroup = Cgroup::open(&shared.hierarchies, &config.cgroup)
        .and_then(|cgroup| Ok((cgroup.ids()?, oom::counted(&cgroup))));
    match cgroup.map(|(ids, kills)| shared.kernel.enrol(&ids, &config.shares(), kills)) {
        Ok(Ok(slot)) => {
            let blocks = devices::blocks(&config.request);
            let given = slot.map_or(Ok(()), |slot| shared.kernel.give_devices(slot, &blocks));
            if let Err(error) = given {
                tracing::warn!("{}: {}", config.name, crate::chain::chain(&error));
            }
            slot
        }
        Ok(Err(error)) => {
            tracing::error!(
                "{}: not watched: {}",
                config.name,
                crate::chain::chain(&error)
            );
            None
        }
        Err(error) => {
            tracing::error!(
                "{}: not watched: {}",
                config.name,
                crate::chain::chain(&error)
            );
            None
        }
    }
}

/// Whether a predecessor saw its end to its end.
fn had_ended(shared: &Shared, container: &Container, left: &Left, dir: &Path) -> bool {
    let Some(outcome) = &left.outcome else {
        return false;
    };
    let (exit_code, finished_at_ns, reason) = match (&left.exit, &left.failed) {
        (Some(file), _) => (
            file.exit.exit_code,
            file.exit.finished_at_ns,
            file.reason.clone(),
        ),
        (None, Some(failed)) => (
            failed.exit_code,
            modified_ns(dir),
            Some(format!("not started: {}", failed.step)),
        ),
        (None, None) => (KILLED, modified_ns(dir), None),
    };
    shared.registry.freeze(container, outcome.sums.counters());
    container.set_life(|life| {
        life.state = State::Exited;
        life.end = Some(End {
            exit_code: Some(exit_code),
            finished_at_ns,
            oom_killed: outcome.oom_killed,
            oom: outcome.oom.clone(),
            reason,
            failed: left.failed.clone(),
        });
    });
    true
}

/// When a directory last got or lost a file.
fn modified_ns(dir: &Path) -> u64 {
    let modified = fs::metadata(dir).and_then(|found| found.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

/// A creation that its agent did not live to finish: nobody was told its name.
fn discard(shared: &Shared, dir: &Path) {
    let Some(id) = dir.file_name().and_then(|name| name.to_str()) else {
        return;
    };
    tracing::warn!(
        "removing {}: its creation was never finished",
        dir.display()
    );
    let instance = &shared.instance;
    let former = instance.former_parent().map(|parent| parent.join(id));
    let paths = [
        Some(instance.cgroup_of(id)),
        former.map(|path| path.display().to_string()),
    ];
    for path in paths.into_iter().flatten() {
        if let Ok(cgroup) = Cgroup::open(&shared.hierarchies, &path)
            && let Err(error) = cgroup.kill().and_then(|()| cgroup.remove_alone())
        {
            tracing::warn!("{}: {}", dir.display(), crate::chain::chain(&error));
        }
    }
    if let Err(error) = leave(dir) {
        tracing::warn!("{}: {}", dir.display(), crate::chain::chain(&error));
    }
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!("cannot remove {}: {error}", dir.display());
    }
}
