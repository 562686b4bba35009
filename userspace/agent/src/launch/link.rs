//! The agent's connection to one monitor, on tokio.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::Path,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use paddock_runtime::{
    client::{Connection, Error, Packet},
    protocol::Request,
};
use tokio::{io::unix::AsyncFd, time::sleep};

use crate::readiness;

#[derive(Debug)]
pub(crate) struct Link {
    fd: AsyncFd<Socket>,
}

#[derive(Debug)]
struct Socket(Connection);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A monitor that does not read for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(10);

impl Link {
    /// Inside a tokio runtime.
    pub(crate) fn connect(socket: &Path) -> Result<Self, Error> {
        let connection = Connection::connect(socket)?;
        connection.set_nonblocking(true)?;
        let fd = readiness::watch(Socket(connection)).map_err(|source| Error::Io {
            op: "watch",
            source,
        })?;
        Ok(Self { fd })
    }

    /// The next packet; `None` when the monitor is gone.
    pub(crate) async fn recv(&self) -> Result<Option<Packet>, Error> {
        loop {
            let mut ready = self.fd.readable().await.map_err(|source| Error::Io {
                op: "wait for",
                source,
            })?;
            match self.fd.get_ref().0.recv() {
                Err(error) if error.is_would_block() => ready.clear_ready(),
                other => return other,
            }
        }
    }

    pub(crate) async fn send(&self, request: Request, payload: &[u8]) -> Result<(), Error> {
        let send = async {
            loop {
                match self.fd.get_ref().0.send(request, payload) {
                    Err(error) if error.is_would_block() => sleep(STEP).await,
                    other => return other,
                }
            }
        };
        tokio::time::timeout(PATIENCE, send)
            .await
            .unwrap_or_else(|_| {
                Err(Error::Io {
                    op: "send to",
                    source: io::ErrorKind::TimedOut.into(),
                })
            })
    }

    /// The monitor's pid: who listens is who bound the socket.
    pub(crate) fn monitor_pid(&self) -> Option<i32> {
        getsockopt(&self.fd.get_ref().0.as_fd(), PeerCredentials)
            .ok()
            .map(|credentials| credentials.pid())
            .filter(|pid| *pid > 0)
    }
}
