//! One client of a monitor: what waits to be sent to it, and the replay of what was logged.
//!
//! Sends never block. A replay reads the log at the client's own pace and holds nobody back;
//! when it has caught up with the log, live output goes on from there without a gap.
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead as _, BufReader},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};

use super::log::{LONGEST_LINE, Log};
use crate::{
    protocol::{MAX_PACKET, Reply, STALL_SECONDS, encode},
    record::LogLine,
};

/// Bytes queued for an attached client above which output is held back.
const QUEUE_LIMIT: usize = 1 << 20;

/// How much of a replay is read ahead of what the socket takes.
const REPLAY_AHEAD: usize = 256 * 1024;

/// Where a replay's packet ends; the longest line still fits after it, each of its bytes
/// having become three (U+FFFD).
const REPLAY_PACKET: usize = 12 * 1024;

const _: () = assert!(REPLAY_PACKET + 3 * LONGEST_LINE <= MAX_PACKET);

#[derive(Debug)]
pub(super) struct Client {
    fd: OwnedFd,
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    /// When the queue was empty or a packet went out, last.
    progress: Instant,
    attached: bool,
    replay: Option<Replay>,
    /// Sent more stdin than there is room for: not read from until there is.
    pub stuffed: bool,
    /// To be forgotten.
    pub gone: bool,
    /// The last packet of all, after the replay if there is one.
    last: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Replay {
    generation: u64,
    reader: BufReader<File>,
    /// Read, and of another stream than the packet it did not go into.
    held: Option<LogLine>,
}

/// What a read found.
#[derive(Debug)]
pub(super) enum Received {
    Packet(Vec<u8>),
    Nothing,
    Gone,
}

impl Client {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            queue: VecDeque::new(),
            queued: 0,
            progress: Instant::now(),
            attached: false,
            replay: None,
            stuffed: false,
            gone: false,
            last: None,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn receive(&self) -> Received {
        let mut buffer = vec![0; MAX_PACKET];
        match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Received::Gone,
            Ok(length) => {
                buffer.truncate(length);
                Received::Packet(buffer)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Received::Nothing,
            Err(_) => Received::Gone,
        }
    }

    /// Output from now on; with `backlog`, from the oldest that is kept.
    pub(super) fn attach(&mut self, backlog: bool, log: &mut Log) {
        if self.attached {
            return;
        }
        self.attached = true;
        if backlog {
            log.flush();
            let oldest = log.generation().saturating_sub(1);
            self.replay = Replay::open(log, oldest);
        }
    }

    pub(super) fn output(&mut self, packet: &[u8]) {
        // A replay finds it in the log.
        if self.attached && self.replay.is_none() {
            self.push(packet.to_vec());
        }
    }

    pub(super) fn push(&mut self, packet: Vec<u8>) {
        if self.queue.is_empty() {
            self.progress = Instant::now();
        }
        self.queued += packet.len();
        self.queue.push_back(packet);
    }

    /// Queues the packet after which nothing comes.
    pub(super) fn finish(&mut self, packet: Vec<u8>) {
        self.last = Some(packet);
    }

    /// Output must wait for this one.
    pub(super) fn is_full(&self) -> bool {
        self.queued >= QUEUE_LIMIT
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.replay.is_none() && self.last.is_none()
    }

    pub(super) fn stalls_at(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then(|| self.progress + Duration::from_secs(STALL_SECONDS))
    }

