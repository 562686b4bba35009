//! `create`: everything but the program itself, which waits for `start`.

use std::{
    fs::{self, File},
    io::Write as _,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use oci_spec::runtime::Spec;
use paddock_cgroups::{Cgroup, Hierarchies};
use paddock_runtime::{
    direct::{self, Launched, Request, Scheduler, States},
    net_devices::Moved,
    spec::{Process, Target},
};

use crate::{
    args::{CgroupManager, Command, Create},
    config, console,
    container::{self, Container, Record, Status},
    error::Error,
    hooks, id,
    log::Log,
    translate::{self, Bundle},
};

/// Where containers are whose bundle names no cgroup.
const CGROUP_PARENT: &str = "paddock-oci";

/// How far a container is made, to be unmade in the reverse order.
#[derive(Debug)]
struct Making {
    container: Option<Container>,
    cgroup: Option<Cgroup>,
    devices: Option<Moved>,
}

/// Where a container's cgroup is to be.
#[derive(Debug)]
struct Place {
    hierarchies: Hierarchies,
    /// Relative to every hierarchy's root.
    path: String,
    /// Its parents are paddock's own.
    own_parents: bool,
}

pub(super) fn verb(
    root: &Path,
    wanted: &Create,
    manager: CgroupManager,
    log: &Log,
) -> Result<(), Error> {
    create(root, wanted, manager, log, false).map(drop)
}

/// The container, whose lock is held, and its first process. `here`: a terminal may stay with
/// the caller.
pub(super) fn create(
    root: &Path,
    wanted: &Create,
    manager: CgroupManager,
    log: &Log,
    here: bool,
) -> Result<(Container, Launched), Error> {
    id::check(&wanted.id)?;
    if wanted.no_pivot {
        return Err(Error::usage(
            "--no-pivot is not supported: without pivot_root the container could leave its root",
        ));
    }
    if root.join(&wanted.id).exists() {
        return Err(Error::Exists {
            id: wanted.id.clone(),
        });
    }
    let bundle = wanted
        .bundle
        .canonicalize()
        .map_err(Error::io("open bundle", &wanted.bundle))?;
    let (spec, text) = config::load(&bundle.join(&wanted.config))?;
    // Without, a host needs no cgroups at all.
    let place = match manager {
        CgroupManager::Disabled => None,
        CgroupManager::Cgroupfs | CgroupManager::Systemd => Some(Place::new(&spec, &wanted.id)?),
    };
    let within = place
        .as_ref()
        .map(|place| (place.path.as_str(), &place.hierarchies));
    let mut plan = translate::bundle(&spec, &bundle, within)?;
    let listening = listen_fds();
    if listening > 0 {
        plan.process.env.push(format!("LISTEN_FDS={listening}"));
        plan.process.env.push("LISTEN_PID=1".to_owned());
    }
    check_console(&plan.process, wanted.console_socket.as_deref(), here)?;
    let Target::Container(target) = &plan.target else {
        return Err(Error::config("no container"));
    };
    translate::check_paths(&target.namespaces)?;
    // Before the record names it: what is there already is somebody else's.
    if let Some(place) = &place {
        place.check_unused()?;
    }
    let creator = i32::try_from(std::process::id()).unwrap_or_default();
    let record = Record {
        oci_version: spec.version().clone(),
        id: wanted.id.clone(),
        bundle,
        rootfs: plan.rootfs.clone(),
        created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        pid: 0,
        start_time: 0,
        creator: (creator, direct::start_time(creator).unwrap_or_default()),
        ready: false,
        cgroup: place.as_ref().map(|place| place.path.clone()),
        own_parents: place.as_ref().is_some_and(|place| place.own_parents),
        annotations: spec
            .annotations()
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        owner: String::new(),
    };
    let container = Container::create(root, record, &text)?;
    let mut making = Making {
        container: Some(container),
        cgroup: None,
        devices: None,
    };
    let launched = make(&mut making, place.as_ref(), &plan, wanted, log);
    match (launched, making.container.take()) {
        (Ok(launched), Some(container)) => Ok((container, launched)),
        (Ok(_), None) => Err(Error::usage("the container was lost")),
        (Err(error), container) => {
            // First of all: the operator's network may be on them.
            let devices = making.devices.take();
            for error in devices.into_iter().flat_map(Moved::give_back) {
                log.warn(&Error::from(error).line());
            }
            if let Some(container) = container {
                undo(container, making.cgroup.take(), &plan, log);
            }
            Err(error)
        }
    }
}

fn make(
    making: &mut Making,
    place: Option<&Place>,
    plan: &Bundle,
    wanted: &Create,
    log: &Log,
) -> Result<Launched, Error> {
    let Some(container) = &mut making.container else {
        return Err(Error::usage("the container was lost"));
    };
    let socket = container.start_socket();
    let listener = bind(&socket)?;
    if let Some(place) = place {
        let made = Cgroup::create_or_adopt(&place.hierarchies, &place.path)?;
        let cgroup = &*making.cgroup.insert(made);
        let mut limits = plan.limits.clone();
        if place.own_parents {
            if limits.cpu.rt_runtime.is_none() && lacks_real_time(cgroup, plan.scheduler).is_some()
            {
                limits.cpu.rt_runtime = Some(LENT_RT_RUNTIME_US);
                log.warn(&format!(
                    "process.scheduler: without linux.resources.cpu.realtimeRuntime: \
                     {LENT_RT_RUNTIME_US} µs of each period are lent"
                ));
            }
            cgroup.lend_real_time(&limits.cpu);
        }
        cgroup.apply(&limits)?;
        check_scheduler(cgroup, plan.scheduler)?;
    }
    let bundle = container.record.bundle.clone();
    let request = Request {
        process: &plan.process,
        target: &plan.target,
        cgroup: making.cgroup.as_ref(),
        preserved: preserved(wanted.preserve_fds)?,
        new_keyring: !wanted.no_new_keyring,
        start: Some(listener.as_fd()),
        create_container: &plan.hooks.create_container,
        start_container: &plan.hooks.start_container,
        hook_directory: &bundle,
        own_devices: plan.own_devices,
        propagation: plan.propagation,
        window: plan.window,
        io_priority: plan.io_priority,
        scheduler: plan.scheduler,
        memory_policy: plan.memory_policy.as_ref(),
        listener: plan
            .listener
            .as_ref()
            .map(|listener| listener.path.as_path()),
        time_offsets: &plan.time_offsets,
    };
    let launched = direct::launch(&request, |pid, start_time| {
        container.record.pid = pid;
        container.record.start_time = start_time;
        container.save()?;
        if !plan.net_devices.is_empty() {
            let moved = making.devices.insert(Moved::none(pid)?);
            for device in &plan.net_devices {
                moved.take(device)?;
            }
        }
        let state = |status| container::state(&container.record, status);
        let process = plan
            .listener
            .as_ref()
            .map(|listener| listener.process_state(pid, &state(Status::Creating)));
        let (creating, created) = (
            state(Status::Creating).to_string(),
            state(Status::Created).to_string(),
        );
        let bundle = &container.record.bundle;
        hooks::run("prestart", &plan.hooks.prestart, bundle, &creating)?;
        hooks::run(
            "createRuntime",
            &plan.hooks.create_runtime,
            bundle,
            &creating,
        )?;
        Ok::<_, Error>(States {
            creating,
            created,
            process: process.unwrap_or_default(),
        })
    })
    .map_err(|error| name_program(error, &plan.process))?;
    let mut finish = || {
        if let (Some(socket), Some(master)) = (&wanted.console_socket, &launched.terminal) {
            console::send(socket, master.as_fd())?;
        }
        if let Some(path) = &wanted.pid_file {
            write_pid(path, launched.pid())?;
        }
        container.record.ready = true;
        container.save()
    };
    match finish() {
        Ok(()) => Ok(launched),
        Err(error) => {
            launched.kill();
            Err(error)
        }
    }
}

/// The first process has been waited for already.
fn undo(container: Container, cgroup: Option<Cgroup>, plan: &Bundle, log: &Log) {
    if let Some(cgroup) = cgroup
        && let Err(error) = super::delete::remove_cgroup(&cgroup, container.record.own_parents)
    {
        log.warn(&error.line());
    }
    let state = container::state(&container.record, Status::Stopped).to_string();
    if container.record.pid > 0
        && let Err(error) = hooks::run(
            "poststop",
            &plan.hooks.poststop,
            &container.record.bundle,
            &state,
        )
    {
        log.warn(&error.line());
    }
    if let Err(error) = container.forget() {
        log.warn(&error.line());
    }
}

/// The path is bound through the directory's descriptor: it may be longer than an address.
fn bind(path: &Path) -> Result<UnixListener, Error> {
    let failed = Error::io("listen at", path);
    let through = || -> std::io::Result<UnixListener> {
        let (directory, name) = (
            path.parent().unwrap_or(path),
            path.file_name().unwrap_or_default(),
        );
        let directory = File::open(directory)?;
        UnixListener::bind(through_descriptor(directory.as_fd(), name.as_ref()))
    };
    through().map_err(failed)
}

pub(super) fn through_descriptor(directory: BorrowedFd<'_>, name: &Path) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
}

impl Place {
    fn new(spec: &Spec, id: &str) -> Result<Self, Error> {
        let hierarchies = Hierarchies::discover()?;
        let (path, own_parents) = cgroup_path(spec, id)?;
        Ok(Self {
            hierarchies,
            path,
            own_parents,
        })
    }

    fn check_unused(&self) -> Result<(), Error> {
        let found = Cgroup::open(&self.hierarchies, &self.path);
        if found.is_ok_and(|found| found.pids().is_ok_and(|pids| !pids.is_empty())) {
            return Err(Error::usage(format!(
                "cgroup {}: is there already and has processes",
                self.path
            )));
        }
        Ok(())
    }
}

/// Relative to every hierarchy's root, and whether its parents are paddock's own.
fn cgroup_path(spec: &Spec, id: &str) -> Result<(String, bool), Error> {
    let wanted = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_deref());
    let Some(path) = wanted.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok((format!("{CGROUP_PARENT}/{id}"), true));
    };
    let text = path
        .to_str()
        .ok_or_else(|| Error::config("linux.cgroupsPath: must be UTF-8"))?;
    if text.split(':').count() == 3 && !text.contains('/') {
        return Err(Error::config(format!(
            "linux.cgroupsPath {:?}: is one of systemd's, whose manager is not supported; use cgroupfs",
            config::shorten(text)
        )));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() || parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(Error::config(format!(
            "linux.cgroupsPath {:?}: must be a path without . and ..",
            config::shorten(text)
        )));
    }
    Ok((parts.join("/"), false))
}

