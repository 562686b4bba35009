//! A container's mounts in the order of its spec: root, the mounts, sysctls, masks, the pivot.
//!
//! What needs the host's privilege or paths is made by the monitor, detached; the child mounts
//! itself what belongs to its new namespaces (proc, sysfs, mqueue, cgroups).
#![forbid(unsafe_code)]

use std::{
    collections::HashSet,
    ffi::CString,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{errno::Errno, libc};

use super::{
    Failure, Op, Step,
    build::{c_string, io_failure, literal, push_labels, step, step_at},
    cgroupfs, chown, dev,
    idmap::Owners,
    mountinfo, rootfs,
};
use crate::{
    spec::{ContainerSpec, Mount, MountSource, Process, Propagation},
    sys::mount::{Attributes, Param, clone_tree},
};

/// The step's name, which [`crate::record::Failed::explain`] knows.
pub(crate) const PROPAGATION: &str = "propagation";

/// The mounts that the monitor has made, since the terminal and stdin come from them.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub dev: Option<OwnedFd>,
    pub pts: Option<OwnedFd>,
}

/// All mount steps; the root is the plan's own.
pub(super) fn push(
    steps: &mut Vec<Step>,
    process: &Process,
    target: &ContainerSpec,
    mut made: Made,
    (owners, user): (&mut Owners, chown::Owner),
) -> Result<(), Failure> {
    steps.push(step("private mounts", Op::PrivateMounts));
    // On top of the host's root, where it is out of the way until the pivot.
    let attach = Op::AttachRoot {
        at: literal(c"/"),
        propagation: libc::MS_PRIVATE,
    };
    steps.push(step("attach rootfs", attach));
    let mut there = There::default();
    for mount in &target.mounts {
        push_mount(steps, mount, &mut made, &mut there, (owners, user))?;
        there.mounted(mount);
    }
    if process.terminal {
        let bind = Op::Bind {
            from: literal(c"/dev/pts/0"),
            at: literal(c"/dev/console"),
        };
        steps.push(step_at("mount console", "/dev/console", bind));
    }
    for (name, value) in &target.sysctls {
        steps.push(sysctl(name, value)?);
    }
    push_protections(steps, target)?;
    let user = (process.user.uid, process.user.gid);
    push_owned_directories(
        steps,
        &mut there,
        "working directory",
        &process.cwd,
        Some(user),
    )?;
    if target.read_only {
        steps.push(step("read-only rootfs", Op::ReadOnlyRoot));
    }
    push_labels(steps, process)?;
    steps.push(step("pivot_root", Op::PivotRoot));
    Ok(())
}

fn push_mount(
    steps: &mut Vec<Step>,
    mount: &Mount,
    made: &mut Made,
    there: &mut There,
    (owners, user): (&mut Owners, chown::Owner),
) -> Result<(), Failure> {
    let at = target(mount)?;
    let attributes = attributes(mount);
    let again = || Failure::new("mount", at, Errno::EEXIST);
    match &mount.source {
        MountSource::Bind { path, recursive } => {
            const STEP: &str = "bind";
            let fail = |source: std::io::Error| io_failure(STEP, path, &source);
            let source = rootfs::open_path(path, 0).map_err(fail)?;
            let is_dir = source.metadata().map_err(fail)?.is_dir();
            let source = OwnedFd::from(source);
            if mount.chown {
                chown::give(&source, user, path)?;
            }
            check_propagation(mount, &source, path)?;
            match (mount.only_there, is_dir) {
                (true, _) => {}
                (false, true) => push_directories(steps, there, STEP, at)?,
                (false, false) => push_file(steps, there, STEP, at)?,
            }
            let tree = clone_tree(source.as_fd(), c"", *recursive)
                .map_err(|errno| Failure::new(STEP, path, errno))?;
            if let Some(maps) = &mount.id_maps {
                owners.map(&tree, maps, *recursive, (source.as_fd(), path))?;
            }
            if mount.only_there {
                let op = Op::AttachToFile {
                    mount: tree,
                    at: c_string(STEP, at)?,
                    attributes,
                };
                steps.push(step_at(STEP, at, op));
                return Ok(());
            }
            steps.push(attach(STEP, tree, at, attributes, mount.follow)?);
        }
        MountSource::Of {
            mount_namespace,
            path,
        } => {
            const STEP: &str = "mount of another container";
            push_directories(steps, there, STEP, at)?;
            let tree = rootfs::mounted_in(mount_namespace, path)?;
            steps.push(attach(STEP, tree, at, attributes, mount.follow)?);
        }
        MountSource::New { kind, parameters } => {
            const STEP: &str = "mount";
            push_directories(steps, there, STEP, at)?;
            let fallback = if kind == "sysfs" { host_sysfs() } else { None };
            let op = Op::NewFilesystem {
                kind: c_string(STEP, kind)?,
                params: params(parameters)?,
                attributes,
                at: c_string(STEP, at)?,
                follow: mount.follow,
                fallback,
            };
            steps.push(step_at(STEP, at, op));
        }
        MountSource::Dev { .. } => {
            const STEP: &str = "mount /dev";
            push_directories(steps, there, STEP, at)?;
            let dev = made.dev.take().ok_or_else(again)?;
            steps.push(attach(STEP, dev, at, attributes, false)?);
        }
        MountSource::Devpts => {
            const STEP: &str = "mount /dev/pts";
            push_directories(steps, there, STEP, at)?;
            let pts = made.pts.take().ok_or_else(again)?;
            steps.push(attach(STEP, pts, at, attributes, false)?);
        }
        MountSource::Cgroups => {
            push_directories(steps, there, "mount cgroups", at)?;
            cgroupfs::push(steps, at, attributes)?;
        }
    }
    Ok(())
}

