//! Launch without zygote and monitor: what an OCI runtime does, and then goes.
//!
//! The caller is single-threaded and runs from a sealed copy of itself ([`crate::sealed`]):
//! it clones the container's first process as its own child with its own stdio, waits until
//! that has done everything but exec, and may end; the child waits to be started on a socket
//! whose path only the host has. Whatever fails leaves no process; the cgroup is the caller's.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::Read as _,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::unshare,
    sys::{
        stat::{Mode, umask},
        wait::WaitStatus,
    },
    unistd::{pipe2, read},
};
use paddock_cgroups::{Cgroup, DeviceRule};

pub use crate::monitor::identity::start_time;
use crate::{
    listener,
    monitor::{
        devices,
        launch::{clone, follow_into, kill_and_wait, open_gate, open_tasks, provide, wait},
    },
    plan::{
        Failure,
        build::io_failure,
        direct::{prepare, write_states},
        run::{Channels, HOOK_FAILED, LISTENER, READY, decode_status},
    },
    record::{Failed, KILLED},
    spec::{Process, Propagation, Target},
    sys::{
        clone::{Cloned, NEWTIME, pidfd_open, pidfd_send_signal},
        task::{set_io_priority, set_scheduler, set_window_size, window_size},
    },
};

/// One process to start.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub process: &'a Process,
    pub target: &'a Target,
    /// `None`: it stays in the caller's, which is nobody's to limit.
    pub cgroup: Option<&'a Cgroup>,
    /// How many descriptors from 3 on the program keeps; they must be open.
    pub preserved: u8,
    pub new_keyring: bool,
    /// A listening socket: the program waits until somebody connects to it ([`start`]).
    pub start: Option<BorrowedFd<'a>>,
    /// Run by the child before its root is changed, and before it executes its program.
    pub create_container: &'a [Hook],
    pub start_container: &'a [Hook],
    /// Where `createContainer` hooks run.
    pub hook_directory: &'a Path,
    /// The root gets the devices of every container itself: nothing is mounted on its /dev.
    pub own_devices: bool,
    /// The root's, and whether of what is mounted in it too.
    pub propagation: (Propagation, bool),
    /// Rows and columns of the terminal.
    pub window: Option<(u16, u16)>,
    /// ioprio_set(2)'s number.
    pub io_priority: Option<i32>,
    pub scheduler: Option<Scheduler>,
    pub memory_policy: Option<&'a MemoryPolicy>,
    /// Who answers what a filter asks: connected to, and told [`States::process`].
    pub listener: Option<&'a Path>,
    /// Of a new time namespace: clock, seconds, nanoseconds.
    pub time_offsets: &'a [(String, i64, u32)],
}

/// A program of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub path: PathBuf,
    /// With the name; empty is the path alone.
    pub args: Vec<String>,
    /// `None`: the launcher's own.
    pub env: Option<Vec<String>>,
    pub timeout: Option<Duration>,
}

/// set_mempolicy(2)'s arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*` with its `MPOL_F_*`.
    pub mode: i32,
    /// A bit a node; empty is none.
    pub nodes: Vec<usize>,
    /// For people.
    pub shown: String,
}

/// sched_setattr(2)'s fields, `SCHED_*` and `SCHED_FLAG_*` by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, of `SCHED_DEADLINE`.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

impl Scheduler {
    /// What v1's real-time budgets are for; `SCHED_DEADLINE` has its own.
    pub fn is_real_time(&self) -> bool {
        [libc::SCHED_FIFO, libc::SCHED_RR]
            .iter()
            .any(|policy| u32::try_from(*policy) == Ok(self.policy))
    }
}

/// What others are told of the container: the child's own hooks on stdin, a seccomp listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct States {
    pub creating: String,
    pub created: String,
    /// The specification's container process state.
    pub process: String,
}

/// A process of this one's, at its exec or waiting for its start.
#[derive(Debug)]
pub struct Launched {
    process: Cloned,
    pub start_time: u64,
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
}

/// Clones and sees the child through. `born` is called with the pid (the namespaces are there,
/// the root is still the host's) and says what the child's hooks and the listener will read.
pub fn launch<E: From<Failed>>(
    request: &Request<'_>,
    born: impl FnOnce(i32, u64) -> Result<States, E>,
) -> Result<Launched, E> {
    let failed = |failure: Failure| E::from(failure.record());
    // Modes are meant as they are written.
    let mask = umask(Mode::empty());
    let prepared = prepare(request).map_err(failed);
    umask(mask);
    let (mut plan, terminal) = prepared?;
    if !request.time_offsets.is_empty() {
        shift_clocks(request.time_offsets).map_err(failed)?;
        plan.clone_flags.remove(NEWTIME);
    }
    let pipes = |errno| failed(Failure::without_path("pipes", errno));
    let (gate, gate_writer) = pipe2(OFlag::O_CLOEXEC).map_err(pipes)?;
    let (status, child_status) = pipe2(OFlag::O_CLOEXEC).map_err(pipes)?;
    let channels = Channels {
        gate,
        status: child_status,
        gate_writer: gate_writer.as_raw_fd(),
        tasks: open_tasks(request.cgroup).map_err(failed)?,
        trace: None,
    };
    if let Target::Container(target) = request.target {
        limit_devices(&target.device_rules, request.cgroup).map_err(failed)?;
    }
    let (mut process, joined) = clone(&plan, &channels, request.cgroup).map_err(failed)?;
    drop(channels);
    let through = || {
        let provided = provide(&process, &plan, request.cgroup, joined, &status);
        let mut start_time = provided.map_err(failed)?;
        prioritize(process.pid, request).map_err(failed)?;
        if plan.enter.is_some() {
            open_gate(&gate_writer).map_err(failed)?;
            start_time = follow_into(&mut process, &status, start_time).map_err(failed)?;
        }
        let told = born(process.pid, start_time)?;
        write_states(&plan, &told).map_err(failed)?;
        open_gate(&gate_writer).map_err(failed)?;
        let waits = plan.start.is_some();
        let names = plan.into_names();
        loop {
            return match follow(&status, waits) {
                Told::Listener(number) => {
                    let socket = request.listener.unwrap_or(Path::new(""));
                    listener::tell(&process, number, socket, &told.process).map_err(failed)?;
                    open_gate(&gate_writer).map_err(failed)?;
                    continue;
                }
                Told::Ready => Ok(start_time),
                Told::Failed(index, errno) => Err(failed(names.failure(index, errno))),
                Told::Nothing => Err(failed(Failure::without_path(KILLED, Errno::EINTR))),
            };
        }
    };
    match through() {
        Ok(start_time) => Ok(Launched {
            process,
            start_time,
            terminal,
        }),
        Err(error) => {
            kill_and_wait(&process);
            Err(error)
        }
    }
}

