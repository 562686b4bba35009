//! The part of an agent's life inside tokio: take up, serve, wait for the end.

use std::{
    net::TcpListener,
    sync::{Arc, PoisonError},
    time::Duration,
};

use paddock_probe::Slot;
use paddock_runtime::give_back;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{Error, GRACE, reload, service};
use crate::{
    api::{Origin, State},
    canary,
    chain::chain,
    clock, fills, found, guard, launch, metrics,
    options::Reload,
    policies::{directory, reactions},
    rates, runtime_files, server,
    shared::Shared,
    shipping, telling, web, withheld,
};

/// An ephemeral agent ends when it was idle for so long.
const IDLE: Duration = Duration::from_secs(3);
const IDLE_STEP: Duration = Duration::from_millis(200);
/// A container that nobody starts for so long lost its client.
const ABANDONED_NS: u64 = 60_000_000_000;

pub(super) async fn live(
    shared: Arc<Shared>,
    listener: Option<TcpListener>,
    reload: Reload,
) -> Result<(), Error> {
    let runtime = |op| move |source| Error::Runtime { op, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(runtime("watch for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(runtime("watch for SIGINT"))?;
    let hangup = signal(SignalKind::hangup()).map_err(runtime("watch for SIGHUP"))?;
    let router = metrics::router(Arc::clone(&shared));

    take_up(&shared).await;
    // Loading the kernel half took most of it, for a moment.
    give_back();

    // The socket last: a client that finds it finds an agent that has all it needs to stay.
    shared.instance.write_agent_file(shared.metrics_address)?;
    let socket = shared.instance.bind_socket()?;
    tokio::spawn(reload::run(Arc::clone(&shared), reload, hangup));
    tokio::spawn(launch::keep(Arc::clone(&shared)));
    tokio::spawn(launch::keep_limits(Arc::clone(&shared)));
    let canary = tokio::spawn(canary::keep(Arc::clone(&shared)));
    tokio::spawn(rates::keep(Arc::clone(&shared)));
    tokio::spawn(fills::keep(Arc::clone(&shared)));
    tokio::spawn(found::run(Arc::clone(&shared)));
    tokio::spawn(withheld::watch(Arc::clone(&shared)));
    guard::warn(&shared);
    tokio::spawn(guard::watch(Arc::clone(&shared)));
    tokio::spawn(runtime_files::run(Arc::clone(&shared)));
    tokio::spawn(reactions::run(Arc::clone(&shared)));
    shipping::start(&shared);
    let mut servers = vec![watched(
        &shared,
        "API",
        server::serve_api(Arc::clone(&shared), socket),
    )];
    if let Some(web) = listener {
        let serving = web::serve(
            Arc::clone(&shared.door),
            web,
            router,
            shared.shutdown.subscribe(),
        );
        servers.push(watched(&shared, "metrics", serving));
    }
    tracing::info!(
        "serving {}{}",
        shared.instance.dir().display(),
        shared
            .metrics_address
            .map_or_else(String::new, |address| format!(
                ", metrics on {}://{address}/metrics",
                shared.door.scheme()
            ))
    );
    service::ready("watching");
    tokio::spawn(service::watchdog(Arc::clone(&shared)));

    let mut shutdown = shared.shutdown.subscribe();
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: ending"),
        _ = interrupt.recv() => tracing::info!("SIGINT: ending"),
        _ = shutdown.wait_for(|down| *down) => {}
        () = idle(&shared), if shared.options.ephemeral => tracing::info!("idle: ending"),
    }
    service::stopping();
    shared.begin_shutdown();
    shared.instance.remove_socket();
    let finished = async {
        // It takes its stage down.
        let _ = canary.await;
        for server in servers {
            // A server that panicked has ended, too.
            let _ = server.await;
        }
    };
    if timeout(GRACE, finished).await.is_err() {
        tracing::warn!("clients were cut off after {} s", GRACE.as_secs());
    }
    Ok(())
}

/// Everything a predecessor left, what others run, and the rings.
async fn take_up(shared: &Arc<Shared>) {
    let pids = [Some(std::process::id()), shared.zygote.pid()];
    for pid in pids.into_iter().flatten() {
        if let Err(error) = shared.kernel.exempt(pid) {
            tracing::error!("cannot exempt paddock itself: {}", chain(&error));
        }
    }
    match shared.kernel.tracked() {
        Ok(tracked) => {
            let mut inherited = shared
                .inherited
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let decided = tracked
                .into_iter()
                .filter(|(_, slot)| !shared.kernel.is_provisional(*slot));
            inherited.extend(decided);
        }
        Err(error) => tracing::error!("{}", chain(&error)),
    }
    let left = shared.kernel.slots();
    // What is born from now on is missed by nobody.
    if let Err(error) = shared.kernel.lay_out_slots() {
        tracing::error!("cannot lay out slots for new containers: {}", chain(&error));
    }
    shared.policies.restore(shared);
    guard::follow(shared, &shared.policies);
    let unfinished = launch::reconcile(shared);
    let walker = Arc::clone(shared);
    let handle = tokio::runtime::Handle::current();
    let walk = tokio::task::spawn_blocking(move || {
        let _inside = handle.enter();
        found::first_walk(&walker);
    });
    // A panic in it has told of itself.
    let _ = walk.await;
    release_unclaimed(shared, left);
    tokio::spawn(found::births::keep(Arc::clone(shared)));
    match shared.kernel.take_events() {
        Ok(Some(reader)) => {
            tokio::spawn(telling::run(
                Arc::clone(shared),
                reader,
                shared.shutdown.subscribe(),
            ));
        }
        Ok(None) => {}
        Err(error) => tracing::error!("no events: {}", chain(&error)),
    }
    unfinished.finish(shared).await;
    // What is there is known now and bound by them; nothing can be launched yet.
    directory::apply(shared);
}

/// Slots of containers that went while no agent looked. What is undecided waits for its record.
fn release_unclaimed(shared: &Shared, mut left: Vec<Slot>) {
    let mut inherited = shared
        .inherited
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    inherited.clear();
    drop(inherited);
    left.retain(|slot| shared.registry.of_slot(*slot).is_none());
    if left.is_empty() {
        return;
    }
    // What rules counted of them is not of whoever has a slot next.
    for slot in &left {
        shared.policies.leave(shared, *slot);
    }
    if let Err(error) = shared.kernel.release_all(&left) {
        tracing::warn!("cannot free slots: {}", chain(&error));
    }
}

/// A server that ends by itself ends the agent: half an agent would only look like one.
fn watched(
    shared: &Arc<Shared>,
    what: &'static str,
    server: impl Future<Output = std::io::Result<()>> + Send + 'static,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!("{what}: {error}");
        }
        shared.begin_shutdown();
    })
}

/// Returns when no container lives and no client was connected for some time.
async fn idle(shared: &Arc<Shared>) {
    let mut since = Instant::now();
    while since.elapsed() < IDLE {
        sleep(IDLE_STEP).await;
        remove_abandoned(shared).await;
        if shared.clients() > 0 || !shared.registry.is_idle() {
            since = Instant::now();
        }
    }
}

async fn remove_abandoned(shared: &Arc<Shared>) {
    for container in shared.registry.all() {
        let age = clock::now_ns().saturating_sub(container.created_at_ns);
        let abandoned = container.origin == Origin::Launched
            && container.state() == State::Created
            && container.facts().link.is_some()
            && age > ABANDONED_NS;
        if abandoned && let Err(error) = launch::remove(shared, &container, true).await {
            Shared::warn(&container, "cannot remove it", &error);
        }
    }
}
