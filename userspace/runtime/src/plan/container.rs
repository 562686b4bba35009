//! The plan of a container's first process: new namespaces, a root of its own.
#![forbid(unsafe_code)]

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    libc::dev_t,
    sched::CloneFlags,
    sys::stat::{fstat, makedev},
    unistd::{Uid, dup, fchown},
};

pub(super) use super::mounts::Made;
use super::{
    Enter, Failure, Join, Masks, Op, Plan, Step, account,
    build::{
        Prepared, io_failure, last_filter, program, push_credentials, push_session, step, umask,
    },
    chown,
    dev::{self, Owner},
    idmap::Owners,
    mounts, rootfs,
};
use crate::{
    monitor::io::{Io, pipes},
    spec::{ContainerSpec, Device, LaunchSpec, MountSource, Namespace, Namespaces, Process},
    sys::clone::NEWTIME,
};

/// Docker's group of terminals.
const TTY: u32 = 5;

pub(super) fn prepare(
    spec: &LaunchSpec,
    target: &ContainerSpec,
    window: Option<(u16, u16)>,
) -> Result<Prepared, Failure> {
    let process = &spec.process;
    let stdio = |made: &Made, (user, _)| {
        let (io, stdio) = match made {
            Made { pts: Some(pts), .. } if process.terminal => {
                terminal(dev::terminal(pts)?, window)?
            }
            _ if process.terminal => return Err(no_terminal()),
            _ if process.stdin => pipes(None)?,
            Made { dev: Some(dev), .. } => pipes(Some(dev::null(dev)?))?,
            Made { dev: None, .. } => pipes(Some(null()?))?,
        };
        hand_over(&stdio, user)?;
        Ok((io, stdio))
    };
    let (plan, io) = plan(process, target, &spec.dir, stdio)?;
    Ok(Prepared { plan, io })
}

/// The plan around whatever stdio there is; `stdio` gets the mounts made so far and the host's
/// numbers of the program's user and group.
pub(super) fn plan<T>(
    process: &Process,
    target: &ContainerSpec,
    scratch: &Path,
    stdio: impl FnOnce(&Made, (u32, u32)) -> Result<(T, [OwnedFd; 3]), Failure>,
) -> Result<(Plan, T), Failure> {
    let namespaces = &target.namespaces;
    let ids = Ids::new(target);
    let joins = joins(namespaces)?;
    let enter = enter(namespaces)?;
    let mut owners = Owners::default();
    let maps = target.root_maps.as_ref();
    let root = rootfs::open(&target.rootfs, maps, &mut owners, scratch)?;
    let process = &account::resolve(process, &root)?;
    // What can be refused before anything is made.
    let exec = program(process)?;
    let user = ids.uid(process.user.uid)?;
    let group = ids.gid(process.user.gid)?;
    let made = make(target, process.terminal, &ids)?;
    for device in &target.devices {
        if made.dev.is_none() || !dev::is_below_dev(device) {
            dev::in_root(&root, &ids.device(device)?)?;
        }
    }
    let (other_end, stdio) = stdio(&made, (user, group))?;
    let mut steps = Vec::new();
    if !namespaces.user.is_host() {
        steps.push(step("become root", Op::BecomeRoot));
    }
    steps.extend(cgroup_namespace(&namespaces.cgroup)?);
    let program = chown::Owner {
        uid: user,
        gid: group,
    };
    mounts::push(&mut steps, process, target, made, (&mut owners, program))?;
    push_names(&mut steps, target);
    if namespaces.net.is_new() {
        steps.push(step("loopback", Op::Loopback));
    }
    push_session(&mut steps, process)?;
    push_credentials(&mut steps, process, !namespaces.user.is_host())?;
    let plan = Plan {
        clone_flags: if enter.is_none() {
            clone_flags(namespaces)
        } else {
            CloneFlags::empty()
        },
        root: Some(root),
        stdio,
        steps,
        umask: umask(&process.user),
        terminal: process.terminal,
        init: target.init,
        seccomp: last_filter(process),
        exec,
        joins,
        enter,
        maps: namespaces.user.is_new().then(|| target.id_maps.clone()),
        oom_score_adj: process.oom_score_adj,
        preserved: 0,
        start: None,
        hook_state: None,
        masks: Masks::default(),
    };
    Ok((plan, other_end))
}

