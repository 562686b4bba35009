//! Clone the workload's first process and bring it to its exec.
//!
//! Kernels from 5.10. Whatever fails, the half-made process is killed and waited for before
//! the failure is returned; its cgroup is the caller's to clean.
#![forbid(unsafe_code)]

use std::{
    fs::{self, File},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid},
    unistd::{pipe2, read, write},
};
use paddock_cgroups::Cgroup;

use super::{devices, identity::start_time, io::Io, told::Told};
use crate::{
    disk::kernel_text,
    network::{self, Held},
    plan::{
        Failure, Join, Names, Plan,
        build::{Prepared, io_failure, prepare},
        idmap::write_maps,
        run::{self, Channels, READY},
    },
    record::KILLED,
    spec::{LaunchSpec, Target},
    sys::clone::{Cloned, Side, clone3, pidfd_getfd, pidfd_open, pidfd_send_signal},
    trace::Traced,
};

/// A cloned process, on its way to exec or past it.
#[derive(Debug)]
pub(super) struct Workload {
    pub process: Cloned,
    pub start_time: u64,
    pub io: Io,
    names: Names,
    /// `None` once it has told: closed by a successful exec.
    status: Option<OwnedFd>,
    ready: bool,
    told: Option<Told>,
    _held: Held,
    /// The writing end: closed, it tells the child that its monitor is gone.
    gate: OwnedFd,
}

const LISTENER: &str = "listen to its filter";

/// What the status pipe told.
#[derive(Debug)]
pub(super) enum Progress {
    Executed,
    /// A filter asks by this; more is to come.
    Asks(OwnedFd),
    Failed(Failure),
    Pending,
}

pub(super) fn launch(
    spec: &LaunchSpec,
    cgroup: &Cgroup,
    window: Option<(u16, u16)>,
) -> Result<Workload, Failure> {
    let mut told = spec.trace.clone().map(Told::new);
    let Prepared { plan, io } = prepare(spec, window)?;
    let pipes = |errno| Failure::without_path("pipes", errno);
    let (gate, gate_writer) = pipe2(OFlag::O_CLOEXEC).map_err(pipes)?;
    let (status, child_status) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(pipes)?;
    let channels = Channels {
        gate,
        status: child_status,
        gate_writer: gate_writer.as_raw_fd(),
        tasks: open_tasks(Some(cgroup))?,
        trace: told.as_ref().map(Told::start_ns),
    };
    if let Target::Container(target) = &spec.target {
        devices::limit(&target.device_rules, cgroup)?;
        if let Some(told) = &mut told {
            told.prepared(&plan, target.device_rules.len());
        }
    }
    let (mut process, joined) = clone(&plan, &channels, Some(cgroup))?;
    drop(channels);
    if let Some(told) = &mut told {
        told.cloned(process.pid, &plan, joined);
    }
    let started = provide(&process, &plan, Some(cgroup), joined, &status)
        .inspect(|_| {
            if let Some(told) = &mut told {
                told.provided(process.pid, &plan, cgroup);
            }
        })
        .and_then(|started| match &plan.enter {
            Some(enter) => {
                open_gate(&gate_writer)?;
                let started = follow_into(&mut process, &status, started)?;
                if let Some(told) = &mut told {
                    told.entered(process.pid, enter);
                }
                Ok(started)
            }
            None => Ok(started),
        })
        .and_then(|started| {
            let held = join_networks(spec, process.pid, told.as_mut())?;
            open_gate(&gate_writer).map(|()| (started, held))
        });
    let names = plan.into_names();
    match started {
        Ok((start_time, held)) => Ok(Workload {
            process,
            start_time,
            io,
            names,
            status: Some(status),
            ready: false,
            told,
            _held: held,
            gate: gate_writer,
        }),
        Err(failure) => {
            kill_and_wait(&process);
            Err(failure)
        }
    }
}

/// Leaving them is the caller's, whatever becomes of this.
fn join_networks(spec: &LaunchSpec, pid: i32, told: Option<&mut Told>) -> Result<Held, Failure> {
    let Some(networks) = &spec.networks else {
        return Ok(Held::default());
    };
    let (networks, held) = network::join(&spec.dir, networks.clone(), pid)?;
    if let Some(told) = told {
        told.networked(&networks);
    }
    Ok(held)
}

