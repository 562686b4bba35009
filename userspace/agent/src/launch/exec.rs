//! One more process in a running container: a monitor of its own, in the container's directory.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use paddock_probe::NsType;
use paddock_runtime::{client::Packet, spec::ExecSpec};
use tokio::time::sleep;

use super::{Error, Link, files::SOCKET, request, seccomp, undo::Undo};
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
        types: request.types.clone(),
    };
    let own_user = container.facts().shared & NsType::User.bit() == 0;
    check_types(&target, own_user, request.user.is_some())?;
    let seccomp = shared.filters.of(config)?;
    let asking = seccomp::setns(shared, seccomp.as_ref())?.asking;
    let mut spec = request::exec_spec(
        &id,
        &dir,
        config,
        target,
        &container.hostname(),
        request,
        seccomp,
    )?;
    spec.asking = asking;
    let mut undo = Undo::default();
    make_dir(shared, container, &dir)?;
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

/// Only in a container's directory that is there: one that is removed meanwhile stays so.
fn make_dir(shared: &Shared, container: &Container, dir: &Path) -> Result<(), Error> {
    let all = shared.instance.container_dir(&container.id).join("exec");
    let private = |dir: &Path| fs::DirBuilder::new().mode(0o700).create(dir);
    let made = match private(&all) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    made.and_then(|()| private(dir)).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            Error::state(format!("{} has been removed", container.name))
        } else {
            Error::io("make", dir)(error)
        }
    })
}

/// Refuses in words what the plan refuses by errno, and a first process in a user namespace it
/// made itself while the container's others are in the host's.
fn check_types(target: &ExecSpec, own_user: bool, named_user: bool) -> Result<(), Error> {
    let known = |name: &String| NsType::ALL.into_iter().any(|ty| ty.name() == name);
    if let Some(name) = target.types.iter().find(|name| !known(name)) {
        return Err(Error::invalid(format!(
            "--type '{}': expected one of {}",
            request::shown(name),
            NsType::ALL.map(NsType::name).join(", ")
        )));
    }
    let why = if target.joins("mnt") {
        if !target.joins("pid") {
            "mnt without pid: the container's program could signal the host's processes; add pid"
        } else if own_user && !target.joins("user") {
            "mnt without user: the container's program would be the host's root; add user"
        } else {
            return Ok(());
        }
    } else if target.joins("user") {
        "user without mnt: the container could trace a program in the host's mount namespace; add mnt, or leave user out"
    } else if !own_user {
        "without mnt: the container is in the host's user namespace, so it could trace a program in the host's mount namespace; add mnt and pid"
    } else if named_user {
        "without mnt: the program is the host's and root's; leave --user out"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("--type: {why}")))
}

/// Removes the directory some time after the end.
async fn follow(shared: Arc<Shared>, link: Link, dir: PathBuf) {
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
}
