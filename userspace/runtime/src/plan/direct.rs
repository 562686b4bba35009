//! Plans without a monitor: stdio inherited or a terminal handed out, hooks, a start to wait for.
#![forbid(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{
    libc,
    sys::memfd::{MFdFlags, memfd_create},
    unistd::{Gid, Uid, dup, fchown, write},
};

use super::{
    Failure, Op, Plan, SECCOMP, Start, Step,
    build::{c_string, io_failure, step, step_at},
    container, dev, exec,
    hook::Hook,
};
use crate::{
    direct::{self, Request},
    spec::{ContainerSpec, ExecSpec, Propagation, Rootfs, Target},
    sys::{exec::Strings, task::set_window_size},
};

/// The plan and, with a terminal, its master.
pub(crate) fn prepare(request: &Request<'_>) -> Result<(Plan, Option<OwnedFd>), Failure> {
    let (mut plan, master) = match request.target {
        Target::Container(target) => of_container(request, target)?,
        Target::Exec(target) => of_exec(request, target)?,
    };
    plan.preserved = request.preserved;
    plan.steps.retain(|step| match step.op {
        // The child outlives its launcher.
        Op::ParentDeath => false,
        Op::Keyring => request.new_keyring,
        _ => true,
    });
    if let Some(policy) = request.memory_policy {
        let op = Op::MemoryPolicy {
            mode: policy.mode,
            nodes: policy.nodes.clone(),
        };
        plan.steps.push(step_at("memory policy", &policy.shown, op));
    }
    plan.steps.push(step("exec", Op::FindProgram));
    // Its launcher has to take the listener before it goes.
    if let Some(program) = plan.seccomp.take_if(|program| program.notifies) {
        plan.steps.push(step(SECCOMP, Op::Seccomp { program }));
    }
    if let (Some(window), Some(master)) = (request.window, &master) {
        set_window_size(master.as_fd(), window.0, window.1)
            .map_err(|errno| Failure::without_path("terminal", errno))?;
    }
    Ok((plan, master))
}

fn of_container(
    request: &Request<'_>,
    target: &ContainerSpec,
) -> Result<(Plan, Option<OwnedFd>), Failure> {
    let process = request.process;
    let stdio = |made: &container::Made, owner| {
        if !process.terminal {
            let stdio = inherited()?;
            hand_over(&stdio, owner);
            return Ok((None, stdio));
        }
        let pts = made.pts.as_ref().ok_or_else(container::no_terminal)?;
        let terminal = dev::terminal(pts)?;
        // Its owner may open it again by name.
        hand_over(std::slice::from_ref(&terminal.peer), owner);
        three(terminal)
    };
    // Only a throwaway root needs a scratch directory.
    let (mut plan, master) = container::plan(process, target, Path::new("/"), stdio)?;
    if let Some(listener) = &request.start {
        plan.start = Some(Start {
            listener: listener
                .try_clone_to_owned()
                .map_err(|source| io_failure("start", "socket", &source))?,
            hooks: hooks(request.start_container)?,
            state: memfd()?,
        });
    }
    plan.hook_state = Some(memfd()?);
    place_root(&mut plan, request, target)?;
    if request.own_devices
        && let Some(root) = &plan.root
    {
        dev::defaults_in_root(root, container::owner(target)?)?;
    }
    let mut last = Vec::new();
    if !request.create_container.is_empty() {
        let path = request.hook_directory.to_string_lossy().into_owned();
        let op = Op::HostDirectory {
            path: c_string("hook directory", &path)?,
        };
        last.push(step_at("hook directory", &path, op));
    }
    for hook in request.create_container {
        let path = hook.path.to_string_lossy().into_owned();
        let op = Op::Hook(compile(hook)?);
        last.push(step_at("createContainer hook", &path, op));
    }
    let place = |wanted: fn(&Op) -> bool| {
        let found = plan.steps.iter().position(|step| wanted(&step.op));
        found.unwrap_or(plan.steps.len())
    };
    let pivot = place(|op| matches!(op, Op::PivotRoot));
    // A label is for the next exec, which is not to be a hook's.
    let hooks = place(|op| matches!(op, Op::ExecLabel { .. } | Op::PivotRoot));
    // A shared root can't be pivoted to.
    let (flags, recursive) = request.propagation;
    let end = match flags {
        Propagation::Private | Propagation::Slave => None,
        Propagation::Shared => Some(propagation(libc::MS_SHARED, recursive)),
        Propagation::Unbindable => Some(propagation(libc::MS_UNBINDABLE, recursive)),
    };
    let after = (pivot + 1).min(plan.steps.len());
    plan.steps.splice(after..after, end);
    plan.steps.splice(hooks..hooks, last);
    Ok((plan, master))
}

