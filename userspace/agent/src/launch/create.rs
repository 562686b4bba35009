//! Make a container: directory, cgroup, limits, slot, monitor; everything or nothing.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use paddock_cgroups::Cgroup;
use paddock_probe::NS_TYPES;

use super::{
    Error, Link,
    files::{self, Config, SOCKET},
    image, request, sharing,
    undo::Undo,
    watch::watch,
};
use crate::{
    api::{CreateRequest, Created, Origin},
    clock,
    container::{Birth, Container, Facts},
    naming,
    registry::Reservation,
    shared::Shared,
};

/// Whole even if the client that asked goes away meanwhile.
pub(crate) async fn create(shared: Arc<Shared>, request: CreateRequest) -> Result<Created, Error> {
    let handle = tokio::runtime::Handle::current();
    let task = tokio::task::spawn_blocking(move || {
        // Connecting to the monitor registers with the runtime.
        let _inside = handle.enter();
        make(&shared, request)
    });
    task.await.map_err(|_| Error::Ending)?
}

fn make(shared: &Arc<Shared>, mut request: CreateRequest) -> Result<Created, Error> {
    request::check(&request)?;
    if *shared.shutdown.borrow() {
        return Err(Error::Ending);
    }
    let reservation = reserve(shared, request.name.as_deref())?;
    let name = reservation.name().to_owned();
    request.name = Some(name.clone());
    let id = naming::random_id().map_err(Error::io("read", "/dev/urandom"))?;
    let dir = shared.instance.container_dir(&id);
    let cgroup_path = shared.instance.cgroup_of(&id);
    let mut undo = Undo::default();

    private_dir(&dir)?;
    undo.push(|| {
        let _ = fs::remove_dir_all(&dir);
        // Only when it was the last.
        let _ = fs::remove_dir(shared.instance.containers_dir());
    });

    let (rootfs, writable) = image::rootfs(shared, &id, &dir, &mut request)?;
    undo.push(move || {
        if let Some(writable) = writable {
            let _ = writable.remove();
        }
    });

    let cgroup = Arc::new(Cgroup::create(&shared.hierarchies, &cgroup_path)?);
    let made = Arc::clone(&cgroup);
    undo.push(move || {
        // A monitor may have removed it already; one with processes is the monitor's, being killed.
        let _ = made.kill().and_then(|()| made.remove());
    });
    cgroup.apply(&request.limits)?;

    let sharing = sharing::resolve(shared, &request.namespaces)?;
    let own = sharing.shares;
    let slot = shared.kernel.enrol(&cgroup.ids()?, &own)?;
    undo.push(move || {
        if let Some(slot) = slot {
            let _ = shared.kernel.release(slot);
        }
    });

    let config = Config {
        id: id.clone(),
        name: name.clone(),
        created_at_ns: clock::now_ns(),
        cgroup: cgroup_path.clone(),
        slot: slot.map(|slot| slot.0),
        shared_with_host: own.with_host,
        joined: own.joined,
        request,
    };
    files::write_config(&dir, &config).map_err(Error::io("write", dir.join("config.json")))?;
    let spec = request::container_spec(&id, &dir, &cgroup_path, rootfs, &config.request, sharing)?;
    let monitor = shared.zygote.launch(&shared.kernel, &spec)?;
    undo.push(move || {
        // SIGTERM: it removes what it made and ends.
        let _ = kill(Pid::from_raw(monitor), Signal::SIGTERM);
    });
    let socket = dir.join(SOCKET);
    let link = Arc::new(Link::connect(&socket)?);
    undo.forget();

    let facts = Facts {
        slot,
        namespaces: [0; NS_TYPES],
        shared: own.with_host,
        link: Some(Arc::clone(&link)),
        ..Facts::default()
    };
    let container = shared.registry.insert(reservation, birth(config, facts));
    tracing::info!(
        "{}: created, id {}, slot {}, shares {}",
        container.name,
        &container.id[..12],
        slot.map_or_else(|| "none".to_owned(), |slot| slot.0.to_string()),
        sharing::describe(&own)
    );
    shared.publish(&container, "created");
    tokio::spawn(watch(Arc::clone(shared), Arc::clone(&container), link));
    Ok(Created {
        id,
        name,
        command: container.command.clone(),
        monitor_socket: socket,
    })
}

pub(super) fn birth(config: Config, facts: Facts) -> Birth {
    Birth {
        id: config.id,
        name: config.name,
        image: config.request.image.clone(),
        command: config.request.args.clone(),
        origin: Origin::Launched,
        cgroup: config.cgroup,
        created_at_ns: config.created_at_ns,
        request: Some(config.request),
        facts,
    }
}

fn reserve<'a>(shared: &'a Shared, name: Option<&str>) -> Result<Reservation<'a>, Error> {
    if let Some(name) = name {
        return Ok(shared.registry.reserve(name)?);
    }
    loop {
        let name = naming::random_name(|name| shared.registry.has_name(name))
            .map_err(Error::io("read", "/dev/urandom"))?;
        // Another request can have taken it since.
        if let Ok(reservation) = shared.registry.reserve(&name) {
            return Ok(reservation);
        }
    }
}

/// With its parents, 0700.
pub(super) fn private_dir(dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(Error::io("make", dir))
}

impl Container {
    pub(super) fn hostname(&self) -> String {
        let own = self
            .request
            .as_ref()
            .and_then(|request| request.hostname.clone());
        own.unwrap_or_else(|| self.id.chars().take(12).collect())
    }
}
