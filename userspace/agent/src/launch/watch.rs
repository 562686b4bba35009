//! Follow a monitor: what it tells moves its container from state to state.

use std::{pin::pin, sync::Arc, time::Duration};

use paddock_probe::NS_TYPES;
use paddock_runtime::{
    client::Packet,
    record::{Failed, Started},
};
use tokio::time::sleep;

use super::{
    Link,
    end::{Ending, end},
    files::{self, SOCKET},
};
use crate::{api::State, clock, container::Container, namespaces, shared::Shared};

/// Whose limits nobody has the time to change are not watched for that: it would cost each launch.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// Until the container has ended, or the agent does.
pub(super) async fn watch(shared: Arc<Shared>, container: Arc<Container>, mut link: Arc<Link>) {
    let mut shutdown = shared.shutdown.subscribe();
    let mut keep = pin!(sleep(SHORT_LIFE));
    let mut kept = false;
    loop {
        let packet = tokio::select! {
            packet = link.recv() => packet,
            () = &mut keep, if !kept => {
                shared.restorer.keep(&container);
                kept = true;
                continue;
            }
            _ = shutdown.wait_for(|down| *down) => return,
        };
        match packet {
            Ok(Some(Packet::Started(started))) => {
                if on_started(&container, &started) {
                    tracing::info!("{}: started, pid {}", container.name, started.pid);
                    shared.publish(&container, "started");
                }
            }
            Ok(Some(Packet::Failed(failed))) => {
                return end(&shared, &container, failed_ending(failed)).await;
            }
            Ok(Some(Packet::Exited(exit))) => {
                return end(&shared, &container, Ending::Exited { exit, reason: None }).await;
            }
            // Nobody asked for output.
            Ok(Some(Packet::Stdout(_) | Packet::Stderr(_))) => {}
            gone => {
                if let Err(error) = gone {
                    Shared::warn(&container, "monitor", &error);
                }
                match after_monitor(&shared, &container) {
                    After::Lives(again) => link = again,
                    After::Ended(ending) => return end(&shared, &container, *ending).await,
                }
            }
        }
    }
}

enum After {
    /// It only dropped us.
    Lives(Arc<Link>),
    Ended(Box<Ending>),
}

/// What became of a container whose monitor's connection ended, or is not there.
fn after_monitor(shared: &Arc<Shared>, container: &Arc<Container>) -> After {
    let dir = shared.instance.container_dir(&container.id);
    if let Ok(link) = Link::connect(&dir.join(SOCKET)) {
        let link = Arc::new(link);
        container.facts().link = Some(Arc::clone(&link));
        return After::Lives(link);
    }
    let left = files::Left::read(&dir);
    if let Some(file) = left.exit {
        return After::Ended(Box::new(Ending::Exited {
            exit: file.exit,
            reason: file.reason,
        }));
    }
    if let Some(failed) = left.failed {
        return After::Ended(Box::new(failed_ending(failed)));
    }
    After::Ended(Box::new(Ending::MonitorKilled))
}

fn failed_ending(failed: Failed) -> Ending {
    Ending::Failed {
        failed,
        at_ns: clock::now_ns(),
    }
}

/// The workload has been executed: it is what /proc says, if that is still the same process.
/// Whose its namespaces are, the kernel half has seen for itself. `false`: that was known.
pub(super) fn on_started(container: &Arc<Container>, started: &Started) -> bool {
    if !matches!(container.state(), State::Created | State::Restarting) {
        return false;
    }
    let inums = namespaces::of(started.pid)
        .ok()
        .filter(|_| start_time(started.pid) == Some(started.start_time))
        .unwrap_or([0; NS_TYPES]);
    container.facts().namespaces = inums;
    container.set_life(|life| {
        life.state = State::Running;
        life.main = Some((started.pid, started.start_time));
        life.started_at_ns = Some(started.started_at_ns);
        life.end = None;
        life.started += 1;
    });
    true
}

/// Field 22 of /proc/PID/stat.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    procfs::process::Process::new(pid)
        .ok()?
        .stat()
        .ok()
        .map(|stat| stat.starttime)
}