/// The child is in the other user namespace and waits at the gate once more. If it made another
/// and ended, that one is the workload from now on. Whatever else it tells, or its silence, is
/// a failure.
pub(crate) fn follow_into(
    process: &mut Cloned,
    status: &OwnedFd,
    started: u64,
) -> Result<u64, Failure> {
    const STEP: &str = "join user namespace";
    let fail = |errno| Failure::without_path(STEP, errno);
    let pid = match next_status(status, STEP)? {
        (run::ENTERED, 0) => return Ok(started),
        (run::ENTERED, pid) => pid,
        (_, errno) => return Err(fail(Errno::from_raw(errno))),
    };
    // Ours to reap, so the number is still its own.
    let sibling = Cloned {
        pid,
        pidfd: pidfd_open(pid).map_err(fail)?,
    };
    let first = std::mem::replace(process, sibling);
    while wait(&first) == Err(Errno::EINTR) {}
    let path = format!("/proc/{pid}/stat");
    start_time(pid).map_err(|source| io_failure("identify", path, &source))
}

/// Into the cgroup, if one is given, by birth where that can be; `false`: it is to be moved.
pub(crate) fn clone(
    plan: &Plan,
    channels: &Channels,
    cgroup: Option<&Cgroup>,
) -> Result<(Cloned, bool), Failure> {
    let fail = |errno| Failure::without_path("clone", errno);
    let unified = match cgroup {
        Some(cgroup) => cgroup
            .unified_fd()
            .map_err(|error| cgroup_failure(&error))?,
        None => None,
    };
    let mut joined = unified.is_some();
    let home = plan
        .joins
        .iter()
        .map(Home::leave)
        .collect::<Result<Vec<_>, _>>()?;
    let mut side = clone3(plan.clone_flags, unified.as_ref().map(|fd| fd.as_fd()));
    if joined && matches!(side, Err(Errno::E2BIG | Errno::EINVAL)) {
        joined = false;
        side = clone3(plan.clone_flags, None);
    }
    let process = match side.map_err(fail)? {
        Side::Child => run::run(plan, channels),
        Side::Parent(process) => process,
    };
    match home.iter().try_for_each(Home::back) {
        Ok(()) => Ok((process, joined)),
        Err(failure) => {
            kill_and_wait(&process);
            Err(failure)
        }
    }
}

/// The monitor's own namespace of a type, where it is again after the clone: it would count as
/// one of the container's processes and keep the namespace from going.
struct Home {
    namespace: File,
    flag: CloneFlags,
}

impl Home {
    fn leave(join: &Join) -> Result<Self, Failure> {
        let fail = |errno| Failure::new("join namespace", &join.path, errno);
        let path = format!("/proc/self/ns/{}", join.name);
        let namespace =
            File::open(&path).map_err(|source| io_failure("join namespace", path, &source))?;
        setns(&join.namespace, join.flag).map_err(fail)?;
        Ok(Self {
            namespace,
            flag: join.flag,
        })
    }

    fn back(&self) -> Result<(), Failure> {
        setns(&self.namespace, self.flag)
            .map_err(|errno| Failure::without_path("return from a joined namespace", errno))
    }
}

/// Does for the child what only its parent may; its start time.
pub(crate) fn provide(
    process: &Cloned,
    plan: &Plan,
    cgroup: Option<&Cgroup>,
    joined: bool,
    status: &OwnedFd,
) -> Result<u64, Failure> {
    let pid = process.pid;
    if let Some(maps) = &plan.maps {
        write_maps(pid, maps)?;
    }
    if let Some(cgroup) = cgroup {
        if !joined {
            cgroup
                .attach_unified(pid)
                .map_err(|error| cgroup_failure(&error))?;
        }
        await_joins(cgroup, status)?;
    }
    set_oom_score(pid, plan.oom_score_adj)?;
    let path = format!("/proc/{pid}/stat");
    start_time(pid).map_err(|source| io_failure("identify", path, &source))
}

/// What the child joins its v1 cgroups by.
pub(crate) fn open_tasks(cgroup: Option<&Cgroup>) -> Result<Vec<OwnedFd>, Failure> {
    let open = |path: PathBuf| {
        let opened = File::options().write(true).open(&path);
        opened
            .map(OwnedFd::from)
            .map_err(|source| io_failure("join cgroup", path, &source))
    };
    let tasks = cgroup.map(Cgroup::v1_tasks).unwrap_or_default();
    tasks.into_iter().map(open).collect()
}

fn await_joins(cgroup: &Cgroup, status: &OwnedFd) -> Result<(), Failure> {
    let tasks = cgroup.v1_tasks();
    if tasks.is_empty() {
        return Ok(());
    }
    let (step, errno) = next_status(status, "join cgroup")?;
    if step == run::JOINED {
        return Ok(());
    }
    let index = step.checked_sub(run::FIRST_JOIN);
    let path = index.and_then(|index| tasks.get(usize::try_from(index).ok()?));
    Err(Failure::new(
        "join cgroup",
        path.cloned().unwrap_or_default(),
        Errno::from_raw(errno),
    ))
}