/// Who asks for a real-time policy and gives no budget for it: a v1 cgroup starts with none. Little
/// enough of the usual second that 19 containers get theirs out of the kernel's 95 %.
const LENT_RT_RUNTIME_US: i64 = 50_000;

/// The file whose 0 keeps the wanted policy from a cgroup.
fn lacks_real_time(cgroup: &Cgroup, wanted: Option<Scheduler>) -> Option<PathBuf> {
    wanted.filter(Scheduler::is_real_time)?;
    cgroup.without_real_time()
}

/// The kernel's word for no budget is that of no right.
pub(super) fn check_scheduler(cgroup: &Cgroup, wanted: Option<Scheduler>) -> Result<(), Error> {
    match lacks_real_time(cgroup, wanted) {
        Some(path) => Err(Error::config(format!(
            "process.scheduler: a real-time policy needs a real-time budget, which {} says is 0: \
             give linux.resources.cpu.realtimeRuntime",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// A terminal goes to somebody, and nobody else is waited for.
pub(super) fn check_console(
    process: &Process,
    socket: Option<&Path>,
    here: bool,
) -> Result<(), Error> {
    match (process.terminal, socket) {
        (true, None) if !here => Err(Error::usage(
            "process.terminal is set: --console-socket is needed to hand the terminal over",
        )),
        (false, Some(_)) => Err(Error::usage(
            "--console-socket: the process has no terminal (process.terminal)",
        )),
        _ => Ok(()),
    }
}

/// A launch's failure with what was to be executed.
pub(super) fn name_program(error: Error, process: &Process) -> Error {
    match error {
        Error::Launch { failed, .. } => Error::Launch {
            failed,
            program: process.args.first().cloned().unwrap_or_default(),
        },
        other => other,
    }
}

pub(super) fn write_pid(path: &Path, pid: i32) -> Result<(), Error> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    File::create(&new)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| fs::rename(&new, path))
        .map_err(Error::io("write", path))
}

/// systemd's, which a service gets and hands on.
fn listen_fds() -> u8 {
    std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn preserved(wanted: u8) -> Result<u8, Error> {
    wanted
        .checked_add(listen_fds())
        .filter(|count| *count < 250)
        .ok_or_else(|| Error::usage("--preserve-fds: more descriptors than can be kept"))
}

/// Before anything is opened: a number that is free would be one of the runtime's own.
pub(crate) fn check_preserved(command: &Command) -> Result<(), Error> {
    let wanted = match command {
        Command::Create(create) => preserved(create.preserve_fds)?,
        Command::Run(run) => preserved(run.create.preserve_fds)?,
        Command::Exec(exec) => exec.preserve_fds,
        _ => 0,
    };
    for number in 3..3 + i32::from(wanted) {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            return Err(Error::usage(format!(
                "--preserve-fds: descriptor {number} is not open"
            )));
        }
    }
    Ok(())
}