/// A bind joins the peer group that its source is in; of a private one there is none, and what
/// was asked for would silently not be.
fn check_propagation(mount: &Mount, source: &OwnedFd, path: &Path) -> Result<(), Failure> {
    let peers = || mountinfo::of(source.as_fd());
    let met = match mount.propagation {
        Propagation::Private | Propagation::Unbindable => true,
        Propagation::Shared => peers().is_none_or(|mount| mount.shared),
        Propagation::Slave => peers().is_none_or(|mount| mount.shared || mount.slave),
    };
    if met {
        Ok(())
    } else {
        Err(Failure::new(PROPAGATION, path, Errno::EINVAL))
    }
}

/// Absolute, not the root itself, and without `..`.
fn target(mount: &Mount) -> Result<&str, Failure> {
    let refused = || Failure::new("mount", &mount.target, Errno::EINVAL);
    let text = mount.target.to_str().ok_or_else(refused)?;
    let mut parts = text.split('/').filter(|part| !part.is_empty()).peekable();
    if !text.starts_with('/') || parts.peek().is_none() || parts.any(|part| part == "..") {
        return Err(refused());
    }
    Ok(text)
}

fn attributes(mount: &Mount) -> Attributes {
    Attributes {
        set: mount.set,
        clear: mount.clear,
        recursive: mount.recursive,
        propagation: match mount.propagation {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        },
    }
}

fn params(parameters: &[(String, Option<String>)]) -> Result<Vec<Param<CString>>, Failure> {
    let text = |text: &str| c_string("mount", text);
    parameters
        .iter()
        .map(|(key, value)| {
            Ok(match value {
                Some(value) => Param::String(text(key)?, text(value)?),
                None => Param::Flag(text(key)?),
            })
        })
        .collect()
}

/// In a new user namespace the kernel grants a sysfs only where the host's is fully visible;
/// elsewhere the host's is shown. `None`: the host has none either.
fn host_sysfs() -> Option<OwnedFd> {
    let directory = rootfs::open_path(Path::new("/sys"), libc::O_DIRECTORY).ok()?;
    clone_tree(directory.as_fd(), c"", false).ok()
}

/// `net.ipv4.ip_forward` or `net/ipv4/ip_forward`, as sysctl(8) takes either.
fn sysctl(name: &str, value: &str) -> Result<Step, Failure> {
    const STEP: &str = "sysctl";
    let path = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    if path
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(Failure::new(STEP, name, Errno::EINVAL));
    }
    let op = Op::Sysctl {
        at: c_string(STEP, &format!("/proc/sys/{path}"))?,
        value: c_string(STEP, value)?,
    };
    Ok(step_at(STEP, name, op))
}

fn push_protections(steps: &mut Vec<Step>, target: &ContainerSpec) -> Result<(), Failure> {
    let text = |name, path: &Path| {
        let text = path.to_string_lossy().into_owned();
        c_string(name, &text).map(|at| (at, text))
    };
    for path in &target.masked_paths {
        let (at, shown) = text("mask", path)?;
        steps.push(step_at("mask", &shown, Op::Mask { at }));
    }
    for path in &target.read_only_paths {
        let (at, shown) = text("read-only path", path)?;
        steps.push(step_at("read-only path", &shown, Op::ReadOnly { at }));
    }
    Ok(())
}

/// Directories that are there by what was planned so far, as `/a/b`.
#[derive(Debug, Default)]
struct There(HashSet<String>);

impl There {
    /// Hides what was below.
    fn mounted(&mut self, mount: &Mount) {
        let at = plain(&mount.target.to_string_lossy());
        let below = format!("{at}/");
        self.0.retain(|path| !path.starts_with(&below));
        if matches!(mount.source, MountSource::Dev { .. }) {
            let made = dev::DIRECTORIES.map(|name| below.clone() + &name.to_string_lossy());
            self.0.extend(made);
        }
    }

