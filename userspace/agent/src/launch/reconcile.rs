//! At the agent's start: take up again what a predecessor launched.
//!
//! A container whose monitor listens goes on; one with a record has ended; one with neither
//! lost its monitor, is killed and gets its record here. Slots and counters of a predecessor's
//! kernel half are kept where it is still loaded.

use std::{
    fs,
    path::Path,
    sync::{Arc, PoisonError},
    time::UNIX_EPOCH,
};

use paddock_cgroups::Cgroup;
use paddock_probe::{NS_TYPES, Slot};

use super::{
    Link,
    create::birth,
    end::{Ending, KILLED, end},
    files::{self, Config, Left, SOCKET},
    image,
    watch::{on_started, watch},
};
use crate::{
    api::State,
    container::{Container, End, Facts},
    naming,
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
    let slot = if left.outcome.is_some() {
        None
    } else {
        slot(shared, &config, link.is_some())
    };
    config.slot = slot.map(|slot| slot.0);
    if config.slot != before
        && let Err(error) = files::write_config(dir, &config)
    {
        tracing::warn!("{}: cannot write config.json: {error}", config.name);
    }
    let facts = Facts {
        slot,
        namespaces: [0; NS_TYPES],
        shared: config.shared_with_host,
        link: link.clone(),
        ..Facts::default()
    };
    // Two with one name can only come from outside; both stay reachable.
    let free = naming::unused(&config.name, "-", |name| shared.registry.has_name(name));
    let reservation = shared.registry.reserve(&free).ok()?;
    config.name = free;
    let container = shared.registry.insert(reservation, birth(config, facts));
    if let Some(started) = &left.started {
        on_started(&container, started);
        // A kernel half that was not there then did not see them made.
        if !shared.kernel.adopted() {
            shared.enter_namespaces(&container);
        }
    }
    if let Some(link) = link {
        tracing::info!("{}: found again", container.name);
        tokio::spawn(watch(Arc::clone(shared), container, link));
        return None;
    }
    if had_ended(shared, &container, &left, dir) {
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
    let ids = Cgroup::open(&shared.hierarchies, &config.cgroup).and_then(|cgroup| cgroup.ids());
    match ids.map(|ids| shared.kernel.enrol(&ids, &config.shares())) {
        Ok(Ok(slot)) => slot,
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
    shared.registry.freeze(container, outcome.counters());
    container.set_life(|life| {
        life.state = State::Exited;
        life.end = Some(End {
            exit_code: Some(exit_code),
            finished_at_ns,
            oom_killed: outcome.oom_killed,
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
    let cgroup = Cgroup::open(&shared.hierarchies, &shared.instance.cgroup_of(id));
    if let Ok(cgroup) = cgroup
        && let Err(error) = cgroup.kill().and_then(|()| cgroup.remove())
    {
        tracing::warn!("{}: {}", dir.display(), crate::chain::chain(&error));
    }
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!("cannot remove {}: {error}", dir.display());
    }
}
