//! What one run of a container needs, made before it: cgroup, limits, slot, monitor.
//!
//! The monitor takes the cgroup away when the run ends, so each run gets a new one of the same
//! path, under the same slot as long as the container keeps it.

use std::{fs, path::Path, sync::Arc};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use paddock_cgroups::{Applied, Cgroup};
use paddock_probe::Slot;
use paddock_runtime::{network::leave, trace::Trace};

use super::{
    EnrolError, Error, Link, devices,
    files::{self, Config, SOCKET},
    image, network, request, seccomp, sharing,
    undo::Undo,
    watch::watch,
};
use crate::{
    api::State,
    container::{Container, Oom},
    counters,
    policies::Who,
    shared::Shared,
};

/// A monitor that waits for its start.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) slot: Option<Slot>,
    pub(super) link: Arc<Link>,
}

/// Makes it all or, once `undo` has run, nothing. Blocking; inside a tokio runtime.
pub(super) fn ready<'a>(
    shared: &'a Arc<Shared>,
    undo: &mut Undo<'a>,
    config: &mut Config,
    dir: &Path,
    slot: Option<Slot>,
) -> Result<Ready, Error> {
    let mut trace = std::mem::take(&mut config.request.trace).then(Trace::begin);
    let cgroup = Arc::new(Cgroup::create(&shared.hierarchies, &config.cgroup)?);
    let made = Arc::clone(&cgroup);
    undo.push(move || {
        // A monitor may have removed it already; one with processes is the monitor's, being killed.
        let _ = made.kill().and_then(|()| made.remove_alone());
    });
    if let Some(trace) = &mut trace {
        for dir in cgroup.dirs() {
            trace.done("cgroup", &format!("mkdir {}", dir.display()));
        }
    }
    let limited = cgroup.update(&config.request.limits)?;
    if let Some(trace) = &mut trace {
        tell_limits(trace, &limited);
    }

    // Another container that it joins may have other namespaces at each run.
    let mut sharing = sharing::resolve(shared, &config.request.namespaces)?;
    let choice = match &config.request.userns_remap {
        Some(wanted) => {
            let containers = shared.instance.containers_dir();
            sharing.remap(wanted, config.id_maps.as_ref(), &containers)?
        }
        None => None,
    };
    if let Some(choice) = &choice {
        config.id_maps = Some(choice.maps.clone());
    }
    image::own(shared, config, sharing.id_maps.as_ref())?;
    config.shared_with_host = sharing.shares.with_host;
    config.joined = sharing.shares.joined;
    let told = config.shares();
    let slot = if let Some(slot) = slot {
        shared.kernel.renew(&cgroup.ids()?, slot, &told)?;
        Some(slot)
    } else {
        let slot = shared.kernel.enrol(&cgroup.ids()?, &told, 0)?;
        undo.push(move || {
            if let Some(slot) = slot {
                let _ = shared.kernel.release(slot);
            }
        });
        slot
    };
    if let Some(slot) = slot {
        shared
            .kernel
            .give_devices(slot, &devices::blocks(&config.request))
            .map_err(|source| EnrolError::Map { source })?;
        // Before its first instruction.
        shared
            .policies
            .bind(shared, &Who::to_launch(&config.name, &config.request), slot)?;
    }
    let seccomp = shared.filters.of(&config.request)?;
    let setns = seccomp::setns(shared, seccomp.as_ref())?;
    config.setns_before = setns.before;
    config.slot = slot.map(|slot| slot.0);
    config.prepared = true;
    files::write_config(dir, config).map_err(Error::io("write", dir.join("config.json")))?;
    // It is written down: another container's choice sees it.
    drop(choice);
    let mut spec = request::container_spec(
        &config.id,
        dir,
        &config.cgroup,
        config.rootfs.clone(),
        &config.request,
        sharing,
        seccomp,
    )?;
    spec.trace = trace;
    spec.asking = setns.asking;
    let hostname = request::hostname(&config.request, &config.id);
    spec.networks = network::of(&shared.live().cni, &config.request, &config.id, &hostname)?;
    let monitor = shared.zygote.launch(&shared.kernel, &spec)?;
    undo.push(move || {
        // SIGTERM: it removes what it made and ends.
        let _ = kill(Pid::from_raw(monitor), Signal::SIGTERM);
    });
    let link = Arc::new(Link::connect(&dir.join(SOCKET))?);
    Ok(Ready { slot, link })
}

/// As the kernel shows them afterwards.
fn tell_limits(trace: &mut Trace, limits: &Applied) {
    for path in limits.files() {
        let shown = fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
        let how = format!("write {}, reads {}", path.display(), shown.trim_end());
        trace.done("limit", &how);
    }
}

/// Makes a container that has none ready for its next run. Its `turn` is the caller's.
pub(super) async fn again(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
) -> Result<Arc<Link>, Error> {
    let handle = tokio::runtime::Handle::current();
    let (ours, one) = (Arc::clone(shared), Arc::clone(container));
    let task = tokio::task::spawn_blocking(move || {
        // Connecting to the monitor registers with the runtime.
        let _inside = handle.enter();
        make(&ours, &one)
    });
    task.await.map_err(|_| Error::Ending)?
}

fn make(shared: &Arc<Shared>, container: &Arc<Container>) -> Result<Arc<Link>, Error> {
    if *shared.shutdown.borrow() {
        return Err(Error::Ending);
    }
    let dir = shared.instance.container_dir(&container.id);
    let mut config: Config = files::read(&dir, "config.json").ok_or_else(|| {
        Error::state(format!(
            "{}: its config.json cannot be read",
            container.name
        ))
    })?;
    // Of a run whose monitor was killed, or of a start that its agent did not live to finish.
    if let Ok(left) = Cgroup::open(&shared.hierarchies, &config.cgroup) {
        left.kill().and_then(|()| left.remove_alone())?;
    }
    leave(&dir)?;
    let restarting = container.state() == State::Restarting;
    let kept = container.facts().slot.filter(|_| restarting);
    let mut undo = Undo::default();
    let Ready { slot, link } = ready(shared, &mut undo, &mut config, &dir, kept)?;
    undo.forget();
    for record in files::OF_A_RUN {
        // Most are not there.
        let _ = fs::remove_file(dir.join(record));
    }
    if !restarting {
        put_slot_back(shared, container);
        container.unfreeze();
    }
    {
        let mut facts = container.facts();
        facts.slot = slot;
        facts.shared = config.shared_with_host;
        facts.setns_before = config.setns_before;
        facts.link = Some(Arc::clone(&link));
        facts.oom = Oom::default();
        facts.recent = None;
    }
    if let Some(slot) = slot {
        shared.registry.enter_slot(slot, container);
        shared.bind_policies(container, slot);
    }
    let kernel = container.kernel_counters(&shared.kernel);
    container.facts().oom.before = counters::oom_kills(&kernel);
    container.set_life(|life| {
        if !restarting {
            life.state = State::Created;
        }
        life.main = None;
    });
    tokio::spawn(watch(
        Arc::clone(shared),
        Arc::clone(container),
        Arc::clone(&link),
    ));
    Ok(link)
}

/// A start soon after an end finds the slot of the last run, whose counters are summed already.
fn put_slot_back(shared: &Arc<Shared>, container: &Arc<Container>) {
    let Some(slot) = container.facts().slot.take() else {
        return;
    };
    shared.policies.leave(shared, slot);
    shared.registry.forget_slot(slot);
    if let Err(error) = shared.kernel.release(slot) {
        Shared::warn(container, "cannot free its slot", &error);
    }
}
