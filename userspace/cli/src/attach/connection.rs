//! The two connections of an attached client: one for data, one for signals, neither blocking.
//!
//! The monitor stops listening to a connection with more stdin than the workload reads, so
//! Ctrl-C needs a way past it.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    task::Poll,
};

use nix::poll::PollFlags;
use paddock_runtime::{
    client::{Connection, Error},
    protocol::{Packet, Request},
};

/// Past this many unsent packets stdin is not read any further.
const FULL: usize = 64;

#[derive(Debug)]
pub(crate) struct Link {
    data: Connection,
    control: Connection,
    unsent: VecDeque<(Request, Vec<u8>)>,
}

impl Link {
    pub(crate) fn open(monitor: &Path) -> Result<Self, Error> {
        let (data, control) = (Connection::connect(monitor)?, Connection::connect(monitor)?);
        data.set_nonblocking(true)?;
        control.set_nonblocking(true)?;
        Ok(Self {
            data,
            control,
            unsent: VecDeque::new(),
        })
    }

    /// Queues a packet behind stdin; [`Self::flush`] sends it when there is room.
    pub(crate) fn queue(&mut self, request: Request, payload: &[u8]) {
        self.unsent.push_back((request, payload.to_owned()));
    }

    /// Sends a packet past all stdin. A monitor that is gone is told by the next receive.
    pub(crate) fn urge(&self, request: Request, payload: &[u8]) {
        let _ = self.control.send(request, payload);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.unsent.len() >= FULL
    }

    /// Events to poll for; `reading` where there is room for what comes.
    pub(crate) fn interest(&self, reading: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, reading);
        flags.set(PollFlags::POLLOUT, !self.unsent.is_empty());
        flags
    }

    /// Sends what there is room for.
    pub(crate) fn flush(&mut self) {
        while let Some((request, payload)) = self.unsent.front() {
            match self.data.send(*request, payload) {
                Ok(()) => drop(self.unsent.pop_front()),
                Err(error) if error.is_would_block() => return,
                // The next receive tells.
                Err(_) => self.unsent.clear(),
            }
        }
    }

    /// A packet, or `None` at the end of file.
    pub(crate) fn receive(&self) -> Result<Poll<Option<Packet>>, Error> {
        match self.data.recv() {
            Ok(packet) => Ok(Poll::Ready(packet)),
            Err(error) if error.is_would_block() => Ok(Poll::Pending),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.data.as_fd()
    }
}
