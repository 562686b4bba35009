//! An agent's life: from the lock to the last file it removes.
//!
//! What needs a process without threads or a blocking thread comes first, in the main thread:
//! root, lock, port, zygote, kernel half. Then tokio. Whatever fails, what came before it is
//! undone, and the error is one line.

mod live;
mod reload;
mod service;

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, RwLock, atomic::AtomicUsize},
    time::Duration,
};

use paddock_cgroups::{Delegation, Hierarchies};
use paddock_probe::{Config, Probe};
use paddock_runtime::zygote::{self, Zygote};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};

use crate::{
    bus::Bus,
    canary::Canary,
    chain::chain,
    check,
    fills::Fills,
    found::Found,
    instance::{self, Instance},
    kernel::Kernel,
    launch::{self, Filters, Keeper, Restorer},
    options::{Listen, Options, ProbeMode, Reload},
    policies::Policies,
    registry::Registry,
    shared::Shared,
    shipping::{self, Shipped},
    store::Store,
    web::{self, Door},
};

/// Requests under way get so long to finish.
const GRACE: Duration = Duration::from_secs(3);
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the agent needs root: run it as root, for instance with sudo")]
    NotRoot,
    #[error(transparent)]
    Instance(#[from] instance::Error),
    #[error(transparent)]
    Cgroups(#[from] paddock_cgroups::Error),
    #[error("cannot serve metrics on {address}{}", hint(source))]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(transparent)]
    Web(#[from] web::Error),
    #[error("cannot serve metrics on the socket that systemd handed over")]
    Handed {
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Zygote(#[from] zygote::Error),
    // Its own text says what the kernel lacks.
    #[error(transparent)]
    Probe(paddock_probe::Error),
    #[error("cannot {op}")]
    Runtime {
        op: &'static str,
        #[source]
        source: io::Error,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "; choose another port with --web.listen-address (0 takes a free one)"
        }
        _ => "",
    }
}

/// Runs an agent until SIGTERM, SIGINT, a client's request, or, when ephemeral, idleness; SIGHUP
/// has it read its options anew. Call from a process that has no threads yet.
pub fn run(options: Options, reload: Reload) -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let hierarchies = Hierarchies::discover()?;
    let mut instance = Instance::open(&options.state_dir)?;
    let ephemeral = options.ephemeral;
    // Before the zygote, which is where the agent is, as the monitors are after it.
    let delegation = hierarchies.take_delegated();
    instance.set_base(delegation.base());
    match start(options, hierarchies.clone(), delegation, &instance) {
        Ok(started) => serve(instance, started, reload),
        Err(error) => {
            leave_cgroups(&hierarchies, &instance);
            instance.close(ephemeral);
            Err(error)
        }
    }
}

/// What was made before tokio.
struct Started {
    options: Options,
    hierarchies: Hierarchies,
    delegation: Delegation,
    door: Door,
    web: Option<(TcpListener, SocketAddr)>,
    zygote: Zygote,
    kernel: Kernel,
    runtime: Runtime,
}

fn start(
    options: Options,
    hierarchies: Hierarchies,
    delegation: Delegation,
    instance: &Instance,
) -> Result<Started, Error> {
    let door = Door::new(options.web_config.as_deref())?;
    let web = listen(options.listen)?;
    let zygote = Zygote::spawn()?;
    let kernel = load(&options, instance)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("paddock-agent")
        .enable_all()
        .build()
        .map_err(|source| Error::Runtime {
            op: "start threads",
            source,
        })?;
    Ok(Started {
        options,
        hierarchies,
        delegation,
        door,
        web,
        zygote,
        kernel,
        runtime,
    })
}

fn listen(listen: Listen) -> Result<Option<(TcpListener, SocketAddr)>, Error> {
    let ready = |listener: TcpListener| {
        listener.set_nonblocking(true)?;
        let chosen = listener.local_addr()?;
        Ok((listener, chosen))
    };
    let listening = match listen {
        Listen::Nowhere => return Ok(None),
        Listen::Address(address) => TcpListener::bind(address)
            .and_then(ready)
            .map_err(|source| Error::Listen { address, source })?,
        Listen::Systemd => ready(web::inherited()?).map_err(|source| Error::Handed { source })?,
    };
    Ok(Some(listening))
}

fn load(options: &Options, instance: &Instance) -> Result<Kernel, Error> {
    let config = Config {
        pin_dir: instance.pin_dir(),
        force: options.force_rungs.clone(),
        program_log: options.program_log,
    };
    let fresh = !config.pin_dir.exists();
    match Probe::load(&config) {
        Ok(mut probe) => {
            if let Err(error) = probe.limit_records(options.live.record_rate) {
                tracing::warn!("records are not limited: {}", chain(&error));
            }
            let kernel = Kernel::loaded(probe);
            for status in kernel.capabilities() {
                tracing::info!(
                    "{}: {}",
                    status.capability,
                    status.rung.as_deref().unwrap_or("off")
                );
            }
            Ok(kernel)
        }
        Err(source) => {
            // What it made before it failed; a predecessor's may go on counting.
            if fresh && let Err(error) = Probe::unload_pins(&config.pin_dir) {
                tracing::warn!("{}", chain(&error));
            }
            if options.probe == ProbeMode::Required {
                return Err(Error::Probe(source));
            }
            let reason = chain(&source);
            tracing::error!("containers are launched but not watched, no kernel half: {reason}");
            Ok(Kernel::absent(reason, check::host_namespaces()))
        }
    }
}

/// Serves to the end, and cleans up.
fn serve(instance: Instance, started: Started, reload: Reload) -> Result<(), Error> {
    let Started {
        options,
        hierarchies,
        delegation,
        door,
        web,
        zygote,
        kernel,
        runtime,
    } = started;
    tracing::info!(
        "containers' cgroups are in /{}: {}",
        instance.cgroup_parent().display(),
        delegation.reason()
    );
    let (web, metrics_address) = web.unzip();
    let (store, bus) = store(&options, &instance);
    let shipped = shipped(&options);
    let shared = Arc::new(Shared {
        live: RwLock::new(Arc::new(options.live.clone())),
        options,
        instance,
        hierarchies,
        delegation,
        kernel,
        registry: Registry::default(),
        bus,
        store: store.map(Arc::new),
        shipped,
        zygote: Keeper::new(zygote),
        filters: Filters::default(),
        found: Found::new(),
        policies: Policies::default(),
        restorer: Restorer::new(),
        canary: Canary::default(),
        fills: Fills::default(),
        metrics_address,
        door: Arc::new(door),
        shutdown: watch::Sender::new(false),
        clients: AtomicUsize::new(0),
        inherited: Mutex::new(HashMap::new()),
        freed: Mutex::default(),
    });
    let served = runtime.block_on(live::live(Arc::clone(&shared), web, reload));
    // What still runs holds nothing that would be lost.
    runtime.shutdown_timeout(GRACE);
    shared.zygote.end();
    if let Some(store) = &shared.store
        && store.close(&shared.bus)
    {
        // Where ids go on is in the store.
        let _ = std::fs::remove_file(shared.instance.next_event_path());
    }
    let options = &shared.options;
    if options.ephemeral {
        launch::clean_exited(&shared);
    }
    let probe = shared.kernel.take();
    // One that never served leaves nothing, whatever it was told to leave.
    if let Some(probe) = probe
        && (shared.live().detach_on_exit || (served.is_err() && !shared.kernel.adopted()))
        && let Err(error) = probe.unload()
    {
        tracing::error!("{}", chain(&error));
    }
    leave_cgroups(&shared.hierarchies, &shared.instance);
    shared.instance.close(options.ephemeral);
    served
}

/// An ephemeral agent is there for a launch, which is not to wait for a disk.
fn store(options: &Options, instance: &Instance) -> (Option<Store>, Arc<Bus>) {
    if options.ephemeral || options.events.max_bytes == 0 {
        return (None, Arc::new(Bus::new()));
    }
    let counter = instance.next_event_path();
    let (store, bus) = Store::open(&options.data_dir, instance.name(), &counter, options.events);
    (Some(store), bus)
}

/// The receivers that events are passed on to.
fn shipped(options: &Options) -> Vec<Arc<Shipped>> {
    let journald = options.journald.then_some(shipping::JOURNALD);
    let otlp = options.otlp_endpoint.as_ref().map(|_| shipping::OTLP);
    let to = journald.into_iter().chain(otlp);
    to.map(|to| Arc::new(Shipped::new(to))).collect()
}

/// A monitor leaves the parents to the agent while one listens, which no longer does.
fn leave_cgroups(hierarchies: &Hierarchies, instance: &Instance) {
    for parent in instance.cgroup_parents() {
        hierarchies.remove_empty(&parent);
    }
    if let Some(base) = instance.base() {
        hierarchies.leave_delegated(base);
    }
}
