//! The zygote's client side: what the agent holds.
//!
//! The zygote is this executable run again from a sealed memfd (5.1 for the seals used), so
//! nothing a container can reach through /proc/PID/exe is the file on disk (CVE-2019-5736),
//! and a killed zygote can be replaced at any time, whatever threads the agent has.
#![forbid(unsafe_code)]

pub(crate) mod message;
mod server;

use std::{
    fs::File,
    io::{self, IoSlice, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{
            AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
        },
    },
    unistd::pipe2,
};

use self::message::{Answer, REQUEST};
use crate::{
    sealed,
    spec::LaunchSpec,
    sys::{
        clone::pidfd_open,
        descriptor::{inherit_socket, received},
        exec::exit_now,
    },
};

/// A running zygote: `paddock` executed again from a sealed memfd, single-threaded.
///
/// Dropping it closes its socket, which ends it, and waits for that; monitors go on.
#[derive(Debug)]
pub struct Zygote {
    /// `None` only while being dropped.
    socket: Option<OwnedFd>,
    pidfd: OwnedFd,
    child: Child,
}

/// `argv[0]` of a zygote.
pub const ARGV0: &str = "paddock-zygote";

/// Any number above the standard three and the socket's.
const CLEAR_OF_SOCKET: i32 = 10;

/// A monitor has this long to listen. It needs milliseconds.
const ANSWER_WITHIN_MS: u16 = 20_000;

impl Zygote {
    /// Starts one; the caller's `main` must route [`crate::zygote::ARGV0`] to [`serve`] before
    /// it starts a thread or opens a descriptor.
    pub fn spawn() -> Result<Self, Error> {
        let program = sealed::program().map_err(|source| Error::Io {
            op: "copy executable",
            source,
        })?;
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|errno| Error::Io {
            op: "socketpair",
            source: errno.into(),
        })?;
        // The socket takes number 3 in the child, so the program must not be there. `program`
        // stays open across the spawn: if 3 was free it has it, and std's own pipe can't.
        let clear = fcntl(&program, FcntlArg::F_DUPFD_CLOEXEC(CLEAR_OF_SOCKET))
            .map(received)
            .map_err(|errno| Error::Io {
                op: "copy descriptor",
                source: errno.into(),
            })?;
        let mut command = Command::new(format!("/proc/self/fd/{}", clear.as_raw_fd()));
        command
            .arg0(ARGV0)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        inherit_socket(&mut command, theirs.as_raw_fd());
        let mut child = command.spawn().map_err(|source| Error::Io {
            op: "execute",
            source,
        })?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        match pidfd_open(pid) {
            Ok(pidfd) => Ok(Self {
                socket: Some(ours),
                pidfd,
                child,
            }),
            Err(errno) => {
                drop(ours);
                let _ = child.wait();
                Err(Error::Io {
                    op: "pidfd_open",
                    source: errno.into(),
                })
            }
        }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }

    /// Readable when the zygote has ended: then drop this and spawn another.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn is_alive(&self) -> bool {
        !is_readable(self.pidfd.as_fd(), PollTimeout::ZERO)
    }

    /// Forks a monitor for `spec`, which binds `DIR/monitor.sock` before this returns its pid.
    /// Blocking, some milliseconds; callers on tokio use `spawn_blocking`. May be called from
    /// several threads at once. [`Error::Died`] asks for a new zygote and another try; it may
    /// be seen a moment before [`Zygote::is_alive`] tells.
    pub fn launch(&self, spec: &LaunchSpec) -> Result<i32, Error> {
        let io = |op| move |source: io::Error| Error::Io { op, source };
        let mut request = memfd_create(c"paddock-launch", MFdFlags::MFD_CLOEXEC)
            .map(File::from)
            .map_err(|errno| io("create request")(errno.into()))?;
        // As a whole: a writer would take a system call for each token.
        let text = serde_json::to_vec(spec).map_err(|error| io("write request")(error.into()))?;
        request.write_all(&text).map_err(io("write request"))?;
        let (answer, reply) =
            pipe2(OFlag::O_CLOEXEC).map_err(|errno| io("create pipe")(errno.into()))?;
        self.send(&request, reply)?;
        receive(answer)
    }

    /// `reply` is closed here, so that the answer ends when the zygote's side has.
    fn send(&self, request: &File, reply: OwnedFd) -> Result<(), Error> {
        let socket = self.socket.as_ref().ok_or(Error::Died)?;
        let byte = [REQUEST];
        let fds = [request.as_raw_fd(), reply.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let data = [IoSlice::new(&byte)];
        let sent = loop {
            let sent = sendmsg::<()>(
                socket.as_raw_fd(),
                &data,
                &rights,
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            if sent != Err(Errno::EINTR) {
                break sent;
            }
        };
        drop(reply);
        match sent {
            Ok(_) => Ok(()),
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(Error::Died),
            Err(errno) => Err(Error::Io {
                op: "send request",
                source: errno.into(),
            }),
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        self.socket = None;
        // It ends at the end of file; that it was waited for is all that is wanted.
        let _ = self.child.wait();
    }
}

/// The zygote's whole life: serves requests on fd 3 until its end of file.
pub fn serve() -> ! {
    exit_now(server::serve())
}

fn receive(answer: OwnedFd) -> Result<i32, Error> {
    if !is_readable(answer.as_fd(), PollTimeout::from(ANSWER_WITHIN_MS)) {
        return Err(Error::Io {
            op: "wait for the monitor",
            source: io::ErrorKind::TimedOut.into(),
        });
    }
    let mut json = Vec::new();
    File::from(answer)
        .read_to_end(&mut json)
        .map_err(|source| Error::Io {
            op: "read answer",
            source,
        })?;
    if json.is_empty() {
        return Err(Error::Died);
    }
    let answer = serde_json::from_slice(&json).map_err(|error| Error::Io {
        op: "read answer",
        source: error.into(),
    })?;
    match answer {
        Answer::Ready { pid } => Ok(pid),
        Answer::Failed { message, errno } => Err(Error::Monitor { message, errno }),
    }
}

/// Readable or hung up within the time.
fn is_readable(fd: BorrowedFd<'_>, timeout: PollTimeout) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            other => return other.is_ok_and(|ready| ready > 0),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("zygote: {op}")]
    Io {
        op: &'static str,
        #[source]
        source: io::Error,
    },
    /// The zygote or the fresh monitor was killed; nothing was started.
    #[error("zygote: died")]
    Died,
    /// The monitor could not begin; `message` holds its whole chain.
    #[error("monitor: {message}")]
    Monitor { message: String, errno: i32 },
}
