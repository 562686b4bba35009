//! journald's native protocol: a datagram an event to /run/systemd/journal/socket.
//!
//! Where its queue is full, only this waits; the rest of a batch is tried again later.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::UnixDatagram, time::timeout};

use super::{Failed, Receiver, message, priority, verdict_word};
use crate::event::Event;

/// For a place in its queue.
const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

#[derive(Debug)]
pub(crate) struct Journald {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// The last one that it got of a batch that it did not get whole.
    sent: u64,
}

impl Receiver for Journald {
    async fn send(&mut self, events: &[Event]) -> Result<(), Failed> {
        for event in events {
            if event.id <= self.sent {
                continue;
            }
            if let Err(error) = self.send_one(event).await {
                // One that is too long never fits.
                if error.raw_os_error() == Some(nix::errno::Errno::EMSGSIZE as i32) {
                    self.sent = event.id;
                    continue;
                }
                self.socket = None;
                return Err(Failed::Later(format!("{}: {error}", self.path.display())));
            }
            self.sent = event.id;
        }
        Ok(())
    }
}

impl Journald {
    pub(super) fn to(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            socket: None,
            sent: 0,
        }
    }

    async fn send_one(&mut self, event: &Event) -> io::Result<()> {
        let socket = if let Some(socket) = &self.socket {
            socket
        } else {
            let socket = UnixDatagram::unbound()?;
            socket.connect(&self.path)?;
            self.socket.insert(socket)
        };
        let entry = entry(event);
        match timeout(PATIENCE, socket.send(&entry)).await {
            Ok(sent) => sent.map(drop),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// One entry, field by field.
fn entry(event: &Event) -> Vec<u8> {
    let mut entry = Vec::new();
    let mut field = |name: &str, value: &str| {
        entry.extend(name.as_bytes());
        if value.contains('\n') {
            entry.push(b'\n');
            entry.extend(u64::try_from(value.len()).unwrap_or(0).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend(value.as_bytes());
        entry.push(b'\n');
    };
    field("MESSAGE", &message(event));
    field("PRIORITY", &priority(&event.kind).to_string());
    field("SYSLOG_IDENTIFIER", "paddock");
    field("PADDOCK_EVENT", event.kind.name());
    field("PADDOCK_EVENT_ID", &event.id.to_string());
    field("PADDOCK_TIME_NS", &event.time_ns.to_string());
    let verdict = verdict_word(&event.kind);
    for (name, value) in [
        ("PADDOCK_CONTAINER", event.container.as_deref()),
        ("PADDOCK_CONTAINER_ID", event.container_id.as_deref()),
        ("PADDOCK_VERDICT", verdict),
    ] {
        if let Some(value) = value {
            field(name, value);
        }
    }
    field(
        "PADDOCK_JSON",
        &serde_json::to_string(event).unwrap_or_default(),
    );
    entry
}