pub(super) fn no_terminal() -> Failure {
    Failure::new("terminal", "/dev/pts", Errno::ENODEV)
}

/// From the container's numbers to the host's.
struct Ids<'a> {
    /// `None`: they are the same.
    target: Option<&'a ContainerSpec>,
}

impl<'a> Ids<'a> {
    fn new(target: &'a ContainerSpec) -> Self {
        Self {
            target: (!target.namespaces.user.is_host()).then_some(target),
        }
    }

    fn uid(&self, inside: u32) -> Result<u32, Failure> {
        let unmapped = || Failure::new("uid", inside.to_string(), Errno::EINVAL);
        self.target.map_or(Ok(inside), |target| {
            target.id_maps.host_uid(inside).ok_or_else(unmapped)
        })
    }

    fn device(&self, device: &Device) -> Result<Device, Failure> {
        Ok(Device {
            uid: self.uid(device.uid)?,
            gid: self.gid(device.gid)?,
            ..device.clone()
        })
    }

    fn gid(&self, inside: u32) -> Result<u32, Failure> {
        let unmapped = || Failure::new("gid", inside.to_string(), Errno::EINVAL);
        self.target.map_or(Ok(inside), |target| {
            target.id_maps.host_gid(inside).ok_or_else(unmapped)
        })
    }
}

/// Of what the launcher makes in a container.
pub(super) fn owner(target: &ContainerSpec) -> Result<Owner, Failure> {
    owner_by(&Ids::new(target))
}

fn owner_by(ids: &Ids<'_>) -> Result<Owner, Failure> {
    Ok(Owner {
        uid: ids.uid(0)?,
        gid: ids.gid(0)?,
        // A map too small to have that group leaves terminals to root's.
        terminals: ids.gid(TTY).or_else(|_| ids.gid(0))?,
    })
}

/// What the monitor mounts itself, as far as the spec has it.
fn make(target: &ContainerSpec, console: bool, ids: &Ids<'_>) -> Result<Made, Failure> {
    let owner = owner_by(ids)?;
    let mut made = Made::default();
    for mount in &target.mounts {
        match &mount.source {
            MountSource::Dev { size } => {
                let devices = target
                    .devices
                    .iter()
                    .filter(|device| dev::is_below_dev(device))
                    .map(|device| ids.device(device))
                    .collect::<Result<Vec<_>, _>>()?;
                made.dev = Some(dev::make(*size, &devices, console, owner)?);
            }
            MountSource::Devpts => made.pts = Some(dev::pts(owner)?),
            MountSource::Bind { .. }
            | MountSource::Of { .. }
            | MountSource::New { .. }
            | MountSource::Cgroups => {}
        }
    }
    Ok(made)
}

/// The host's, for a container without a /dev of paddock's making.
fn null() -> Result<OwnedFd, Failure> {
    const PATH: &str = "/dev/null";
    File::options()
        .read(true)
        .write(true)
        .open(PATH)
        .map(OwnedFd::from)
        .map_err(|source| io_failure("stdin", PATH, &source))
}

/// A user who is not root can open /proc/self/fd/1 and /dev/stdout only if they are theirs.
/// `user` is the host's number.
pub(super) fn hand_over(stdio: &[OwnedFd; 3], user: u32) -> Result<(), Failure> {
    if user == 0 {
        return Ok(());
    }
    for fd in stdio {
        let fail = |errno| Failure::without_path("stdio", errno);
        if !is_null(fd) {
            fchown(fd.as_fd(), Some(Uid::from_raw(user)), None).map_err(fail)?;
        }
    }
    Ok(())
}

/// /dev/null, 1:3, is everybody's as it is.
pub(super) fn is_null(fd: &OwnedFd) -> bool {
    const NULL: dev_t = makedev(1, 3);
    fstat(fd).is_ok_and(|stat| stat.st_rdev == NULL)
}

fn push_names(steps: &mut Vec<Step>, target: &ContainerSpec) {
    if let Some(name) = &target.hostname {
        let name = name.clone();
        steps.push(step("hostname", Op::Hostname { name }));
    }
    if let Some(name) = &target.domainname {
        let name = name.clone();
        steps.push(step("domain name", Op::Domainname { name }));
    }
}

