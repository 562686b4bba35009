//! Wait for a process as its parent, handing signals on and, with a terminal, its bytes.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
    },
    unistd::{read, write},
};
use paddock_runtime::direct::{self, Launched};

use crate::error::Error;

/// Signals wait here from before the launch, so that none is lost.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

/// The caller's terminal in raw mode; as it was when dropped.
#[derive(Debug)]
struct Raw {
    before: Option<Termios>,
}

impl Signals {
    /// The launched child starts without a blocked signal.
    pub(super) fn hold() -> Result<Self, Error> {
        let mut set = SigSet::all();
        // These are this process' own faults, or its caller's means to stop it.
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGABRT,
            Signal::SIGPIPE,
        ] {
            set.remove(signal);
        }
        set.thread_block()
            .and_then(|()| {
                SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            })
            .map(Self)
            .map_err(|errno| Error::io("hold signals in", "/proc/self")(errno.into()))
    }
}

/// Its exit code.
pub(super) fn wait(launched: &Launched, signals: &mut Signals) -> Result<u8, Error> {
    let failed =
        |errno: Errno| Error::io("wait for", format!("/proc/{}", launched.pid()))(errno.into());
    let mut terminal = launched.terminal.as_ref();
    let raw = terminal.map(|master| Raw::enter(master.as_fd()));
    let stdin = io::stdin();
    let mut input = terminal.is_some();
    loop {
        let mut fds = vec![
            PollFd::new(launched.pidfd(), PollFlags::POLLIN),
            PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(master) = terminal {
            fds.push(PollFd::new(master.as_fd(), PollFlags::POLLIN));
            if input {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(failed)?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let is_ready = |index: usize| ready.get(index).copied().unwrap_or(false);
        if is_ready(1) {
            hand_on(launched, signals, terminal).map_err(failed)?;
        }
        if let Some(master) = terminal {
            if is_ready(3) {
                input = copy(stdin.as_fd(), master.as_fd());
            }
            if is_ready(2) && !copy(master.as_fd(), io::stdout().as_fd()) {
                terminal = None;
            }
        }
        if is_ready(0) && !is_ready(2) {
            break;
        }
    }
    drop(raw);
    let code = launched.wait().map_err(failed)?;
    Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

fn hand_on(
    launched: &Launched,
    signals: &mut Signals,
    terminal: Option<&OwnedFd>,
) -> nix::Result<()> {
    while let Some(info) = signals.0.read_signal()? {
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        if number == Signal::SIGWINCH as i32 {
            if let Some(master) = terminal {
                direct::copy_window_size(io::stdin().as_fd(), master.as_fd());
            }
            continue;
        }
        match launched.signal(number) {
            Err(errno) if errno != Errno::ESRCH => return Err(errno),
            _ => {}
        }
    }
    Ok(())
}

/// `false`: nothing more will come.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 4096];
    match read(from, &mut buffer) {
        Ok(0) => false,
        Ok(length) => {
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                match write(to, rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(Errno::EINTR | Errno::EAGAIN) => {}
                    Err(_) => return false,
                }
            }
            true
        }
        Err(Errno::EINTR | Errno::EAGAIN) => true,
        // A terminal whose other end is closed answers EIO.
        Err(_) => false,
    }
}

impl Raw {
    fn enter(master: BorrowedFd<'_>) -> Self {
        let stdin = io::stdin();
        direct::copy_window_size(stdin.as_fd(), master);
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            // Without it the session still works, only with echoes.
            let _ = tcsetattr(&stdin, SetArg::TCSANOW, &raw);
        }
        Self { before }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}
