//! The poll loop of an attached run.

use std::{
    io::{Read as _, Stderr, Stdin, Stdout, Write as _, stderr, stdin, stdout},
    os::fd::AsFd as _,
    task::Poll,
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use paddock_runtime::protocol::{Packet, Request, resize_payload, signal_payload};

use super::{
    Attach, End, Mode,
    buffer::Buffer,
    connection::Link,
    dispositions::{self, is_dropped},
    keys::Typed,
    steps,
    terminal::{self, Raw},
};

/// While nobody reads our output, one packet is taken this often all the same: the monitor
/// gives up on clients that take none for 30 s.
const DRIP_MS: u16 = 10_000;

const FORWARDED: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Signals,
    Output,
    Errors,
    Monitor,
    Input,
}

#[derive(Debug)]
pub(crate) struct Pump<'a> {
    attach: Attach<'a>,
    link: Link,
    signals: SignalFd,
    /// `None` after its end of file, or where it is not wanted.
    input: Option<Stdin>,
    typed: Typed<'a>,
    output: Buffer<Stdout>,
    errors: Buffer<Stderr>,
    pid: Option<i32>,
    /// A SIGINT that the kernel dropped was reported: the next one kills.
    warned: bool,
    /// The workload was killed because nobody reads stdout.
    reader_left: bool,
    end: Option<End>,
    /// Dropped last of all that writes.
    raw: Option<Raw>,
}

impl<'a> Pump<'a> {
    pub(crate) fn new(attach: Attach<'a>) -> anyhow::Result<Self> {
        let mut link = Link::open(attach.monitor).with_context(|| {
            format!(
                "{}: cannot reach its monitor on {}",
                attach.name,
                attach.monitor.display()
            )
        })?;
        let mask: SigSet = dispositions::minded_here(&FORWARDED).into_iter().collect();
        mask.thread_block().context("cannot take signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot take signals")?;
        let raw = attach.terminal && attach.stdin && terminal::is_input_terminal();
        let raw = raw
            .then(Raw::enter)
            .transpose()
            .context("cannot set the terminal to raw mode")?;
        link.queue(Request::Attach, b"");
        let mut pump = Self {
            attach,
            link,
            signals,
            input: attach.stdin.then(stdin),
            typed: Typed::new(attach.keys),
            output: Buffer::new(stdout()),
            errors: Buffer::new(stderr()),
            pid: None,
            warned: false,
            reader_left: false,
            end: None,
            raw,
        };
        if attach.mode == Mode::Join {
            pump.redraw();
        }
        pump.resize();
        if attach.mode == Mode::Start {
            pump.link.queue(Request::Start, b"");
        }
        Ok(pump)
    }

    /// Until the end; output has been written when this returns.
    pub(crate) fn run(mut self) -> anyhow::Result<End> {
        loop {
            self.link.flush();
            let drained = self.output.is_empty() && self.errors.is_empty();
            if let Some(end) = self.end.take_if(|_| drained) {
                return Ok(if self.reader_left {
                    End::ReaderLeft
                } else {
                    end
                });
            }
            self.turn()?;
        }
    }

    /// Waits for something and does it.
    fn turn(&mut self) -> anyhow::Result<()> {
        let room = self.has_room();
        let seen = self.wait(room)?;
        let packet = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
        let events = |source| {
            let found = seen.iter().find(|(candidate, _)| *candidate == source);
            found.map_or(PollFlags::empty(), |(_, events)| *events)
        };
        if !events(Source::Signals).is_empty() {
            self.take_signals()?;
        }
        self.write(events(Source::Output), events(Source::Errors))?;
        if !events(Source::Input).is_empty() {
            self.read_input();
        }
        if seen.is_empty() || (room && events(Source::Monitor).intersects(packet)) {
            self.read_monitor()?;
        }
        Ok(())
    }