/// The mount namespace is always new. The cgroup namespace is not here: its root is where the
/// process is when it is made, and v1 hierarchies are joined after the clone.
fn clone_flags(namespaces: &Namespaces) -> CloneFlags {
    let mut flags = CloneFlags::CLONE_NEWNS;
    flags.set(CloneFlags::CLONE_NEWIPC, namespaces.ipc.is_new());
    flags.set(CloneFlags::CLONE_NEWNET, namespaces.net.is_new());
    flags.set(CloneFlags::CLONE_NEWPID, namespaces.pid.is_new());
    flags.set(NEWTIME, namespaces.time.is_new());
    flags.set(CloneFlags::CLONE_NEWUSER, namespaces.user.is_new());
    flags.set(CloneFlags::CLONE_NEWUTS, namespaces.uts.is_new());
    flags
}

/// By the child, once it is in its cgroups: a v2 kernel lets nobody be born outside of the
/// cgroup namespace that his parent is in (ENOENT).
fn cgroup_namespace(namespace: &Namespace) -> Result<Option<Step>, Failure> {
    const STEP: &str = "cgroup namespace";
    Ok(match namespace {
        Namespace::Host => None,
        Namespace::New => Some(step(STEP, Op::UnshareCgroup)),
        Namespace::Join(joined) => Some(step(
            STEP,
            Op::Join {
                pidfd: rootfs::open_namespace(STEP, joined)?,
                flags: CloneFlags::CLONE_NEWCGROUP,
            },
        )),
    })
}

fn joins(namespaces: &Namespaces) -> Result<Vec<Join>, Failure> {
    [
        ("ipc", &namespaces.ipc, CloneFlags::CLONE_NEWIPC),
        ("net", &namespaces.net, CloneFlags::CLONE_NEWNET),
        ("pid", &namespaces.pid, CloneFlags::CLONE_NEWPID),
        ("time", &namespaces.time, NEWTIME),
        ("uts", &namespaces.uts, CloneFlags::CLONE_NEWUTS),
    ]
    .into_iter()
    .filter_map(|(name, namespace, flag)| match namespace {
        Namespace::Join(joined) => Some((name, joined, flag)),
        Namespace::New | Namespace::Host => None,
    })
    .map(|(name, joined, flag)| {
        Ok(Join {
            name,
            namespace: rootfs::open_namespace("join namespace", joined)?,
            flag,
            path: joined.path.clone(),
        })
    })
    .collect()
}

/// A user namespace of another's. New pid and time namespaces are only for children.
fn enter(namespaces: &Namespaces) -> Result<Option<Enter>, Failure> {
    let Namespace::Join(joined) = &namespaces.user else {
        return Ok(None);
    };
    Ok(Some(Enter {
        user: rootfs::open_namespace("join user namespace", joined)?,
        new: clone_flags(namespaces),
        again: namespaces.pid.is_new() || namespaces.time.is_new(),
    }))
}

/// The peer three times for the child, the master for the monitor.
pub(super) fn terminal(
    terminal: dev::Terminal,
    window: Option<(u16, u16)>,
) -> Result<(Io, [OwnedFd; 3]), Failure> {
    let fail = |errno| Failure::without_path("terminal", errno);
    let stdio = [
        dup(&terminal.peer).map_err(fail)?,
        dup(&terminal.peer).map_err(fail)?,
        terminal.peer,
    ];
    let io = Io::terminal(terminal.master)?;
    if let Some((rows, columns)) = window {
        io.resize(rows, columns);
    }
    Ok((io, stdio))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{defaults::namespaces, spec::Joined};

    #[test]
    fn a_namespace_of_the_hosts_has_no_flag() {
        let all = clone_flags(&namespaces());
        assert_eq!(all.bits().count_ones(), 6);
        let shared = clone_flags(&Namespaces {
            net: Namespace::Host,
            user: Namespace::Join(Joined {
                path: "/proc/1/ns/user".into(),
                inode: None,
            }),
            ..namespaces()
        });
        assert_eq!(
            all - shared,
            CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUSER
        );
    }
}
