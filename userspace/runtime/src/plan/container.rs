//! The plan of a container's first process: new namespaces, a root of its own.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use nix::{sched::CloneFlags, unistd::dup};

use super::{
    Failure, Op, Plan,
    build::{Prepared, program, push_credentials, push_session, step},
    dev, mounts, rootfs,
};
use crate::{
    monitor::io::{Io, pipes},
    spec::{ContainerSpec, LaunchSpec, Namespaces},
};

pub(super) fn prepare(
    spec: &LaunchSpec,
    target: &ContainerSpec,
    window: Option<(u16, u16)>,
) -> Result<Prepared, Failure> {
    let namespaces = target.namespaces;
    // First of all what can be refused before anything is made.
    let exec = program(&spec.process)?;
    let root = rootfs::open(&target.rootfs, &spec.dir)?;
    let dev = dev::make(spec.process.terminal)?;
    let (io, stdio) = if spec.process.terminal {
        terminal(dev.terminal()?, window)?
    } else if spec.process.stdin {
        pipes(None)?
    } else {
        pipes(Some(dev.null()?))?
    };
    let mut steps = Vec::new();
    if namespaces.cgroup {
        steps.push(step("cgroup namespace", Op::UnshareCgroup));
    }
    mounts::push(&mut steps, spec, target, dev)?;
    if namespaces.uts {
        steps.push(step(
            "hostname",
            Op::Hostname {
                name: target.hostname.clone(),
            },
        ));
    }
    if namespaces.net {
        steps.push(step("loopback", Op::Loopback));
    }
    push_session(&mut steps, &spec.process)?;
    push_credentials(&mut steps, &spec.process, namespaces.user)?;
    let plan = Plan {
        clone_flags: clone_flags(namespaces),
        root: Some(root),
        stdio,
        steps,
        exec,
        maps: namespaces.user,
    };
    Ok(Prepared { plan, io })
}

/// The mount namespace is always new. The cgroup namespace is not here: its root is where the
/// process is when it is made, and v1 hierarchies are joined after the clone.
fn clone_flags(namespaces: Namespaces) -> CloneFlags {
    let mut flags = CloneFlags::CLONE_NEWNS;
    flags.set(CloneFlags::CLONE_NEWIPC, namespaces.ipc);
    flags.set(CloneFlags::CLONE_NEWNET, namespaces.net);
    flags.set(CloneFlags::CLONE_NEWPID, namespaces.pid);
    flags.set(CloneFlags::CLONE_NEWUSER, namespaces.user);
    flags.set(CloneFlags::CLONE_NEWUTS, namespaces.uts);
    flags
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
    use crate::defaults::NAMESPACES;

    #[test]
    fn a_namespace_of_the_hosts_has_no_flag() {
        let all = clone_flags(NAMESPACES);
        assert_eq!(all.bits().count_ones(), 6);
        let shared = clone_flags(Namespaces {
            net: false,
            user: false,
            ..NAMESPACES
        });
        assert_eq!(
            all - shared,
            CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUSER
        );
    }
}
