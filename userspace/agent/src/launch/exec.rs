//! One more process in a running container: a monitor of its own, in the container's directory.

use std::{fs, sync::Arc, time::Duration};

use paddock_runtime::{client::Packet, spec::ExecSpec};
use tokio::time::sleep;

use super::{Error, Link, create::private_dir, files::SOCKET, request, undo::Undo};
use crate::{
    api::{Created, ExecRequest, State},
    container::Container,
    naming,
    shared::Shared,
};

/// A client that lost its connection reads the exit record meanwhile.
const KEEP: Duration = Duration::from_secs(10);

pub(crate) async fn exec(
    shared: Arc<Shared>,
    container: Arc<Container>,
    request: ExecRequest,
) -> Result<Created, Error> {
    let handle = tokio::runtime::Handle::current();
    let task = tokio::task::spawn_blocking(move || {
        // Connecting to the monitor registers with the runtime.
        let _inside = handle.enter();
        make(&shared, &container, &request)
    });
    task.await.map_err(|_| Error::Ending)?
}

fn make(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    request: &ExecRequest,
) -> Result<Created, Error> {
    let life = container.life();
    let Some(config) = &container.request else {
        return Err(Error::state(format!(
            "{} was not started by paddock",
            container.name
        )));
    };
    let (State::Running, Some((pid, start_time))) = (life.state, life.main) else {
        return Err(Error::state(format!("{} does not run", container.name)));
    };
    if container.is_paused(&shared.hierarchies) {
        return Err(Error::state(format!(
            "{0} is paused: `paddock unpause {0}` first",
            container.name
        )));
    }
    let id = naming::random_id().map_err(Error::io("read", "/dev/urandom"))?;
    let dir = shared
        .instance
        .container_dir(&container.id)
        .join("exec")
        .join(&id);
    let target = ExecSpec {
        pid,
        start_time,
        cgroup: container.cgroup.clone(),
    };
    let spec = request::exec_spec(
        &id,
        &dir,
        config,
        target,
        &container.hostname(),
        request,
        shared.filters.of(config)?,
    )?;
    let mut undo = Undo::default();
    private_dir(&dir)?;
    undo.push(|| {
        let _ = fs::remove_dir_all(&dir);
    });
    shared.zygote.launch(&shared.kernel, &spec)?;
    let socket = dir.join(SOCKET);
    let link = Link::connect(&socket)?;
    undo.forget();
    tokio::spawn(follow(Arc::clone(shared), link, dir));
    Ok(Created {
        command: request.args.clone(),
        id,
        name: container.name.clone(),
        monitor_socket: socket,
    })
}

/// Removes the directory some time after the end.
async fn follow(shared: Arc<Shared>, link: Link, dir: std::path::PathBuf) {
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        let packet = tokio::select! {
            packet = link.recv() => packet,
            _ = shutdown.wait_for(|down| *down) => return,
        };
        match packet {
            Ok(Some(Packet::Failed(_) | Packet::Exited(_)) | None) | Err(_) => break,
            Ok(Some(_)) => {}
        }
    }
    drop(link);
    tokio::select! {
        () = sleep(KEEP) => {}
        _ = shutdown.wait_for(|down| *down) => {}
    }
    // With the container it goes anyway.
    let _ = fs::remove_dir_all(&dir);
    if let Some(parent) = dir.parent() {
        let _ = fs::remove_dir(parent);
    }
}