/// Waits for the child's next word.
fn next_status(status: &OwnedFd, step: &'static str) -> Result<(u32, i32), Failure> {
    let mut fds = [PollFd::new(status.as_fd(), PollFlags::POLLIN)];
    while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
    let mut message = [0; 8];
    let length = read(status, &mut message).map_err(|errno| Failure::without_path(step, errno))?;
    if length == message.len() {
        Ok(run::decode_status(message))
    } else {
        Err(Failure::without_path(KILLED, Errno::EINTR))
    }
}

/// Lets it go.
pub(crate) fn open_gate(gate: &OwnedFd) -> Result<(), Failure> {
    write(gate, b"!")
        .map(drop)
        .map_err(|errno| Failure::without_path("open gate", errno))
}

/// An agent that is shielded from the OOM killer must not shield its containers.
fn set_oom_score(pid: i32, wanted: Option<i32>) -> Result<(), Failure> {
    let own = kernel_text("/proc/self/oom_score_adj").unwrap_or_default();
    let wanted = wanted.unwrap_or(0).to_string();
    if own.trim() == wanted {
        return Ok(());
    }
    let path = format!("/proc/{pid}/oom_score_adj");
    fs::write(&path, wanted).map_err(|source| io_failure("oom_score_adj", path, &source))
}

pub(crate) fn cgroup_failure(error: &paddock_cgroups::Error) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut errno = Errno::EIO;
    while let Some(cause) = source {
        if let Some(number) = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
        {
            errno = Errno::from_raw(number);
        }
        source = cause.source();
    }
    Failure::new("cgroup", error.to_string(), errno)
}

pub(crate) fn kill_and_wait(process: &Cloned) {
    // A process that is gone already needs no signal, and the wait finds it either way.
    let _ = pidfd_send_signal(process.pidfd.as_fd(), libc::SIGKILL);
    while wait(process) == Err(Errno::EINTR) {}
}

/// Reaps the process; blocks until it has ended.
pub(crate) fn wait(process: &Cloned) -> nix::Result<WaitStatus> {
    waitid(Id::PIDFd(process.pidfd.as_fd()), WaitPidFlag::WEXITED)
}

impl Workload {
    /// Readable while the child is on its way.
    pub(super) fn status(&self) -> Option<&OwnedFd> {
        self.status.as_ref()
    }

    /// What was done for it; empty where nobody asked, and the second time.
    pub(super) fn take_steps(&mut self) -> Vec<Traced> {
        let told = self.told.take();
        told.map_or_else(Vec::new, |told| told.executed(self.process.pid))
    }

    /// Reads what the child has told so far.
    pub(super) fn progress(&mut self) -> Progress {
        let Some(status) = &self.status else {
            return Progress::Pending;
        };
        let mut message = [0; 8];
        loop {
            match read(status, &mut message) {
                Ok(8) => match run::decode_status(message) {
                    (READY, _) => self.ready = true,
                    (run::LISTENER, number) => match self.take_listener(number) {
                        Ok(listener) => return Progress::Asks(listener),
                        // It has ended: nothing more comes.
                        Err(Errno::ESRCH) => {}
                        Err(errno) => return self.give_up(LISTENER, errno),
                    },
                    (index @ run::DONE..run::DONE_END, micros) => {
                        if let Some(told) = &mut self.told {
                            told.done(index - run::DONE, micros);
                        }
                    }
                    (index, errno) => {
                        self.status = None;
                        let errno = Errno::from_raw(errno);
                        return Progress::Failed(self.names.failure(index, errno));
                    }
                },
                Err(Errno::EAGAIN) => return Progress::Pending,
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        self.status = None;
        if self.ready {
            return Progress::Executed;
        }
        // Killed on the way: by a client, or by the OOM killer under a limit too small to start in.
        Progress::Failed(Failure::without_path(KILLED, Errno::EINTR))
    }

    /// By its number in the child, who waits at the gate until it is taken.
    fn take_listener(&self, number: RawFd) -> nix::Result<OwnedFd> {
        let listener = pidfd_getfd(self.process.pidfd.as_fd(), number)?;
        write(&self.gate, b"!")?;
        Ok(listener)
    }

    fn give_up(&mut self, step: &'static str, errno: Errno) -> Progress {
        self.status = None;
        // Whoever is gone needs no signal; the caller waits for its end.
        let _ = pidfd_send_signal(self.process.pidfd.as_fd(), libc::SIGKILL);
        Progress::Failed(Failure::without_path(step, errno))
    }
}
