//! The monitor: parent of one workload, holder of its stdio and log, reaper, recorder.
//!
//! Single-threaded, one poll loop, no async runtime: it must be small, and it forks. It lives
//! as long as its workload plus the time clients need to take the rest of the output; it
//! outlives zygote and agent. Kernels from 5.10. If it is killed, the workload's parent death
//! signal ends that too, and the agent cleans up.
#![forbid(unsafe_code)]

mod client;
pub(crate) mod devices;
mod event_loop;
mod follower;
pub(crate) mod identity;
pub(crate) mod io;
pub(crate) mod launch;
mod log;
mod questions;
mod told;
mod workload;

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        socket::{AddressFamily, Backlog, SockFlag, SockType, bind, listen, socket},
        stat::{Mode, umask},
    },
    unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid},
};

use paddock_cgroups::Hierarchies;

use crate::{client::address_of, spec::LaunchSpec, sys::task, zygote::message::Answer};

pub(crate) const SOCKET: &str = "monitor.sock";

/// The whole life of a monitor, in the zygote's child. `reply` gets one [`Answer`].
pub(crate) fn run(
    request: File,
    reply: File,
    hierarchies: Result<Hierarchies, paddock_cgroups::Error>,
) {
    match prepare(request, hierarchies) {
        Ok(monitor) => {
            let pid = i32::try_from(std::process::id()).unwrap_or_default();
            answer(reply, &Answer::Ready { pid });
            monitor.run();
        }
        Err(error) => answer(reply, &Answer::failed(&error)),
    }
}

fn answer(mut reply: File, answer: &Answer) {
    // An agent that is gone by now is noticed by the lack of clients.
    if let Ok(json) = serde_json::to_vec(answer) {
        let _ = reply.write_all(&json);
    }
}

fn prepare(
    mut request: File,
    hierarchies: Result<Hierarchies, paddock_cgroups::Error>,
) -> Result<event_loop::Monitor, Error> {
    request.rewind().map_err(|source| Error::Request {
        source: source.into(),
    })?;
    let mut text = Vec::new();
    request
        .read_to_end(&mut text)
        .map_err(|source| Error::Request {
            source: source.into(),
        })?;
    let spec: LaunchSpec = serde_json::from_slice(&text).map_err(|source| Error::Request {
        source: source.into(),
    })?;
    drop(request);
    let directory = spec.dir.clone();
    let io = |op| {
        let path = directory.clone();
        move |source: std::io::Error| Error::Io { op, path, source }
    };
    let call = |op| {
        let io = io(op);
        move |errno: Errno| io(errno.into())
    };
    detach(&directory)?;
    let termination = block_termination().map_err(call("block signals for"))?;
    let log = log::Log::open(&directory, spec.log).map_err(io("create log in"))?;
    let path = directory.join(SOCKET);
    let listener = listen_at(&path).map_err(io("listen in"))?;
    event_loop::Monitor::new(spec, &hierarchies?, listener, termination, log).inspect_err(|_| {
        // The listener is what tells others that a monitor is here; this one is not.
        let _ = fs::remove_file(&path);
    })
}

/// Own session, no terminal, no descriptors of the agent's, no directory held.
fn detach(directory: &Path) -> Result<(), Error> {
    let io = |op, source: std::io::Error| Error::Io {
        op,
        path: directory.to_owned(),
        source,
    };
    // Names are for people; a monitor without one works.
    let _ = prctl::set_name(c"paddock-monitor");
    umask(Mode::empty());
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(directory.join("monitor.log"))
        .map_err(|source| io("create log in", source))?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|source| io("open /dev/null for", source))?;
    setsid()
        .and_then(|_| dup2_stdin(&null))
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&log))
        .and_then(|()| chdir("/"))
        .map_err(|errno| io("detach for", errno.into()))?;
    task::default_signal(libc::SIGCHLD);
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGPIPE,
    ] {
        task::ignore_signal(signal as i32);
    }
    Ok(())
}

/// SIGTERM comes through a descriptor: it ends the workload, then the monitor in its usual way.
fn block_termination() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn listen_at(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let (_directory, address) = address_of(path)?;
    bind(listener.as_raw_fd(), &address)?;
    listen(&listener, Backlog::new(64)?)?;
    Ok(listener)
}

/// Why a monitor could not begin; what comes later goes to its clients as `Failed`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read the request")]
    Request {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Cgroup(#[from] paddock_cgroups::Error),
}
