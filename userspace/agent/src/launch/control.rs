//! What clients ask of a container that is there: start, signal, stop, restart, wait, remove.

use std::{fs, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, kill as send_signal},
    unistd::Pid,
};
use paddock_runtime::{client::signal_payload, network::leave, protocol::Request};
use tokio::time::timeout;

use super::{
    Backoff, Error, Link, again::give_up, change, end::remember, files::SOCKET, image, ready,
};
use crate::{
    api::{Created, Origin, State, WaitReply},
    container::{Container, Life},
    life::LifeOptions,
    shared::Shared,
};

/// A killed cgroup is empty within this, or something in the kernel is stuck.
const KILL_PATIENCE: Duration = Duration::from_secs(20);
/// An emulated machine with a cold cache needs seconds to execute a program.
const START_PATIENCE: Duration = Duration::from_mins(1);
const SIGKILL: i32 = Signal::SIGKILL as i32;
/// A monitor has written its record, its packet comes at once.
const SETTLE: Duration = Duration::from_secs(2);

/// How `stop` and `restart` end it, where the container's own ways are not wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stop {
    pub(crate) signal: Option<i32>,
    /// Seconds; negative: as long as it takes.
    pub(crate) timeout: Option<i64>,
}

/// Starts it and waits until the workload runs, or did not. One that runs is started already.
pub(crate) async fn start(shared: &Arc<Shared>, container: &Arc<Container>) -> Result<i32, Error> {
    let turn = container.turn.lock().await;
    let before = container.life();
    if let (State::Running, Some((pid, _))) = (before.state, before.main) {
        return Ok(pid);
    }
    let link = waiting(shared, container).await?;
    link.send(Request::Start, &[]).await?;
    drop(turn);
    let life = until(
        shared,
        container,
        "its start",
        Some(START_PATIENCE),
        |life| life.started > before.started || life.ended > before.ended,
    )
    .await?;
    let end = life.end.filter(|_| life.started == before.started);
    if let Some(end) = &end
        && end.failed.is_some()
        && end.oom_killed
    {
        return Err(Error::TooLittleMemory {
            name: container.name.clone(),
        });
    }
    if let Some(failed) = end.and_then(|end| end.failed) {
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

/// A monitor that waits for its start, for a client that attaches first.
pub(crate) async fn prepare(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
) -> Result<Created, Error> {
    let _turn = container.turn.lock().await;
    if container.state() == State::Running {
        return Err(Error::state(format!("{} runs already", container.name)));
    }
    waiting(shared, container).await?;
    let dir = shared.instance.container_dir(&container.id);
    Ok(Created {
        id: container.id.clone(),
        name: container.name.clone(),
        command: container.command.clone(),
        monitor_socket: dir.join(SOCKET),
    })
}

/// The monitor of a container that does not run, made if there is none. Its `turn` is the
/// caller's; a user asks.
async fn waiting(shared: &Arc<Shared>, container: &Arc<Container>) -> Result<Arc<Link>, Error> {
    launched(container)?;
    if container.life().removed {
        return Err(Error::state(format!("{} has been removed", container.name)));
    }
    let present = container.facts().link.clone();
    if let Some(link) = present {
        return Ok(link);
    }
    let paused = container.state() == State::Restarting;
    if paused {
        // Its pause ends here; the sums of its runs stay.
        give_up(shared, container);
    }
    let link = ready::again(shared, container).await?;
    container.facts().backoff = Backoff::default();
    remember(shared, container, None);
    Ok(link)
}

/// Sends a signal to its first process. A user's signal is the end of restarts: any one, docker's
/// way, or with a stop signal of its own that one and SIGKILL.
pub(crate) async fn kill(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    signal: i32,
) -> Result<(), Error> {
    launched(container)?;
    let _turn = container.turn.lock().await;
    let own = container
        .request
        .as_ref()
        .and_then(|request| request.life.stop_signal);
    let ends = own.is_none_or(|own| own == signal) || signal == SIGKILL;
    let link = link_of(container);
    if container.state() == State::Restarting && ends && link.is_err() {
        stopped(shared, container);
        give_up(shared, container);
        return Ok(());
    }
    if !matches!(container.state(), State::Running | State::Restarting) {
        return Err(Error::state(format!("{} does not run", container.name)));
    }
    let link = link?;
    if ends {
        stopped(shared, container);
    }
    // What asks a paused one to end lets it go on for that; any other waits until it is unpaused.
    let asks = signal == SIGKILL || signal == own.unwrap_or(Signal::SIGTERM as i32);
    if asks && change::thaw_with(shared, container, signal).await? {
        return Ok(());
    }
    Ok(link.send(Request::Signal, &signal_payload(signal)).await?)
}

/// Its stop signal, and everything in it killed when that has not ended it in time.
pub(crate) async fn stop(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    how: Stop,
) -> Result<(), Error> {
    launched(container)?;
    let turn = container.turn.lock().await;
    let link = link_of(container);
    match container.state() {
        State::Exited => {
            stopped(shared, container);
            return Ok(());
        }
        State::Created => {
            drop(turn);
            return match link {
                Ok(link) => discard(shared, container, &link).await,
                Err(_) => Ok(()),
            };
        }
        State::Restarting if link.is_err() => {
            stopped(shared, container);
            give_up(shared, container);
            return Ok(());
        }
        State::Restarting | State::Running | State::Paused => {}
    }
    stopped(shared, container);
    drop(turn);
    let link = link?;
    // One on its way to its next run has no process to signal yet.
    until(
        shared,
        container,
        "its start",
        Some(START_PATIENCE),
        |life| life.state != State::Restarting,
    )
    .await?;
    let life = container.request.as_ref().map(|request| &request.life);
    let signal = how.signal.or_else(|| life.map(LifeOptions::stop_signal));
    let signal = signal.unwrap_or(Signal::SIGTERM as i32);
    let timeout = how.timeout.or_else(|| life.map(LifeOptions::stop_timeout));
    let mut patience = u64::try_from(timeout.unwrap_or(0))
        .ok()
        .map(Duration::from_secs);
    if !change::thaw_with(shared, container, signal).await?
        && let Err(error) = link.send(Request::Signal, &signal_payload(signal)).await
    {
        // Its monitor goes with it when it has ended by itself; one that is stuck is not waited for
        // for ever.
        tracing::debug!("{}: the stop signal: {error}", container.name);
        patience = patience.or(Some(START_PATIENCE));
    }
    match until(shared, container, "its end", patience, is_over).await {
        Err(Error::Timeout { .. }) => end_now(shared, container, &link).await,
        other => other.map(drop),
    }
}

/// Stops it if it runs, and starts it again.
pub(crate) async fn restart(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    how: Stop,
) -> Result<i32, Error> {
    launched(container)?;
    container.facts().stays = true;
    let restarted = async {
        stop(shared, container, how).await?;
        start(shared, container).await
    };
    let restarted = restarted.await;
    container.facts().stays = false;
    restarted
}

/// A user ended it: no policy starts it again, as long as this agent lives.
fn stopped(shared: &Shared, container: &Container) {
    container.facts().backoff.stopped = true;
    remember(shared, container, None);
}

/// Until it has ended, or the run has that a restart follows. One that is to be removed at its end
/// is gone by then: its name is free for whoever waited.
pub(crate) async fn wait(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    ended_at_ns: Option<u64>,
) -> Result<WaitReply, Error> {
    let mut lives = container.watch();
    let mut shutdown = shared.shutdown.subscribe();
    let ended = container.life().ended;
    let is_past = |life: &Life| {
        let end = life.end.as_ref().map(|end| end.finished_at_ns);
        ended_at_ns.is_some_and(|at| end.is_some_and(|end| end >= at))
    };
    let life = tokio::select! {
        life = lives.wait_for(|life| {
            let settled = !life.leaves || life.removed;
            settled && (is_over(life) || life.ended > ended || is_past(life))
        }) => life.map(|life| life.clone()),
        _ = shutdown.wait_for(|down| *down) => return Err(Error::Ending),
    };
    let end = life.ok().and_then(|life| life.end).ok_or(Error::Ending)?;
    Ok(WaitReply {
        exit_code: end.exit_code.unwrap_or(0),
        oom_killed: end.oom_killed,
        oom: end.oom,
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
    let turn = container.turn.lock().await;
    let link = link_of(container);
    match container.state() {
        State::Running | State::Paused | State::Restarting if !force => {
            return Err(Error::state(format!(
                "{name} runs: `paddock stop {name}` first, or remove it with --force"
            )));
        }
        State::Restarting if link.is_err() => {
            stopped(shared, container);
            give_up(shared, container);
            drop(turn);
        }
        State::Running | State::Paused | State::Restarting => {
            stopped(shared, container);
            drop(turn);
            end_now(shared, container, &*link?).await?;
        }
        State::Created => {
            drop(turn);
            if let Ok(link) = link {
                discard(shared, container, &link).await?;
            }
        }
        State::Exited => drop(turn),
    }
    // Who ends it has more to write after it has said so.
    let _turn = container.turn.lock().await;
    take_out(shared, container);
    Ok(())
}

/// Waits for the packet of a monitor that has left its record already, so that an answer is
/// never older than what a client was told by the monitor.
pub(crate) async fn settled(shared: &Arc<Shared>, container: &Arc<Container>) {
    let life = container.life();
    // Between two runs the last one's record lies there, too.
    let known = matches!(life.state, State::Exited | State::Restarting);
    if container.origin == Origin::Found || known {
        return;
    }
    let dir = shared.instance.container_dir(&container.id);
    if ["exit.json", "failed.json"]
        .iter()
        .any(|name| dir.join(name).exists())
    {
        // What comes later than that is told as it is now.
        let _ = until(shared, container, "its end", Some(SETTLE), |now| {
            is_over(now) || now.ended > life.ended
        })
        .await;
    }
}

/// Takes an ended container out of everything; its counters stay a while in the metrics.
pub(super) fn take_out(shared: &Arc<Shared>, container: &Arc<Container>) {
    let dir = shared.instance.container_dir(&container.id);
    // Only if that failed at its end.
    if let Err(error) = leave(&dir) {
        Shared::warn(container, "cannot take it off its networks", &error);
    }
    // Away from the monitors of its execs, which may write their last record by its name now.
    let gone = dir.with_extension("gone");
    if let Err(error) = fs::rename(&dir, &gone).and_then(|()| fs::remove_dir_all(&gone))
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
    until(shared, container, "its end", Some(KILL_PATIENCE), is_over)
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
    until(shared, container, "its end", Some(KILL_PATIENCE), is_over)
        .await
        .map(drop)
}

async fn until(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    what: &str,
    patience: Option<Duration>,
    condition: impl FnMut(&Life) -> bool,
) -> Result<Life, Error> {
    let patience = patience.unwrap_or(Duration::MAX);
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

fn launched(container: &Container) -> Result<(), Error> {
    if container.origin == Origin::Found {
        return Err(Error::state(format!(
            "{} was not started by paddock: ask what started it",
            container.name
        )));
    }
    Ok(())
}

pub(super) fn link_of(container: &Container) -> Result<Arc<Link>, Error> {
    launched(container)?;
    let link = container.facts().link.clone();
    link.ok_or_else(|| Error::state(format!("{} has ended", container.name)))
}