    /// Polls; empty when the time for one more packet has come. Descriptors whose state is of no
    /// interest now are left out: poll tells of a hang-up whether asked or not, forever.
    fn wait(&self, room: bool) -> anyhow::Result<Vec<(Source, PollFlags)>> {
        let mut sources = vec![Source::Signals];
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let mut add = |source, fd| {
            sources.push(source);
            fds.push(fd);
        };
        if !self.output.is_closed() {
            add(
                Source::Output,
                PollFd::new(self.output.sink().as_fd(), self.output.interest()),
            );
        }
        if !self.errors.is_closed() {
            add(
                Source::Errors,
                PollFd::new(self.errors.sink().as_fd(), self.errors.interest()),
            );
        }
        let monitor = self.link.interest(room);
        if self.end.is_none() && !monitor.is_empty() {
            add(Source::Monitor, PollFd::new(self.link.as_fd(), monitor));
        }
        let started = self.pid.is_some() && self.end.is_none();
        if let Some(input) = self
            .input
            .as_ref()
            .filter(|_| started && !self.link.is_full())
        {
            add(Source::Input, PollFd::new(input.as_fd(), PollFlags::POLLIN));
        }
        let patience = if room || self.end.is_some() {
            PollTimeout::NONE
        } else {
            DRIP_MS.into()
        };
        loop {
            match poll(&mut fds, patience) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for the workload"),
            }
        }
        let events = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        Ok(sources
            .into_iter()
            .zip(events)
            .filter(|(_, events)| !events.is_empty())
            .collect())
    }

    fn write(&mut self, output: PollFlags, errors: PollFlags) -> anyhow::Result<()> {
        let was_open = !self.output.is_closed();
        self.output.ready(output).context("stdout: cannot write")?;
        self.errors.ready(errors).context("stderr: cannot write")?;
        if was_open && self.output.is_closed() {
            if self.attach.mode == Mode::Join {
                self.end = Some(End::Detached);
            } else if self.end.is_none() {
                // What SIGPIPE does to the writer of a pipe.
                self.reader_left = true;
                self.link.urge(Request::Kill, b"");
            }
        }
        Ok(())
    }

    /// Takes packets while there is room for them, at least one.
    fn read_monitor(&mut self) -> anyhow::Result<()> {
        loop {
            match self
                .link
                .receive()
                .with_context(|| format!("{}: its monitor", self.attach.name))?
            {
                Poll::Ready(Some(Packet::Stdout(data))) => self.output.push(&data),
                Poll::Ready(Some(Packet::Stderr(data))) => self.errors.push(&data),
                Poll::Ready(Some(Packet::Started(started))) => {
                    self.pid = Some(started.pid);
                    if self.attach.mode == Mode::Start {
                        let end = if self.raw.is_some() { "\r\n" } else { "\n" };
                        let table = steps::table(&started.steps).replace('\n', end);
                        self.errors.push(table.as_bytes());
                    }
                }
                // Nobody asked for the log.
                Poll::Ready(Some(Packet::Logged(_))) => {}
                Poll::Ready(Some(Packet::Failed(failed))) => self.end = Some(End::Failed(failed)),
                Poll::Ready(Some(Packet::Exited(exit))) => self.end = Some(End::Exited(exit)),
                Poll::Ready(None) => self.end = Some(End::MonitorGone),
                Poll::Pending => return Ok(()),
            }
            if self.end.is_some() || !self.has_room() {
                return Ok(());
            }
        }
    }

    fn has_room(&self) -> bool {
        !self.output.is_full() && !self.errors.is_full()
    }

    fn read_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        let mut data = [0; 16 * 1024];
        match input.read(&mut data) {
            Ok(count @ 1..) => {
                let data = data.get(..count).unwrap_or_default();
                if !self.attach.terminal {
                    self.link.queue(Request::Stdin, data);
                    return;
                }
                let (passed, detach) = self.typed.take(data);
                if !passed.is_empty() {
                    self.link.queue(Request::Stdin, &passed);
                }
                if detach {
                    self.end = Some(End::Detached);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // Its end, or a terminal that hung up: the same to the workload.
            Ok(0) | Err(_) => {
                self.input = None;
                self.link.queue(Request::StdinEof, b"");
            }
        }
    }

    fn take_signals(&mut self) -> anyhow::Result<()> {
        while let Some(info) = self.signals.read_signal().context("cannot take signals")? {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            let Ok(signal) = Signal::try_from(number) else {
                continue;
            };
            if signal == Signal::SIGWINCH {
                self.resize();
            } else if self.attach.sig_proxy {
                self.forward(signal);
            } else if !matches!(signal, Signal::SIGUSR1 | Signal::SIGUSR2) {
                self.end = Some(End::Detached);
            }
        }
        Ok(())
    }

    /// Passes a signal on. One the kernel would drop and that means an end gets one: at once when
    /// nobody may be there to repeat it, at the second time when it came from a keyboard.
    fn forward(&mut self, signal: Signal) {
        let ends = !matches!(signal, Signal::SIGUSR1 | Signal::SIGUSR2);
        if self.end.is_some() && ends {
            // Only output is left, and its reader stalls.
            self.output.close();
            self.errors.close();
            return;
        }
        let Some(pid) = self.pid else {
            // Not running yet: nothing to ask to end.
            if ends {
                self.link.urge(Request::Kill, b"");
            }
            return;
        };
        let dropped = is_dropped(pid, signal);
        match signal {
            Signal::SIGTERM | Signal::SIGHUP if dropped => self.link.urge(Request::Kill, b""),
            Signal::SIGINT | Signal::SIGQUIT if dropped && self.warned => {
                self.link.urge(Request::Kill, b"");
            }
            Signal::SIGINT | Signal::SIGQUIT if dropped => {
                self.warned = true;
                // The stream's own order does not matter for a hint; a closed stderr has no reader.
                let _ = writeln!(
                    stderr(),
                    "paddock: {}: PID 1 without a handler gets no {signal}; once more to kill it",
                    self.attach.name
                );
            }
            _ => self
                .link
                .urge(Request::Signal, &signal_payload(signal as i32)),
        }
    }

    /// A program that fills the screen draws it anew when the size changes.
    fn redraw(&mut self) {
        if let Some((rows, columns)) = terminal::size().filter(|_| self.attach.terminal) {
            self.link
                .queue(Request::Resize, &resize_payload(rows + 1, columns));
        }
    }

    fn resize(&mut self) {
        if let Some((rows, columns)) = terminal::size().filter(|_| self.attach.terminal) {
            let payload = resize_payload(rows, columns);
            if self.pid.is_some() {
                self.link.urge(Request::Resize, &payload);
            } else {
                // Before the start, in this order.
                self.link.queue(Request::Resize, &payload);
            }
        }
    }
}
