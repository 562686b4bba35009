//! From a bundle's config to what paddock's launcher takes.
//!
//! Everything is either translated or refused with one line; nothing is left out silently but
//! what is a cgroup's, where the caller wants none.
//! runtime-spec's config.md and config-linux.md are the source of the fields' meaning.

mod limits;
mod memory_policy;
mod mounts;
mod namespaces;
mod net_devices;
mod options;
mod priority;
mod process;
mod seccomp;
mod sysctl;

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxPersonality, Spec};
use paddock_cgroups::{Hierarchies, Limits};
use paddock_runtime::{
    direct::{MemoryPolicy, Scheduler},
    net_devices::NetDevice,
    spec::{ContainerSpec, Device, Namespaces, Process, Propagation, Rootfs, Target},
};

pub(crate) use self::{
    limits::{device_rules, limits, limits_of},
    memory_policy::memory_policy,
    namespaces::check_paths,
    priority::{io_priority, scheduler},
    process::process,
    seccomp::{Listener, seccomp},
};
use crate::{config::shorten, error::Error, hooks::Hooks};

/// A bundle, ready to be launched.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub process: Process,
    pub target: Target,
    pub rootfs: PathBuf,
    pub limits: Limits,
    pub hooks: Hooks,
    pub listener: Option<Listener>,
    pub propagation: (Propagation, bool),
    pub window: Option<(u16, u16)>,
    pub io_priority: Option<i32>,
    pub memory_policy: Option<MemoryPolicy>,
    pub net_devices: Vec<NetDevice>,
    pub scheduler: Option<Scheduler>,
    /// Nothing is mounted on /dev.
    pub own_devices: bool,
    /// Clock, seconds, nanoseconds.
    pub time_offsets: Vec<(String, i64, u32)>,
}

/// `cgroup`: the container's path in the hierarchies. `None`: it has none, and with it go
/// `linux.resources`, its rules for devices among them, as with crun.
pub(crate) fn bundle(
    spec: &Spec,
    bundle: &Path,
    cgroup: Option<(&str, &Hierarchies)>,
) -> Result<Bundle, Error> {
    let none = Linux::default();
    let linux = spec.linux().as_ref().unwrap_or(&none);
    refuse_unsupported(linux)?;
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| Error::config("root is missing"))?;
    let rootfs = bundle.join(root.path());
    let rootfs = rootfs
        .canonicalize()
        .map_err(Error::io("open rootfs", &rootfs))?;
    if !rootfs.is_dir() {
        return Err(Error::config(format!(
            "root.path {}: is no directory",
            rootfs.display()
        )));
    }
    let words = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::config("process is missing"))?;
    let directory = File::open(&rootfs).map_err(Error::io("open rootfs", &rootfs))?;
    let (namespaces, id_maps) = namespaces::translate(linux)?;
    refuse_names_of_the_host(spec, &namespaces)?;
    let (propagation, recursive) = rootfs_propagation(linux)?;
    let mut mounts = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        mounts::translate(
            &mut mounts,
            mount,
            &mounts::Around {
                bundle,
                root: &directory,
                terminal: words.terminal().unwrap_or(false),
                namespaces: &namespaces,
                cgroup,
            },
        )?;
    }
    let own_devices = !mounts
        .iter()
        .any(|mount| mounts::same(&mount.target, "/dev"));
    let net_devices = net_devices::net_devices(linux, &namespaces)?;
    let (limits, device_rules) = match cgroup {
        Some(_) => (limits(linux)?, device_rules(linux)?),
        None => Default::default(),
    };
    let target = ContainerSpec {
        rootfs: Rootfs::Directory(rootfs.clone()),
        read_only: root.readonly().unwrap_or(false),
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        cgroup: cgroup.map_or_else(String::new, |(path, _)| path.to_owned()),
        init: false,
        sysctls: sysctl::translate(linux, &namespaces, spec.domainname().as_deref())?,
        namespaces,
        id_maps,
        mounts,
        devices: devices(linux)?,
        masked_paths: paths("maskedPaths", linux.masked_paths().as_deref())?,
        read_only_paths: paths("readonlyPaths", linux.readonly_paths().as_deref())?,
        device_rules,
        root_maps: None,
    };
    let window = words.console_size().and_then(|size| {
        let (rows, columns) = (
            size.height().try_into().ok()?,
            size.width().try_into().ok()?,
        );
        (rows > 0 && columns > 0).then_some((rows, columns))
    });
    let (filter, listener) = seccomp(linux, words)?;
    Ok(Bundle {
        process: process(words, &directory, filter)?,
        listener,
        target: Target::Container(Box::new(target)),
        rootfs,
        limits,
        hooks: Hooks::new(spec.hooks().as_ref())?,
        propagation: (propagation, recursive),
        window,
        io_priority: io_priority(words)?,
        memory_policy: memory_policy(linux)?,
        net_devices,
        scheduler: scheduler(words)?,
        own_devices,
        time_offsets: namespaces::time_offsets(linux)?,
    })
}