    fn is_new(&mut self, path: &str) -> bool {
        self.0.insert(path.to_owned())
    }
}

fn plain(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.fold(String::new(), |path, part| path + "/" + part)
}

/// An empty file to mount on, unless something is there.
fn push_file(
    steps: &mut Vec<Step>,
    there: &mut There,
    name: &'static str,
    path: &str,
) -> Result<(), Failure> {
    let path = path.trim_end_matches('/');
    let (parent, file) = path.rsplit_once('/').unwrap_or(("", path));
    push_directories(steps, there, name, parent)?;
    let op = Op::MakeFile {
        parent: parent_path(parent)?,
        name: c_string(name, file)?,
    };
    steps.push(step_at(name, path, op));
    Ok(())
}

/// mkdir -p, a step a component.
fn push_directories(
    steps: &mut Vec<Step>,
    there: &mut There,
    name: &'static str,
    path: &str,
) -> Result<(), Failure> {
    push_owned_directories(steps, there, name, path, None)
}

/// The same; the last one, when it is new, belongs to `owner`, those above it to root.
fn push_owned_directories(
    steps: &mut Vec<Step>,
    there: &mut There,
    name: &'static str,
    path: &str,
    owner: Option<(u32, u32)>,
) -> Result<(), Failure> {
    let mut parent = String::new();
    let mut components = path
        .split('/')
        .filter(|component| !component.is_empty())
        .peekable();
    while let Some(component) = components.next() {
        let last = components.peek().is_none();
        let op = Op::MakeDirectory {
            parent: parent_path(&parent)?,
            name: c_string(name, component)?,
            owner: owner.filter(|_| last),
        };
        parent.push('/');
        parent.push_str(component);
        // What is behind `.` or `..` is nobody's to know.
        let named = parent.split('/').all(|part| part != "." && part != "..");
        if component != "." && component != ".." && (!named || there.is_new(&parent)) {
            steps.push(step_at(name, &parent, op));
        }
    }
    Ok(())
}

fn parent_path(parent: &str) -> Result<CString, Failure> {
    c_string(
        "make directory",
        if parent.is_empty() { "/" } else { parent },
    )
}

fn attach(
    name: &'static str,
    mount: OwnedFd,
    path: &str,
    attributes: Attributes,
    follow: bool,
) -> Result<Step, Failure> {
    let at = c_string(name, path)?;
    let op = Op::Attach {
        mount,
        at,
        attributes,
        follow,
    };
    Ok(step_at(name, path, op))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Result<String, Errno> {
        let mount = Mount::fixed(path, MountSource::new("tmpfs"), 0);
        target(&mount)
            .map(str::to_owned)
            .map_err(|failure| failure.errno)
    }

    #[test]
    fn a_target_is_below_the_root() {
        assert_eq!(at("/a/./b").as_deref(), Ok("/a/./b"));
        for path in ["", "/", "//", "a", "../a", "/a/../..", "/.."] {
            assert_eq!(at(path), Err(Errno::EINVAL), "{path}");
        }
    }

    #[test]
    fn a_directory_is_made_once_until_it_is_hidden() {
        let mut steps = Vec::new();
        let mut there = There::default();
        let mut made = |there: &mut There, path: &str| {
            steps.clear();
            push_directories(&mut steps, there, "mount", path).unwrap();
            steps.len()
        };
        assert_eq!(made(&mut there, "/a/b"), 2);
        assert_eq!(made(&mut there, "/a//b/c"), 1);
        assert_eq!(made(&mut there, "/a/./b"), 1);
        there.mounted(&Mount::fixed("/a/", MountSource::new("tmpfs"), 0));
        assert_eq!(made(&mut there, "/a/b"), 1);
        there.mounted(&Mount::fixed("/dev", MountSource::Dev { size: 1 }, 0));
        assert_eq!(made(&mut there, "/dev/pts"), 1);
    }

    #[test]
    fn a_sysctl_stays_below_its_directory() {
        let path = |name: &str| match sysctl(name, "1").map(|step| step.op) {
            Ok(Op::Sysctl { at, .. }) => Ok(at.into_string().unwrap()),
            Ok(op) => panic!("{op:?}"),
            Err(failure) => Err(failure.errno),
        };
        assert_eq!(
            path("net.ipv4.ip_forward").unwrap(),
            "/proc/sys/net/ipv4/ip_forward"
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.1/forwarding").unwrap(),
            "/proc/sys/net/ipv4/conf/eth0.1/forwarding"
        );
        for name in ["", "a/../../b", "..", "a//b", "/a"] {
            assert_eq!(path(name), Err(Errno::EINVAL), "{name}");
        }
    }
}
