//! Make a container: directory, name and, unless it is to be started later, what its first run
//! needs; everything or nothing.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc};

use paddock_probe::NS_TYPES;

use super::{
    Error,
    files::{self, Config, SOCKET},
    image, network,
    ready::{Ready, ready},
    request, sharing,
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
pub(crate) async fn create(
    shared: Arc<Shared>,
    request: CreateRequest,
    prepare: bool,
) -> Result<Created, Error> {
    let handle = tokio::runtime::Handle::current();
    let task = tokio::task::spawn_blocking(move || {
        // Connecting to the monitor registers with the runtime.
        let _inside = handle.enter();
        make(&shared, request, prepare)
    });
    task.await.map_err(|_| Error::Ending)?
}

fn make(shared: &Arc<Shared>, mut request: CreateRequest, prepare: bool) -> Result<Created, Error> {
    request::check(&request)?;
    network::check(&shared.live().cni, &mut request)?;
    // A profile that cannot be compiled is refused before anything is made; the filter is kept.
    shared.filters.of(&request)?;
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
    });

    let (rootfs, writable) = image::rootfs(shared, &id, &dir, &mut request)?;
    undo.push(move || {
        if let Some(writable) = writable {
            let _ = writable.remove();
        }
    });

    let mut config = Config {
        rootfs,
        id: id.clone(),
        name: name.clone(),
        created_at_ns: clock::now_ns(),
        cgroup: cgroup_path,
        slot: None,
        shared_with_host: 0,
        setns_before: false,
        joined: [0; NS_TYPES],
        id_maps: None,
        writes_as: None,
        request,
        prepared: prepare,
    };
    let (slot, link) = if prepare {
        let Ready { slot, link } = ready(shared, &mut undo, &mut config, &dir, None)?;
        (slot, Some(link))
    } else {
        files::write_config(&dir, &config).map_err(Error::io("write", dir.join("config.json")))?;
        (None, None)
    };
    undo.forget();

    let sharing = config.shares();
    let facts = Facts {
        slot,
        namespaces: [0; NS_TYPES],
        shared: config.shared_with_host,
        setns_before: config.setns_before,
        link: link.clone(),
        ..Facts::default()
    };
    let container = shared.registry.insert(reservation, birth(config, facts));
    if let Some(slot) = slot {
        shared.bind_policies(&container, slot);
    }
    tracing::info!(
        "{}: created, id {}, slot {}, shares {}",
        container.name,
        &container.id[..12],
        slot.map_or_else(|| "none".to_owned(), |slot| slot.0.to_string()),
        sharing::describe(&sharing)
    );
    shared.publish(&container, "created");
    if let Some(link) = link {
        tokio::spawn(watch(Arc::clone(shared), Arc::clone(&container), link));
    }
    Ok(Created {
        id,
        name,
        command: container.command.clone(),
        monitor_socket: dir.join(SOCKET),
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
        parent: None,
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
fn private_dir(dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(Error::io("make", dir))
}

impl Container {
    pub(super) fn hostname(&self) -> String {
        let request = self.request.as_ref();
        request.map_or_else(String::new, |request| request::hostname(request, &self.id))
    }
}