    /// Sends what the socket takes. `false`: the client is gone.
    pub(super) fn flush(&mut self, log: &mut Log) -> bool {
        loop {
            if self.read_ahead(log).is_err() {
                return false;
            }
            let Some(packet) = self.queue.front() else {
                return true;
            };
            match send(
                self.fd.as_raw_fd(),
                packet,
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            ) {
                Ok(_) => {
                    self.progress = Instant::now();
                    self.queued -= packet.len();
                    self.queue.pop_front();
                }
                Err(Errno::EAGAIN) => return true,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    fn read_ahead(&mut self, log: &mut Log) -> Result<(), RotatedAway> {
        while self.queued < REPLAY_AHEAD {
            let Some(replay) = &mut self.replay else {
                break;
            };
            match replay.next(log)? {
                Some(packet) => self.push(packet),
                None => self.replay = None,
            }
        }
        if self.replay.is_none()
            && let Some(last) = self.last.take()
        {
            self.push(last);
        }
        Ok(())
    }
}

impl Replay {
    fn open(log: &Log, generation: u64) -> Option<Self> {
        Some(Self {
            generation,
            reader: BufReader::new(log.open(generation)?),
            held: None,
        })
    }

    /// The next logged lines of one stream as a packet; `None` when it has caught up.
    fn next(&mut self, log: &mut Log) -> Result<Option<Vec<u8>>, RotatedAway> {
        let Some(first) = self.line(log)? else {
            return Ok(None);
        };
        let kind = if first.stream == "stderr" {
            Reply::Stderr
        } else {
            Reply::Stdout
        };
        let mut packet = encode(kind, first.text.as_bytes());
        while packet.len() < REPLAY_PACKET {
            match self.line(log)? {
                Some(line) if line.stream == first.stream => packet.extend(line.text.bytes()),
                other => {
                    self.held = other;
                    break;
                }
            }
        }
        Ok(Some(packet))
    }

    fn line(&mut self, log: &mut Log) -> Result<Option<LogLine>, RotatedAway> {
        if let Some(line) = self.held.take() {
            return Ok(Some(line));
        }
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).map_err(|_| RotatedAway)? > 0 {
                // A line that is none is not paddock's.
                let Ok(line) = serde_json::from_str(&line) else {
                    continue;
                };
                return Ok(Some(line));
            }
            if self.generation < log.generation() {
                *self = Self::open(log, self.generation + 1).ok_or(RotatedAway)?;
            } else if !log.flush() {
                return Ok(None);
            }
        }
    }
}

/// The log was rotated twice under a slow replay, or can't be read: the client is dropped
/// rather than shown output with a hole.
#[derive(Debug)]
struct RotatedAway;

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;
    use crate::{
        client::Connection,
        monitor::log::Stream,
        protocol::{Packet, Request},
    };

    fn pair() -> (Client, Connection) {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        (Client::new(ours), Connection::from_fd(theirs))
    }

    #[test]
    fn a_client_that_does_not_read_fills_up_and_stalls() {
        let directory = std::env::temp_dir().join(format!("paddock-full-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut log = Log::create(&directory, 1 << 20).unwrap();
        let (mut client, connection) = pair();
        client.attach(false, &mut log);
        let packet = encode(Reply::Stdout, &vec![0; 32 * 1024]);
        let mut sent = 0;
        while !client.is_full() {
            client.output(&packet);
            assert!(client.flush(&mut log));
            sent += 1;
        }
        assert!(client.stalls_at().is_some());
        let mut got = 0;
        while let Packet::Stdout(_) = connection.recv().unwrap().unwrap() {
            got += 1;
            assert!(client.flush(&mut log));
            if got == sent {
                break;
            }
        }
        assert!(client.is_idle() && client.stalls_at().is_none());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_replay_joins_live_output_without_a_gap() {
        let directory = std::env::temp_dir().join(format!("paddock-replay-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut log = Log::create(&directory, 1 << 20).unwrap();
        let (mut client, connection) = pair();
        connection.set_nonblocking(true).unwrap();
        connection.send(Request::Attach, b"backlog").unwrap();
        assert!(matches!(client.receive(), Received::Packet(packet) if packet == b"\x02backlog"));
        log.append(Stream::Stdout, b"one\nhalf");
        client.attach(true, &mut log);
        log.append(Stream::Stderr, b"more\n");
        client.output(&encode(Reply::Stderr, b"more\n"));
        client.finish(encode(Reply::Stdout, b"last"));
        assert!(client.flush(&mut log));
        let mut got = Vec::new();
        while let Ok(Some(packet)) = connection.recv() {
            got.push(packet);
        }
        let stdout = |text: &str| Packet::Stdout(text.into());
        assert_eq!(
            got,
            [
                stdout("one\nhalf"),
                Packet::Stderr("more\n".into()),
                stdout("last")
            ]
        );
        fs::remove_dir_all(&directory).unwrap();
    }
}
