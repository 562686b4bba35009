//! The monitor's ends of a workload's stdio: three pipes or one terminal, all non-blocking.
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::{pipe2, read, write},
};

use super::log::Stream;
use crate::{plan::Failure, sys::task::set_window_size};

/// Stdin that clients sent and the workload has not read. Above this, a client that sends more
/// is not listened to.
pub(super) const STDIN_LIMIT: usize = 1 << 20;

/// One read of output; with its kind byte well below a packet's limit.
const CHUNK: usize = 32 * 1024;

/// A terminal's end-of-file character (VEOF), typed where a pipe would be closed.
const CONTROL_D: u8 = 4;

#[derive(Debug)]
pub(crate) struct Io {
    /// A terminal's master is both input and first output.
    kind: Kind,
    pending: VecDeque<u8>,
    /// Stdin ends when `pending` is written.
    eof: bool,
}

#[derive(Debug)]
enum Kind {
    Terminal {
        master: Option<OwnedFd>,
    },
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    },
}

/// What reading an output found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    Data(Vec<u8>),
    /// Nothing now.
    Empty,
    /// Nothing any more; it is closed here too.
    End,
}

/// Pipes for the monitor and the child; with `null`, that is the child's stdin.
pub(crate) fn pipes(null: Option<OwnedFd>) -> Result<(Io, [OwnedFd; 3]), Failure> {
    let fail = |errno| Failure::without_path("pipes", errno);
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(fail);
    let (stdin, child_stdin) = if let Some(null) = null {
        (None, null)
    } else {
        let (child, ours) = pipe()?;
        set_nonblocking(&ours).map_err(fail)?;
        (Some(ours), child)
    };
    let ((stdout, child_stdout), (stderr, child_stderr)) = (pipe()?, pipe()?);
    for ours in [&stdout, &stderr] {
        set_nonblocking(ours).map_err(fail)?;
    }
    let kind = Kind::Pipes {
        stdin,
        stdout: Some(stdout),
        stderr: Some(stderr),
    };
    Ok((Io::new(kind), [child_stdin, child_stdout, child_stderr]))
}

fn set_nonblocking(fd: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

impl Io {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            pending: VecDeque::new(),
            eof: false,
        }
    }

    pub(crate) fn terminal(master: OwnedFd) -> Result<Self, Failure> {
        set_nonblocking(&master).map_err(|errno| Failure::without_path("terminal", errno))?;
        Ok(Self::new(Kind::Terminal {
            master: Some(master),
        }))
    }

    /// Only a terminal has a size, and one that is gone needs none.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        if let Kind::Terminal {
            master: Some(master),
        } = &self.kind
        {
            let _ = set_window_size(master.as_fd(), rows, columns);
        }
    }

    /// Where output comes from.
    pub(super) fn output(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        let fd = match (&self.kind, stream) {
            (Kind::Terminal { master }, Stream::Stdout) => master,
            (Kind::Terminal { .. }, Stream::Stderr) => &None,
            (Kind::Pipes { stdout, .. }, Stream::Stdout) => stdout,
            (Kind::Pipes { stderr, .. }, Stream::Stderr) => stderr,
        };
        fd.as_ref().map(OwnedFd::as_fd)
    }

    /// Where stdin goes, while something waits to be written.
    pub(super) fn input(&self) -> Option<BorrowedFd<'_>> {
        let fd = match &self.kind {
            Kind::Terminal { master } => master,
            Kind::Pipes { stdin, .. } => stdin,
        };
        fd.as_ref()
            .map(OwnedFd::as_fd)
            .filter(|_| !self.pending.is_empty())
    }

    pub(super) fn read(&mut self, stream: Stream) -> Output {
        let Some(fd) = self.output(stream) else {
            return Output::End;
        };
        let mut buffer = vec![0; CHUNK];
        loop {
            match read(fd, &mut buffer) {
                Ok(length @ 1..) => {
                    buffer.truncate(length);
                    return Output::Data(buffer);
                }
                Err(Errno::EAGAIN) => return Output::Empty,
                Err(Errno::EINTR) => {}
                // EIO: a terminal whose last other end is closed.
                Ok(0) | Err(_) => break,
            }
        }
        match (&mut self.kind, stream) {
            (Kind::Terminal { master }, _) => *master = None,
            (Kind::Pipes { stdout, .. }, Stream::Stdout) => *stdout = None,
            (Kind::Pipes { stderr, .. }, Stream::Stderr) => *stderr = None,
        }
        Output::End
    }

    /// Queues stdin and writes what goes. After the end of file, or with nobody to read it, it is dropped.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let open = match &self.kind {
            Kind::Terminal { master } => master.is_some(),
            Kind::Pipes { stdin, .. } => stdin.is_some(),
        };
        if open && !self.eof {
            self.pending.extend(bytes);
            self.flush();
        }
    }

    pub(super) fn finish(&mut self) {
        if let Kind::Terminal { .. } = &self.kind {
            self.feed(&[CONTROL_D]);
        } else {
            self.eof = true;
            self.flush();
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= STDIN_LIMIT
    }

    /// Writes what stdin takes now, and closes it when that was the last.
    pub(super) fn flush(&mut self) {
        while let Some(fd) = self.input() {
            match write(fd, self.pending.as_slices().0) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                // The workload has closed it: nobody will read the rest.
                Err(_) => {
                    self.pending.clear();
                    self.eof = true;
                }
            }
        }
        if let (true, Kind::Pipes { stdin, .. }) = (self.eof, &mut self.kind) {
            *stdin = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdin_arrives_whole_and_then_ends() {
        let (mut io, [stdin, _stdout, _stderr]) = pipes(None).unwrap();
        let sent = vec![7; 100_000];
        io.feed(&sent);
        io.finish();
        io.feed(b"too late");
        assert!(io.input().is_some(), "a pipe holds 64 KiB");
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = read(&stdin, &mut buffer).unwrap();
            if length == 0 {
                break;
            }
            got.extend_from_slice(&buffer[..length]);
            io.flush();
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn output_is_read_to_its_end() {
        let (mut io, [_stdin, stdout, stderr]) = pipes(None).unwrap();
        assert_eq!(io.read(Stream::Stdout), Output::Empty);
        write(&stdout, b"out").unwrap();
        drop((stdout, stderr));
        assert_eq!(io.read(Stream::Stdout), Output::Data(b"out".to_vec()));
        assert_eq!(io.read(Stream::Stdout), Output::End);
        assert_eq!(io.read(Stream::Stderr), Output::End);
        assert!(io.output(Stream::Stdout).is_none());
    }
}
