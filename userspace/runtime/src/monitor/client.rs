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

use super::log::Log;
use crate::{
    protocol::{MAX_PACKET, Reply, STALL_SECONDS, encode},
    record::LogLine,
};

/// Bytes queued for an attached client above which output is held back.
const QUEUE_LIMIT: usize = 1 << 20;

/// How much of a replay is read ahead of what the socket takes.
const REPLAY_AHEAD: usize = 256 * 1024;

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
        })
    }

    /// The next logged line as a packet; `None` when it has caught up.
    fn next(&mut self, log: &mut Log) -> Result<Option<Vec<u8>>, RotatedAway> {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).map_err(|_| RotatedAway)? > 0 {
                let Ok(line) = serde_json::from_str::<LogLine>(&line) else {
                    continue;
                };
                let kind = if line.stream == "stderr" {
                    Reply::Stderr
                } else {
                    Reply::Stdout
                };
                return Ok(Some(encode(kind, line.text.as_bytes())));
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