/// Rules are a cgroup's: without one they are refused, not forgotten.
fn limit_devices(rules: &[DeviceRule], cgroup: Option<&Cgroup>) -> Result<(), Failure> {
    match cgroup {
        Some(cgroup) => devices::limit(rules, cgroup),
        None if rules.is_empty() => Ok(()),
        None => Err(Failure::without_path("device rules", Errno::EOPNOTSUPP)),
    }
}

/// A time namespace takes offsets only until somebody is in it (time_namespaces(7)): it is made
/// for this process' children first, and the clone is its first member.
fn shift_clocks(offsets: &[(String, i64, u32)]) -> Result<(), Failure> {
    const PATH: &str = "/proc/self/timens_offsets";
    unshare(NEWTIME).map_err(|errno| Failure::without_path("time namespace", errno))?;
    let lines: Vec<_> = offsets
        .iter()
        .map(|(clock, seconds, nanoseconds)| format!("{clock} {seconds} {nanoseconds}"))
        .collect();
    fs::write(PATH, lines.join("\n")).map_err(|source| io_failure("time offsets", PATH, &source))
}

/// By its parent, who has the host's privileges; what the child makes inherits them.
fn prioritize(pid: i32, request: &Request<'_>) -> Result<(), Failure> {
    if let Some(value) = request.io_priority {
        set_io_priority(pid, value)
            .map_err(|errno| Failure::new("ioPriority", value.to_string(), errno))?;
    }
    if let Some(scheduler) = request.scheduler {
        set_scheduler(pid, scheduler)
            .map_err(|errno| Failure::new("scheduler", scheduler.policy.to_string(), errno))?;
    }
    Ok(())
}

#[derive(Debug)]
enum Told {
    /// Its number in the child, who waits.
    Listener(RawFd),
    Ready,
    Failed(u32, Errno),
    Nothing,
}

/// Until it waits, or until its exec has closed the pipe.
fn follow(status: &OwnedFd, waits: bool) -> Told {
    let mut ready = false;
    loop {
        let mut message = [0; 8];
        match read(status, &mut message) {
            Ok(8) => match decode_status(message) {
                (LISTENER, number) => return Told::Listener(number),
                (READY, _) if waits => return Told::Ready,
                (READY, _) => ready = true,
                (index, errno) => {
                    return Told::Failed(index, Errno::from_raw(errno));
                }
            },
            Err(Errno::EINTR) => {}
            Ok(_) | Err(_) if ready => return Told::Ready,
            Ok(_) | Err(_) => return Told::Nothing,
        }
    }
}

impl Launched {
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// Blocks until it has ended: its exit code, or 128 + signal.
    pub fn wait(&self) -> nix::Result<i32> {
        loop {
            match wait(&self.process) {
                Ok(WaitStatus::Exited(_, code)) => return Ok(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        pidfd_send_signal(self.process.pidfd.as_fd(), signal)
    }

    /// Ends it and waits for that.
    pub fn kill(&self) {
        kill_and_wait(&self.process);
    }
}

/// Why a waiting program could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// A `startContainer` hook failed or took too long.
    Hook(i32),
    Exec(i32),
}

/// Reads what a child says to who has connected to its socket.
pub fn started(mut connection: UnixStream) -> Result<(), NotStarted> {
    let mut message = [0; 8];
    if connection.read_exact(&mut message).is_err() {
        return Ok(());
    }
    let (index, errno) = decode_status(message);
    Err(if index == HOOK_FAILED {
        NotStarted::Hook(errno)
    } else {
        NotStarted::Exec(errno)
    })
}

/// A pidfd for a child of the caller's.
pub fn pidfd(pid: i32) -> nix::Result<OwnedFd> {
    pidfd_open(pid)
}

/// Gives a terminal the size of another; what is no terminal has none.
pub fn copy_window_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    if let Ok((rows, columns)) = window_size(from) {
        let _ = set_window_size(to, rows, columns);
    }
}

/// Exactly the process that had this start time, or `None`: it has ended.
#[derive(Debug)]
pub struct Found {
    pidfd: OwnedFd,
}

/// Looks for a process by pid and start time.
pub fn find(pid: i32, start_time: u64) -> Option<Found> {
    let pidfd = pidfd_open(pid).ok()?;
    (self::start_time(pid).ok()? == start_time).then_some(Found { pidfd })
}

impl Found {
    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        pidfd_send_signal(self.pidfd.as_fd(), signal)
    }

    /// Blocks until its last thread has ended, waited for by its parent or not; `false`: not in
    /// that time. The first process of a pid namespace ends after all others in it.
    pub fn ends_within(&self, limit: Duration) -> nix::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                other => return other.map(|ready| ready > 0),
            }
        }
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
