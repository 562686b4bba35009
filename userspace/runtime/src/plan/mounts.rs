//! The order of a container's mounts: root, /dev, /proc, /sys, cgroups, masks, binds, then the pivot.
//!
//! The child mounts itself what belongs to its new namespaces (proc, sysfs, mqueue, cgroups);
//! where a namespace stays the host's but the user namespace is new, the kernel refuses a new
//! mount of those, and the host's is bound instead.
#![forbid(unsafe_code)]

use std::{
    ffi::CString,
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{errno::Errno, libc};

use super::{
    Failure, Op, Step,
    build::{c_string, io_failure, literal, step, step_at},
    cgroupfs, dev, rootfs,
};
use crate::{
    defaults::{MASKED_PROC, MASKED_SYS, READ_ONLY_PROC},
    spec::{Bind, ContainerSpec, LaunchSpec, Rootfs},
    sys::mount::{NODEV, NOEXEC, NOSUID, RDONLY, clone_tree},
};

const SAFE: u64 = NOSUID | NODEV | NOEXEC;

/// All mount steps. `dev` goes to where the plan says; the root is the plan's own.
pub(super) fn push(
    steps: &mut Vec<Step>,
    spec: &LaunchSpec,
    target: &ContainerSpec,
    dev: dev::Dev,
) -> Result<(), Failure> {
    let namespaces = target.namespaces;
    steps.push(step("private mounts", Op::PrivateMounts));
    steps.push(step("attach rootfs", Op::AttachRoot));
    push_dev(steps, spec, target, dev)?;
    for path in ["/proc", "/sys"] {
        push_directories(steps, "make directory", path)?;
    }
    // With the host's user namespace everything may be mounted anew.
    let (new_pid, new_net) = (
        namespaces.pid || !namespaces.user,
        namespaces.net || !namespaces.user,
    );
    if new_pid {
        steps.push(new("mount proc", c"proc", "/proc", SAFE)?);
    } else {
        steps.push(host("mount proc", "/proc", true, SAFE)?);
    }
    if new_net {
        steps.push(new("mount sysfs", c"sysfs", "/sys", SAFE | RDONLY)?);
    } else {
        steps.push(host("mount sysfs", "/sys", false, SAFE | RDONLY)?);
    }
    if namespaces.cgroup {
        cgroupfs::push(steps)?;
    } else if Path::new("/sys/fs/cgroup").exists() {
        steps.push(host(
            "mount cgroups",
            "/sys/fs/cgroup",
            true,
            SAFE | RDONLY,
        )?);
    }
    push_masks(steps, spec, target)?;
    for bind in &target.binds {
        push_bind(steps, bind)?;
    }
    push_directories(steps, "working directory", &spec.process.cwd)?;
    if target.read_only {
        steps.push(step("read-only rootfs", Op::ReadOnlyRoot));
    }
    steps.push(step("pivot_root", Op::PivotRoot));
    Ok(())
}

fn push_dev(
    steps: &mut Vec<Step>,
    spec: &LaunchSpec,
    target: &ContainerSpec,
    dev: dev::Dev,
) -> Result<(), Failure> {
    const STEP: &str = "mount /dev";
    let namespaces = target.namespaces;
    push_directories(steps, "make directory", "/dev")?;
    steps.push(attach(STEP, dev.dev, "/dev", NOSUID | NOEXEC)?);
    steps.push(attach(STEP, dev.pts, "/dev/pts", NOSUID | NOEXEC)?);
    if namespaces.ipc {
        steps.push(attach(STEP, dev::shm(target.shm_size)?, "/dev/shm", SAFE)?);
        steps.push(new(STEP, c"mqueue", "/dev/mqueue", SAFE)?);
    } else {
        for path in ["/dev/shm", "/dev/mqueue"] {
            if Path::new(path).exists() {
                steps.push(host(STEP, path, false, SAFE)?);
            }
        }
    }
    if spec.process.terminal {
        let bind = Op::Bind {
            from: literal(c"/dev/pts/0"),
            at: literal(c"/dev/console"),
        };
        steps.push(step_at("mount console", "/dev/console", bind));
    }
    Ok(())
}

fn push_masks(
    steps: &mut Vec<Step>,
    spec: &LaunchSpec,
    target: &ContainerSpec,
) -> Result<(), Failure> {
    for path in MASKED_PROC.map(|name| format!("/proc/{name}")) {
        steps.push(step_at(
            "mask",
            &path,
            Op::Mask {
                at: c_string("mask", &path)?,
            },
        ));
    }
    for path in MASKED_SYS.map(|name| format!("/sys/{name}")) {
        steps.push(step_at(
            "mask",
            &path,
            Op::Mask {
                at: c_string("mask", &path)?,
            },
        ));
    }
    for path in READ_ONLY_PROC.map(|name| format!("/proc/{name}")) {
        let op = Op::ReadOnly {
            at: c_string("read-only path", &path)?,
        };
        steps.push(step_at("read-only path", &path, op));
    }
    // The state directory shows through the host's root: sockets and other containers' environments.
    let dir =
        fs::canonicalize(&spec.dir).map_err(|source| io_failure("mask", &spec.dir, &source))?;
    if let (Rootfs::Host, Some(state)) = (&target.rootfs, dir.ancestors().nth(2)) {
        let path = state.to_string_lossy();
        if path.len() > 1 {
            steps.push(step_at(
                "mask",
                &path,
                Op::Mask {
                    at: c_string("mask", &path)?,
                },
            ));
        }
    }
    Ok(())
}

fn push_bind(steps: &mut Vec<Step>, bind: &Bind) -> Result<(), Failure> {
    const STEP: &str = "bind";
    let target = bind.target.to_string_lossy();
    if !bind.target.is_absolute() || target.ends_with("/..") || target.contains("/../") {
        return Err(Failure::new(STEP, &bind.target, Errno::EINVAL));
    }
    let fail = |source: std::io::Error| io_failure(STEP, &bind.source, &source);
    let source = rootfs::open_path(&bind.source, 0).map_err(fail)?;
    if source.metadata().map_err(fail)?.is_dir() {
        push_directories(steps, STEP, &target)?;
    } else {
        let (parent, name) = target.rsplit_once('/').unwrap_or(("", &target));
        push_directories(steps, STEP, parent)?;
        let op = Op::MakeFile {
            parent: parent_path(parent)?,
            name: c_string(STEP, name)?,
        };
        steps.push(step_at(STEP, &target, op));
    }
    let mount = clone_tree(source.as_fd(), c"", true)
        .map_err(|errno| Failure::new(STEP, &bind.source, errno))?;
    let attributes = if bind.read_only { RDONLY } else { 0 };
    let op = Op::Attach {
        mount,
        at: c_string(STEP, &target)?,
        attributes,
        follow: true,
    };
    steps.push(step_at(STEP, &target, op));
    Ok(())
}

/// mkdir -p, a step a component.
fn push_directories(steps: &mut Vec<Step>, name: &'static str, path: &str) -> Result<(), Failure> {
    let mut parent = String::new();
    for component in path.split('/').filter(|component| !component.is_empty()) {
        let op = Op::MakeDirectory {
            parent: parent_path(&parent)?,
            name: c_string(name, component)?,
        };
        parent.push('/');
        parent.push_str(component);
        if component != "." && component != ".." {
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
    attributes: u64,
) -> Result<Step, Failure> {
    let at = c_string(name, path)?;
    Ok(step_at(
        name,
        path,
        Op::Attach {
            mount,
            at,
            attributes,
            follow: false,
        },
    ))
}

fn new(
    name: &'static str,
    kind: &'static std::ffi::CStr,
    path: &str,
    attributes: u64,
) -> Result<Step, Failure> {
    let (kind, at) = (literal(kind), c_string(name, path)?);
    Ok(step_at(
        name,
        path,
        Op::NewFilesystem {
            kind,
            params: Vec::new(),
            attributes,
            at,
        },
    ))
}

/// The host's mount of the same path.
fn host(name: &'static str, path: &str, recursive: bool, attributes: u64) -> Result<Step, Failure> {
    let directory = rootfs::open_path(Path::new(path), libc::O_DIRECTORY)
        .map_err(|source| io_failure(name, path, &source))?;
    let mount = clone_tree(directory.as_fd(), c"", recursive)
        .map_err(|errno| Failure::new(name, path, errno))?;
    attach(name, mount, path, attributes)
}
