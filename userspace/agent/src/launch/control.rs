//! What clients ask of a container that is there: start, signal, stop, wait, remove.

use std::{fs, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, kill as send_signal},
    unistd::Pid,
};
use paddock_runtime::{client::signal_payload, protocol::Request};
use tokio::time::timeout;

use super::{Error, Link, change, image};
use crate::{
    api::{Origin, State, WaitReply},
    container::{Container, Life},
    shared::Shared,
};

/// A killed cgroup is empty within this, or something in the kernel is stuck.
const KILL_PATIENCE: Duration = Duration::from_secs(20);
/// An emulated machine with a cold cache needs seconds to execute a program.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// A monitor has written its record, its packet comes at once.
const SETTLE: Duration = Duration::from_secs(2);

/// Starts it and waits until the workload runs, or did not.
pub(crate) async fn start(shared: &Arc<Shared>, container: &Arc<Container>) -> Result<i32, Error> {
    let link = link_of(container)?;
    if container.state() != State::Created {
        return Err(Error::state(format!(
            "{} was started already",
            container.name
        )));
    }
    link.send(Request::Start, &[]).await?;
    let life = until(shared, container, "its start", START_PATIENCE, |life| {
        life.state != State::Created
    })
    .await?;
    if let Some(end) = &life.end
        && end.failed.is_some()
        && end.oom_killed
    {
        return Err(Error::TooLittleMemory {
            name: container.name.clone(),
        });
    }
    if let Some(failed) = life.end.and_then(|end| end.failed) {
        return Err(Error::Failed {
            name: container.name.clone(),
            program: container.command.first().cloned().unwrap_or_default(),
            failed,
        });
    }
    life.main.map(|(pid, _)| pid).ok_or_else(|| {
        Error::state(format!(
            "{}: its monitor was killed before it ran",
            container.name
        ))
    })
}

/// Sends a signal to its first process. One that ends it lets a paused one go on, to end; any
/// other waits there until it is unpaused.
pub(crate) async fn kill(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    signal: Signal,
) -> Result<(), Error> {
    let link = link_of(container)?;
    if container.state() != State::Running {
        return Err(Error::state(format!("{} does not run", container.name)));
    }
    if matches!(signal, Signal::SIGKILL | Signal::SIGTERM)
        && change::thaw_with(shared, container, signal).await?
    {
        return Ok(());
    }
    Ok(link
        .send(Request::Signal, &signal_payload(signal as i32))
        .await?)
}

/// SIGTERM, and everything in it killed when that has not ended it in time.
pub(crate) async fn stop(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    patience: Duration,
) -> Result<(), Error> {
    let link = link_of(container)?;
    match container.state() {
        State::Exited => return Ok(()),
        State::Created => return discard(shared, container, &link).await,
        State::Running | State::Paused => {}
    }
    if !change::thaw_with(shared, container, Signal::SIGTERM).await? {
        link.send(Request::Signal, &signal_payload(Signal::SIGTERM as i32))
            .await?;
    }
    match until(shared, container, "its end", patience, is_over).await {
        Err(Error::Timeout { .. }) => end_now(shared, container, &link).await,
        other => other.map(drop),
    }
}

/// Until it has ended.
pub(crate) async fn wait(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
) -> Result<WaitReply, Error> {
    let mut lives = container.watch();
    let mut shutdown = shared.shutdown.subscribe();
    let life = tokio::select! {
        life = lives.wait_for(is_over) => life.map(|life| life.clone()),
        _ = shutdown.wait_for(|down| *down) => return Err(Error::Ending),
    };
    let end = life.ok().and_then(|life| life.end).ok_or(Error::Ending)?;
    Ok(WaitReply {
        exit_code: end.exit_code.unwrap_or(0),
        oom_killed: end.oom_killed,
        reason: end.reason,
    })
}

/// Removes it with its log; with `force`, whatever it does.
pub(crate) async fn remove(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    force: bool,
) -> Result<(), Error> {
    let name = &container.name;
    if container.origin == Origin::Found {
        return Err(Error::state(format!(
            "{name} was not started by paddock: it is not its to remove"
        )));
    }
    match container.state() {
        State::Running | State::Paused if !force => {
            return Err(Error::state(format!(
                "{name} runs: `paddock stop {name}` first, or remove it with --force"
            )));
        }
        State::Running | State::Paused => end_now(shared, container, &*link_of(container)?).await?,
        State::Created => discard(shared, container, &*link_of(container)?).await?,
        State::Exited => {}
    }
    take_out(shared, container);
    Ok(())
}

/// Waits for the packet of a monitor that has left its record already, so that an answer is
/// never older than what a client was told by the monitor.
pub(crate) async fn settled(shared: &Arc<Shared>, container: &Arc<Container>) {
    if container.origin == Origin::Found || container.state() == State::Exited {
        return;
    }
    let dir = shared.instance.container_dir(&container.id);
    if ["exit.json", "failed.json"]
        .iter()
        .any(|name| dir.join(name).exists())
    {
        // What comes later than that is told as it is now.
        let _ = until(shared, container, "its end", SETTLE, is_over).await;
    }
}

/// Takes an ended container out of everything; its counters stay a while in the metrics.
pub(super) fn take_out(shared: &Arc<Shared>, container: &Arc<Container>) {
    let dir = shared.instance.container_dir(&container.id);
    if let Err(error) = fs::remove_dir_all(&dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        Shared::warn(container, "cannot remove its directory", &error);
    }
    image::discard(shared, container);
    shared.registry.remove(&container.id);
    let mut first = false;
    container.set_life(|life| first = !std::mem::replace(&mut life.removed, true));
    if first {
        shared.publish(container, "removed");
    }
}

fn is_over(life: &Life) -> bool {
    life.state == State::Exited
}

async fn end_now(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    link: &Link,
) -> Result<(), Error> {
    // A monitor that is gone leaves the rest to its watcher, which is waited for below.
    let _ = link.send(Request::Kill, &[]).await;
    until(shared, container, "its end", KILL_PATIENCE, is_over)
        .await
        .map(drop)
}

/// Ends one that was never started: its monitor cleans up on SIGTERM.
async fn discard(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    link: &Link,
) -> Result<(), Error> {
    if let Some(monitor) = link.monitor_pid() {
        // Gone already is what was wanted.
        let _ = send_signal(Pid::from_raw(monitor), Signal::SIGTERM);
    }
    until(shared, container, "its end", KILL_PATIENCE, is_over)
        .await
        .map(drop)
}

async fn until(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    what: &str,
    patience: Duration,
    condition: impl FnMut(&Life) -> bool,
) -> Result<Life, Error> {
    let mut lives = container.watch();
    let mut shutdown = shared.shutdown.subscribe();
    tokio::select! {
        reached = timeout(patience, lives.wait_for(condition)) => match reached {
            Ok(life) => life.map(|life| life.clone()).map_err(|_| Error::Ending),
            Err(_) => Err(Error::Timeout {
                what: format!("{}: {what}", container.name),
                seconds: patience.as_secs(),
            }),
        },
        _ = shutdown.wait_for(|down| *down) => Err(Error::Ending),
    }
}

pub(super) fn link_of(container: &Container) -> Result<Arc<Link>, Error> {
    if container.origin == Origin::Found {
        return Err(Error::state(format!(
            "{} was not started by paddock: ask what started it",
            container.name
        )));
    }
    let link = container.facts().link.clone();
    link.ok_or_else(|| Error::state(format!("{} has ended", container.name)))
}