/// What this runtime does not do, one line each.
fn refuse_unsupported(linux: &Linux) -> Result<(), Error> {
    let refuse = |name: &str| Err(Error::config(format!("linux.{name} is not supported")));
    if linux.intel_rdt().is_some() {
        return refuse("intelRdt");
    }
    if linux
        .personality()
        .as_ref()
        .is_some_and(LinuxPersonality::is_other)
    {
        return refuse("personality");
    }
    if linux
        .mount_label()
        .as_deref()
        .is_some_and(|label| !label.is_empty())
    {
        return refuse("mountLabel");
    }
    Ok(())
}

/// Its own names need a namespace of its own.
fn refuse_names_of_the_host(spec: &Spec, namespaces: &Namespaces) -> Result<(), Error> {
    for (name, value) in [
        ("hostname", spec.hostname()),
        ("domainname", spec.domainname()),
    ] {
        if value.as_deref().is_some_and(|value| !value.is_empty()) && namespaces.uts.is_host() {
            return Err(Error::config(format!(
                "{name}: needs a UTS namespace, which linux.namespaces does not have"
            )));
        }
    }
    Ok(())
}

trait IsOther {
    /// Anything but the one everybody has.
    fn is_other(&self) -> bool;
}

impl IsOther for LinuxPersonality {
    fn is_other(&self) -> bool {
        use oci_spec::runtime::LinuxPersonalityDomain::PerLinux;
        self.domain() != PerLinux || self.flags().as_ref().is_some_and(|flags| !flags.is_empty())
    }
}

fn rootfs_propagation(linux: &Linux) -> Result<(Propagation, bool), Error> {
    match linux.rootfs_propagation().as_deref() {
        None | Some("") => Ok((Propagation::Private, true)),
        Some(word) => options::propagation(word).ok_or_else(|| {
            Error::config(format!(
                "linux.rootfsPropagation {:?}: one of private, slave, shared, unbindable, each with or without r",
                shorten(word)
            ))
        }),
    }
}

fn paths(name: &str, paths: Option<&[String]>) -> Result<Vec<PathBuf>, Error> {
    paths
        .unwrap_or_default()
        .iter()
        .map(|path| {
            if path.starts_with('/') {
                Ok(PathBuf::from(path))
            } else {
                Err(Error::config(format!(
                    "linux.{name} {:?}: must be absolute",
                    shorten(path)
                )))
            }
        })
        .collect()
}

fn devices(linux: &Linux) -> Result<Vec<Device>, Error> {
    linux.devices().iter().flatten().map(device).collect()
}

fn device(device: &LinuxDevice) -> Result<Device, Error> {
    let wrong = |why: &str| {
        Err(Error::config(format!(
            "linux.devices {}: {why}",
            device.path().display()
        )))
    };
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => 'c',
        LinuxDeviceType::B => 'b',
        LinuxDeviceType::P => 'p',
        LinuxDeviceType::A => return wrong("type a is no device's"),
    };
    if !device.path().is_absolute() {
        return wrong("must be absolute");
    }
    let (Ok(major), Ok(minor)) = (device.major().try_into(), device.minor().try_into()) else {
        return wrong("major and minor must be numbers of 32 bits");
    };
    Ok(Device {
        path: device.path().clone(),
        kind,
        major,
        minor,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}
