//! The time between two runs: the pause, its end by a new run, a stop or the agent's end.
//!
//! An agent that dies meanwhile leaves `past.json`, which says when the run was due.

use std::{sync::Arc, time::Duration};

use paddock_cgroups::Stats;
use paddock_runtime::protocol::Request;
use tokio::time::sleep;

use super::{
    end::{close, remember},
    ready,
};
use crate::{api::State, chain::chain, container::Container, shared::Shared};

/// Starts a container that restarts, after a pause; `stop` and `start` may come first.
pub(super) fn later(shared: &Arc<Shared>, container: &Arc<Container>, pause: Duration) {
    tokio::spawn(run(Arc::clone(shared), Arc::clone(container), pause));
}

async fn run(shared: Arc<Shared>, container: Arc<Container>, pause: Duration) {
    let ended = container.life().ended;
    let mut lives = container.watch();
    let mut shutdown = shared.shutdown.subscribe();
    tokio::select! {
        () = sleep(pause) => {}
        _ = lives.wait_for(|life| life.state != State::Restarting || life.ended != ended) => return,
        _ = shutdown.wait_for(|down| *down) => return,
    }
    let _turn = container.turn.lock().await;
    let life = container.life();
    let due = life.state == State::Restarting && life.ended == ended;
    if !due || container.facts().link.is_some() || *shared.shutdown.borrow() {
        return;
    }
    match ready::again(&shared, &container).await {
        Ok(link) => {
            // A monitor that is gone is its watcher's to see.
            let _ = link.send(Request::Start, &[]).await;
        }
        Err(error) => {
            Shared::warn(&container, "cannot start it again", &error);
            let reason = format!("not started again: {}", chain(&error));
            container.set_life(|life| {
                if let Some(end) = &mut life.end {
                    end.reason = Some(reason);
                }
            });
            give_up(&shared, &container);
        }
    }
}

/// From its pause to its end. Its `turn` is the caller's.
pub(super) fn give_up(shared: &Arc<Shared>, container: &Arc<Container>) {
    let Some(end) = container.life().end else {
        return;
    };
    let kernel = container.kernel_counters(&shared.kernel);
    close(shared, container, end, &kernel, &Stats::default());
    remember(shared, container, None);
    shared.publish(container, "stopped");
    tracing::info!("{}: not started again", container.name);
}
