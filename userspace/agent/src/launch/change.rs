//! Change a container that runs: stop it where it is, let it go on, give it other limits.
//!
//! Whether it is paused is only in its cgroup, so it holds over an agent's end and is true
//! whoever froze it. Its limits are in the cgroup and in `config.json`: both change, or neither.

use std::sync::Arc;

use nix::{
    sys::signal::{Signal, kill as send_signal},
    unistd::Pid,
};
use paddock_cgroups::{Cgroup, Limits};

use super::{
    Error,
    control::link_of,
    files::{self, Config},
    watch::start_time,
};
use crate::{
    api::{Origin, State},
    container::Container,
    shared::Shared,
};

/// Stops every process in it, execs' too.
pub(crate) async fn pause(shared: &Arc<Shared>, container: &Arc<Container>) -> Result<(), Error> {
    set_frozen(shared, container, true).await?;
    shared.publish(container, "paused");
    Ok(())
}

pub(crate) async fn unpause(shared: &Arc<Shared>, container: &Arc<Container>) -> Result<(), Error> {
    set_frozen(shared, container, false).await?;
    shared.publish(container, "unpaused");
    Ok(())
}

/// Stops every process of one, whoever launched it. `false`: they were stopped already. Whether
/// there are any its cgroup says: what it did may be known before it is known to run.
pub(crate) async fn hold(shared: &Arc<Shared>, container: &Arc<Container>) -> Result<bool, Error> {
    let name = container.name.clone();
    let held = in_cgroup(shared, container, move |cgroup| {
        if cgroup.pids()?.is_empty() {
            return Err(Error::state(format!("{name} does not run")));
        }
        if cgroup.is_frozen()? {
            return Ok(false);
        }
        freeze(cgroup).map(|()| true)
    })
    .await?;
    if held {
        shared.publish(container, "paused");
    }
    Ok(held)
}

/// Kills every process of a found one; whoever started it learns of its end as of any other.
/// `false`: it had none.
pub(crate) async fn end_found(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
) -> Result<bool, Error> {
    in_cgroup(shared, container, |cgroup| {
        let any = !cgroup.pids()?.is_empty();
        cgroup.kill()?;
        Ok(any)
    })
    .await
}

fn freeze(cgroup: &Cgroup) -> Result<(), Error> {
    cgroup.freeze().map_err(|error| {
        // Half frozen is neither: the error is what is told of it.
        let _ = cgroup.thaw();
        error.into()
    })
}

async fn set_frozen(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    frozen: bool,
) -> Result<(), Error> {
    // A policy may have frozen a found one, which its runtime does not know of.
    if frozen || container.origin == Origin::Launched {
        running(container)?;
    }
    let name = container.name.clone();
    in_cgroup(shared, container, move |cgroup| {
        match (cgroup.is_frozen()?, frozen) {
            (true, true) => return Err(Error::state(format!("{name} is paused already"))),
            (false, false) => return Err(Error::state(format!("{name} is not paused"))),
            _ => {}
        }
        if !frozen {
            return Ok(cgroup.thaw()?);
        }
        freeze(cgroup)
    })
    .await
}

/// Where it is paused: has its first process get `signal` when it goes on, and lets it go on.
/// `false`: the signal is still to be sent, since it was not paused or has no name here.
pub(super) async fn thaw_with(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    signal: i32,
) -> Result<bool, Error> {
    let main = container.life().main;
    let named = Signal::try_from(signal).ok();
    let thawed = in_cgroup(shared, container, move |cgroup| {
        if !cgroup.is_frozen()? {
            return Ok(false);
        }
        // The monitor would send it some time later, and some of the program would run before.
        // What is frozen stays that process.
        if let Some((pid, started)) = main
            && start_time(pid) == Some(started)
            && named.is_some()
        {
            let _ = send_signal(Pid::from_raw(pid), named);
        }
        cgroup.thaw()?;
        Ok(true)
    })
    .await;
    let thawed = match thawed {
        // It has ended, and its monitor is about to say so.
        Err(Error::Cgroup(paddock_cgroups::Error::NotFound { .. })) => false,
        other => other?,
    };
    if thawed {
        shared.publish(container, "unpaused");
    }
    Ok(thawed && named.is_some())
}

/// Gives it these limits beside or instead of those it has; all that it has then.
pub(crate) async fn update(
    shared: Arc<Shared>,
    container: Arc<Container>,
    newer: Limits,
) -> Result<Limits, Error> {
    running(&container)?;
    let dir = shared.instance.container_dir(&container.id);
    let (name, its) = (container.name.clone(), Arc::clone(&container));
    in_cgroup(&shared, &container, move |cgroup| {
        let kept = its.limits(None).merged(&newer);
        let not_updated = |source| Error::NotUpdated { name, source };
        let applied = cgroup.update(&kept).map_err(not_updated)?;
        if let Err(error) = keep(&dir, &kept) {
            applied.undo()?;
            return Err(error);
        }
        its.facts().updated = Some(kept);
        Ok(())
    })
    .await?;
    tracing::info!("{}: limits updated", container.name);
    shared.restorer.keep(&container);
    shared.publish(&container, "updated");
    Ok(container.limits(None))
}

fn keep(dir: &std::path::Path, limits: &Limits) -> Result<(), Error> {
    let path = dir.join("config.json");
    let failed = Error::io("write", &path);
    let Some(mut config) = files::read::<Config>(dir, "config.json") else {
        return Err(failed(std::io::ErrorKind::NotFound.into()));
    };
    config.request.limits = limits.clone();
    files::write_config(dir, &config).map_err(failed)
}

/// Its cgroup is paddock's to change, and there.
fn running(container: &Container) -> Result<(), Error> {
    link_of(container)?;
    if container.state() == State::Running {
        return Ok(());
    }
    Err(Error::state(format!("{} does not run", container.name)))
}

/// One change of one container at a time, in a thread that may wait for the kernel.
pub(super) async fn in_cgroup<T: Send + 'static>(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    change: impl FnOnce(&Cgroup) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let _alone = container.changing.lock().await;
    let hierarchies = shared.hierarchies.clone();
    let path = container.cgroup.clone();
    let changed = tokio::task::spawn_blocking(move || {
        let cgroup = Cgroup::open(&hierarchies, &path)?;
        change(&cgroup)
    });
    changed.await.map_err(|_| Error::Ending)?
}
