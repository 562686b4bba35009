//! One client of a monitor: what waits to be sent to it, live output or the log.
//!
//! Sends never block.
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};

use super::{follower::Follower, log::Log};
use crate::protocol::{MAX_PACKET, STALL_SECONDS};

/// Bytes queued for an attached client above which output is held back.
const QUEUE_LIMIT: usize = 1 << 20;

/// How much of the log is read ahead of what the socket takes.
const READ_AHEAD: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Client {
    fd: OwnedFd,
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    /// When the queue was empty or a packet went out, last.
    progress: Instant,
    attached: bool,
    follower: Option<Follower>,
    /// Sent more stdin than there is room for: not read from until there is.
    pub stuffed: bool,
    /// To be forgotten.
    pub gone: bool,
    /// The last packet of all, after the rest of the log where that is followed.
    last: Option<Vec<u8>>,
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
            follower: None,
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

    /// Output from now on.
    pub(super) fn attach(&mut self) {
        self.attached = true;
    }

    /// The log from its oldest line on.
    pub(super) fn follow(&mut self, log: &Log) {
        self.follower.get_or_insert_with(|| Follower::new(log));
    }

    /// The first file of the log that it may still have to open.
    pub(super) fn needs(&self) -> Option<u64> {
        self.follower.as_ref().map(Follower::needs)
    }

    pub(super) fn output(&mut self, packet: &[u8]) {
        if self.attached {
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
        let behind = self.follower.as_ref().is_some_and(Follower::is_behind);
        self.queued >= QUEUE_LIMIT || behind
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.last.is_none()
    }

    pub(super) fn stalls_at(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then(|| self.progress + Duration::from_secs(STALL_SECONDS))
    }

    /// Sends what the socket takes. `false`: the client is gone.
    pub(super) fn flush(&mut self, log: &Log) -> bool {
        loop {
            self.read_ahead(log);
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

    fn read_ahead(&mut self, log: &Log) {
        while self.queued < READ_AHEAD
            && let Some(follower) = &mut self.follower
        {
            match follower.next(log) {
                Some(packet) => self.push(packet),
                None => break,
            }
        }
        if self.queued < READ_AHEAD
            && let Some(last) = self.last.take()
        {
            self.follower = None;
            self.push(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;
    use crate::{
        client::Connection,
        monitor::log::Stream,
        protocol::{Packet, Reply, encode},
        spec::LogLimits,
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
        let log = Log::open(&directory, LogLimits::default()).unwrap();
        let (mut client, connection) = pair();
        client.attach();
        let packet = encode(Reply::Stdout, &vec![0; 32 * 1024]);
        let mut sent = 0;
        while !client.is_full() {
            client.output(&packet);
            assert!(client.flush(&log));
            sent += 1;
        }
        assert!(client.stalls_at().is_some());
        let mut got = 0;
        while let Packet::Stdout(_) = connection.recv().unwrap().unwrap() {
            got += 1;
            assert!(client.flush(&log));
            if got == sent {
                break;
            }
        }
        assert!(client.is_idle() && client.stalls_at().is_none());
        fs::remove_dir_all(&directory).unwrap();
    }

    /// A reader that is slower than several rotations gets every line once, then the last packet.
    #[test]
    fn a_follower_loses_nothing_across_rotations() {
        let directory = std::env::temp_dir().join(format!("paddock-follow-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let limits = LogLimits {
            max_size: 2_000,
            max_files: 2,
        };
        let mut log = Log::open(&directory, limits).unwrap();
        log.append(Stream::Stdout, b"0\n");
        let (mut client, connection) = pair();
        connection.set_nonblocking(true).unwrap();
        client.follow(&log);
        let mut bytes = Vec::new();
        let mut marks = 0;
        let mut last = false;
        for round in 0..40_u32 {
            for number in 0..50 {
                log.append(
                    Stream::Stderr,
                    format!("{}\n", 1 + round * 50 + number).as_bytes(),
                );
            }
            if round == 39 {
                client.finish(encode(Reply::Stdout, b"last"));
            }
            assert!(client.flush(&log));
            log.release(client.needs().unwrap_or(u64::MAX));
            // Seldom: the socket is full long before.
            while (round % 13 == 0 || round == 39)
                && let Ok(Some(packet)) = connection.recv()
            {
                assert!(client.flush(&log));
                match packet {
                    Packet::Logged(part) if part.is_empty() => marks += 1,
                    Packet::Logged(part) => bytes.extend(part),
                    Packet::Stdout(_) => last = true,
                    other => panic!("{other:?}"),
                }
            }
        }
        let text = String::from_utf8(bytes).unwrap();
        let numbers: Vec<u32> = text
            .lines()
            .map(|line| serde_json::from_str::<crate::record::LogLine>(line).unwrap())
            .map(|line| line.text.trim().parse().unwrap())
            .collect();
        assert_eq!(numbers, (0..=2000).collect::<Vec<_>>());
        assert!(last && marks == 1 && client.is_idle());
        fs::remove_dir_all(&directory).unwrap();
    }
}
