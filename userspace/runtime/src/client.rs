//! Talking to a monitor: connect to `monitor.sock`, send requests, receive replies.
//!
//! For the agent and the command line. The socket is SOCK_SEQPACKET, so a read is a whole
//! packet or an error, never a part; callers on tokio put the descriptor into an `AsyncFd`
//! with [`Connection::set_nonblocking`] and call [`Connection::recv`] when it is readable.
//! An end of file without [`Packet::Exited`] before it means that the monitor was killed, or
//! dropped this client because it fell behind; `exit.json` and `log.jsonl` tell which.
#![forbid(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
    },
};

pub use crate::protocol::{MAX_PACKET, Packet, decode, encode, resize_payload, signal_payload};
use crate::protocol::{Malformed, Request};

/// One client's end of a monitor's socket.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
}

impl Connection {
    /// Connects to `DIR/monitor.sock`, blocking. The path may be longer than `sun_path`.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let fail = |op, source| Error::Connect {
            op,
            path: path.to_owned(),
            source,
        };
        let fd = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .map_err(|errno| fail("socket", errno.into()))?;
        let (_directory, address) =
            address_of(path).map_err(|source| fail("open directory of", source))?;
        connect(fd.as_raw_fd(), &address).map_err(|errno| fail("connect to", errno.into()))?;
        Ok(Self { fd })
    }

    /// Takes a descriptor that came from [`Connection::into_fd`] or another process.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// With `true`, [`Connection::send`] and [`Connection::recv`] fail with `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, on: bool) -> Result<(), Error> {
        let set = || {
            let mut flags = OFlag::from_bits_retain(fcntl(&self.fd, FcntlArg::F_GETFL)?);
            flags.set(OFlag::O_NONBLOCK, on);
            fcntl(&self.fd, FcntlArg::F_SETFL(flags))
        };
        set().map(drop).map_err(|errno| Error::Io {
            op: "set blocking mode",
            source: errno.into(),
        })
    }

    /// Sends one packet; `payload` is at most [`MAX_PACKET`] - 1 bytes.
    pub fn send(&self, request: Request, payload: &[u8]) -> Result<(), Error> {
        let packet = encode(request, payload);
        loop {
            match send(self.fd.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(Error::Io {
                        op: "send to",
                        source: errno.into(),
                    });
                }
            }
        }
    }

    /// Receives one packet; `None` is the end of file.
    pub fn recv(&self) -> Result<Option<Packet>, Error> {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                // A monitor that closed with our packets unread resets the connection: its end too.
                Ok(0) | Err(Errno::ECONNRESET) => return Ok(None),
                Ok(length) => {
                    buffer.truncate(length);
                    return decode(&buffer).map(Some).map_err(Error::Malformed);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(Error::Io {
                        op: "receive from",
                        source: errno.into(),
                    });
                }
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `sun_path` holds 108 bytes and an exec's directory is longer: the address goes through the
/// descriptor of the parent directory, which must stay open until connect or bind is done.
pub(crate) fn address_of(path: &Path) -> io::Result<(File, UnixAddr)> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::EINVAL.into());
    };
    let directory = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(parent)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, UnixAddr::new(&short)?))
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{op} {path}")]
    Connect {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{op} the monitor")]
    Io {
        op: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the monitor sent a malformed packet")]
    Malformed(#[source] Malformed),
}

impl Error {
    /// Nothing to read, or no room to write, on a non-blocking connection.
    pub fn is_would_block(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::WouldBlock)
    }
}
