//! Frames on a monitor's `monitor.sock` (SOCK_SEQPACKET, one frame a packet, JSON control and raw data).
//!
//! A packet is one kind byte and a payload, together at most [`MAX_PACKET`] bytes. Clients may
//! be many; each gets a copy of output.
//!
//! Output is never dropped silently. A client whose queue in the monitor is full holds the
//! workload's output back until it reads again (so `| less` works), for at most
//! [`STALL_SECONDS`] without taking a single packet; then the monitor closes its connection
//! without `Exited`, and the log still has what it missed. A follower of the log is held so far
//! behind as the log's own files are long before it holds anything back. A client that sends more stdin than
//! the workload reads is not listened to for as long: send signals on a connection of their own.
#![forbid(unsafe_code)]

use serde::de::DeserializeOwned;

use crate::record::{Exit, Failed, Started};

/// Longest packet in either direction, kind byte included.
pub const MAX_PACKET: usize = 64 * 1024;

/// How long an attached client may hold output back before it is disconnected.
pub const STALL_SECONDS: u64 = 30;

/// Client to monitor.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start the workload; answered to everybody by `Started` or `Failed`.
    Start = 1,
    /// This client wants output from now on, as it comes.
    Attach = 2,
    /// Bytes for stdin.
    Stdin = 3,
    /// Stdin's end of file.
    StdinEof = 4,
    /// `u16` rows, `u16` columns, little endian.
    Resize = 5,
    /// `i32` signal for the workload's first process, by pidfd.
    Signal = 6,
    /// Kill everything in the container's cgroup; of an exec, its process.
    Kill = 7,
    /// This client wants the log: all that is kept, earlier runs' lines too, then what comes.
    Follow = 8,
}

/// Monitor to client.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// JSON [`crate::record::Started`]. Also sent at once to a client that connects later.
    Started = 1,
    /// JSON [`crate::record::Failed`].
    Failed = 2,
    Stdout = 3,
    Stderr = 4,
    /// JSON [`crate::record::Exit`]; the last packet, sent after the cgroup is gone.
    Exited = 5,
    /// A part of the log's bytes, JSON lines of [`crate::record::LogLine`]; an empty one, once,
    /// says that this was all so far.
    Logged = 6,
}

/// A reply, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Started(Started),
    Failed(Failed),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exited(Exit),
    Logged(Vec<u8>),
}

/// A packet's bytes, either direction.
pub fn encode(kind: impl Into<u8>, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(payload.len() + 1);
    packet.push(kind.into());
    packet.extend_from_slice(payload);
    packet
}

/// A reply from a packet's bytes.
pub fn decode(packet: &[u8]) -> Result<Packet, Malformed> {
    let (&kind, payload) = packet.split_first().ok_or(Malformed::Empty)?;
    match kind {
        k if k == Reply::Started as u8 => json(payload).map(Packet::Started),
        k if k == Reply::Failed as u8 => json(payload).map(Packet::Failed),
        k if k == Reply::Stdout as u8 => Ok(Packet::Stdout(payload.to_vec())),
        k if k == Reply::Stderr as u8 => Ok(Packet::Stderr(payload.to_vec())),
        k if k == Reply::Exited as u8 => json(payload).map(Packet::Exited),
        k if k == Reply::Logged as u8 => Ok(Packet::Logged(payload.to_vec())),
        kind => Err(Malformed::Kind { kind }),
    }
}

/// A request and its payload from a packet's bytes: the monitor's side.
pub fn decode_request(packet: &[u8]) -> Result<(Request, &[u8]), Malformed> {
    const ALL: [Request; 8] = [
        Request::Start,
        Request::Attach,
        Request::Stdin,
        Request::StdinEof,
        Request::Resize,
        Request::Signal,
        Request::Kill,
        Request::Follow,
    ];
    let (&kind, payload) = packet.split_first().ok_or(Malformed::Empty)?;
    let request = ALL
        .into_iter()
        .find(|request| *request as u8 == kind)
        .ok_or(Malformed::Kind { kind })?;
    Ok((request, payload))
}

/// Payload of [`Request::Resize`].
pub fn resize_payload(rows: u16, columns: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (rows.to_le_bytes(), columns.to_le_bytes());
    [a, b, c, d]
}

/// Rows and columns of a [`Request::Resize`].
pub fn parse_resize(payload: &[u8]) -> Option<(u16, u16)> {
    let &[a, b, c, d] = payload else { return None };
    Some((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
}

/// Payload of [`Request::Signal`].
pub fn signal_payload(signal: i32) -> [u8; 4] {
    signal.to_le_bytes()
}

/// Number in a [`Request::Signal`].
pub fn parse_signal(payload: &[u8]) -> Option<i32> {
    payload.try_into().ok().map(i32::from_le_bytes)
}

impl From<Request> for u8 {
    fn from(request: Request) -> Self {
        request as Self
    }
}

impl From<Reply> for u8 {
    fn from(reply: Reply) -> Self {
        reply as Self
    }
}

fn json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(payload).map_err(|source| Malformed::Json { source })
}

#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("packet without a kind")]
    Empty,
    #[error("packet of unknown kind {kind}")]
    Kind { kind: u8 },
    #[error("packet's payload")]
    Json {
        #[source]
        source: serde_json::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_survive_the_wire() {
        let failed = Failed {
            step: "exec".into(),
            errno: 2,
            path: Some("nope".into()),
            exit_code: 127,
        };
        let packet = encode(Reply::Failed, &serde_json::to_vec(&failed).unwrap());
        assert_eq!(decode(&packet).unwrap(), Packet::Failed(failed));
        assert_eq!(
            decode(&encode(Reply::Stderr, b"\0\xff")).unwrap(),
            Packet::Stderr(b"\0\xff".to_vec())
        );
    }

    #[test]
    fn requests_survive_the_wire() {
        let packet = encode(Request::Resize, &resize_payload(24, 300));
        let (request, payload) = decode_request(&packet).unwrap();
        assert_eq!(
            (request, parse_resize(payload)),
            (Request::Resize, Some((24, 300)))
        );
        assert_eq!(parse_signal(&signal_payload(15)), Some(15));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(decode(&[]), Err(Malformed::Empty)));
        assert!(matches!(decode(&[9]), Err(Malformed::Kind { kind: 9 })));
        assert!(matches!(decode(&[1, b'{']), Err(Malformed::Json { .. })));
        assert!(matches!(
            decode_request(&[0]),
            Err(Malformed::Kind { kind: 0 })
        ));
        assert_eq!(parse_resize(&[1, 2, 3]), None);
        assert_eq!(parse_signal(&[1]), None);
    }
}
