//! Output on its way to stdout or stderr, written only when that does not block.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Write},
};

use nix::poll::PollFlags;

/// Past this much unwritten output the monitor is not read any further.
const FULL: usize = 1 << 20;
/// A pipe that polls writable takes at least PIPE_BUF bytes at once (pipe(7)).
const STEP: usize = 4096;

#[derive(Debug)]
pub(crate) struct Buffer<W> {
    sink: W,
    waiting: VecDeque<u8>,
    closed: bool,
}

impl<W: Write> Buffer<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self {
            sink,
            waiting: VecDeque::new(),
            closed: false,
        }
    }

    pub(crate) fn sink(&self) -> &W {
        &self.sink
    }

    /// Adds output; none is kept for a reader that left.
    pub(crate) fn push(&mut self, data: &[u8]) {
        if !self.closed {
            self.waiting.extend(data);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= FULL
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Nobody reads: drops what waits.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
    }

    /// Events to poll for; with none, poll still tells of a reader that left.
    pub(crate) fn interest(&self) -> PollFlags {
        if self.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::POLLOUT
        }
    }

    /// Acts on what poll said.
    pub(crate) fn ready(&mut self, events: PollFlags) -> std::io::Result<()> {
        if events.contains(PollFlags::POLLOUT) && !self.is_empty() {
            let (front, _) = self.waiting.as_slices();
            let step = front.len().min(STEP);
            let written = front
                .get(..step)
                .map_or(Ok(0), |front| self.sink.write(front));
            match written.and_then(|count| self.sink.flush().map(|()| count)) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.close(),
                Err(error) => return Err(error),
            }
        } else if events.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL) {
            self.close();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn writes_in_order_and_in_steps() {
        let mut buffer = Buffer::new(Vec::new());
        let data: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        buffer.push(&data);
        let mut steps = 0;
        while !buffer.is_empty() {
            buffer.ready(PollFlags::POLLOUT).unwrap();
            steps += 1;
        }
        assert_eq!(buffer.sink(), &data);
        assert!(steps >= 3);
    }

    #[test]
    fn a_reader_that_left_is_noticed_with_and_without_output() {
        let mut writing = Buffer::new(Gone);
        writing.push(b"x");
        writing.ready(PollFlags::POLLOUT).unwrap();
        let mut idle = Buffer::new(Gone);
        idle.ready(PollFlags::POLLERR).unwrap();
        assert!(writing.is_closed() && writing.is_empty() && idle.is_closed());
        idle.push(b"kept for nobody");
        assert!(idle.is_empty());
    }
}