/// Hooks look for the container's mounts below the bundle's own rootfs.
fn place_root(
    plan: &mut Plan,
    request: &Request<'_>,
    target: &ContainerSpec,
) -> Result<(), Failure> {
    let Rootfs::Directory(path) = &target.rootfs else {
        return Ok(());
    };
    for step in &mut plan.steps {
        if let Op::AttachRoot { at, propagation } = &mut step.op {
            *at = c_string("attach rootfs", &path.to_string_lossy())?;
            if request.propagation.0 == Propagation::Slave {
                *propagation = libc::MS_SLAVE;
            }
        }
    }
    Ok(())
}

fn of_exec(request: &Request<'_>, target: &ExecSpec) -> Result<(Plan, Option<OwnedFd>), Failure> {
    let stdio = |_| {
        if request.process.terminal {
            three(exec::open_terminal(target.pid)?)
        } else {
            Ok((None, inherited()?))
        }
    };
    exec::plan(request.process, target, stdio)
}

fn propagation(flags: u64, recursive: bool) -> Step {
    step("rootfs propagation", Op::Propagation { flags, recursive })
}

fn inherited() -> Result<[OwnedFd; 3], Failure> {
    let fail = |source: io::Error| io_failure("stdio", "inherited", &source);
    Ok([
        io::stdin().as_fd().try_clone_to_owned().map_err(fail)?,
        io::stdout().as_fd().try_clone_to_owned().map_err(fail)?,
        io::stderr().as_fd().try_clone_to_owned().map_err(fail)?,
    ])
}

fn three(terminal: dev::Terminal) -> Result<(Option<OwnedFd>, [OwnedFd; 3]), Failure> {
    let fail = |errno| Failure::without_path("terminal", errno);
    let stdio = [
        dup(&terminal.peer).map_err(fail)?,
        dup(&terminal.peer).map_err(fail)?,
        terminal.peer,
    ];
    Ok((Some(terminal.master), stdio))
}

/// The caller's stdio may be anything: what can't be given away (a read-only file, a socket)
/// works as it is for who only reads and writes.
fn hand_over(stdio: &[OwnedFd], (uid, gid): (u32, u32)) {
    for fd in stdio {
        if uid != 0 && !container::is_null(fd) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let _ = fchown(fd.as_fd(), Some(uid), Some(gid));
        }
    }
}

fn memfd() -> Result<OwnedFd, Failure> {
    memfd_create(c"paddock-state", MFdFlags::MFD_CLOEXEC)
        .map_err(|errno| Failure::without_path("state for hooks", errno))
}

fn hooks(hooks: &[direct::Hook]) -> Result<Vec<Hook>, Failure> {
    hooks.iter().map(compile).collect()
}

fn compile(hook: &direct::Hook) -> Result<Hook, Failure> {
    const STEP: &str = "hook";
    let path = c_string(STEP, &hook.path.to_string_lossy())?;
    let strings = |texts: &[String]| -> Result<Vec<CString>, Failure> {
        texts.iter().map(|text| c_string(STEP, text)).collect()
    };
    let own = || {
        std::env::vars()
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    };
    let env = hook.env.clone().unwrap_or_else(own);
    let mut argv = strings(&hook.args)?;
    if argv.is_empty() {
        argv.push(path.clone());
    }
    Ok(Hook {
        path,
        argv: Strings::new(argv),
        envp: Strings::new(strings(&env)?),
        timeout: hook.timeout,
    })
}

/// Writes what the hooks of a plan will read.
pub(crate) fn write_states(plan: &Plan, states: &direct::States) -> Result<(), Failure> {
    let of_start = plan.start.as_ref().map(|start| &start.state);
    let files = [
        (plan.hook_state.as_ref(), &states.creating),
        (of_start, &states.created),
    ];
    for (file, text) in files {
        let Some(file) = file else { continue };
        // The child rewinds it.
        write(file, text.as_bytes())
            .map_err(|errno| Failure::without_path("state for hooks", errno))?;
    }
    Ok(())
}
