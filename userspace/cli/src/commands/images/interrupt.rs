//! Work on the store that ends cleanly by Ctrl-C, SIGTERM or SIGHUP.
//!
//! The signals are blocked meanwhile and read by a thread, which tells the work to end; the
//! work removes what it has made. Afterwards they mean what they meant before.

use std::{
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::Context as _;
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use paddock_images::{Cancel, Error};

use crate::exit::Coded;

/// 128 and a signal's number, as shells have it.
const SIGNALLED: u8 = 128;
const STEP_MS: u16 = 50;

pub(super) fn interruptible<T>(
    work: impl FnOnce(&Cancel) -> Result<T, Error>,
) -> anyhow::Result<T> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    let before = signals
        .thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .context("cannot block signals")?;
    let result = watched(&signals, work);
    before.thread_set_mask().context("cannot unblock signals")?;
    result
}

fn watched<T>(
    signals: &SigSet,
    work: impl FnOnce(&Cancel) -> Result<T, Error>,
) -> anyhow::Result<T> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let source = SignalFd::with_flags(signals, flags).context("cannot wait for signals")?;
    let cancel = Cancel::default();
    let done = AtomicBool::new(false);
    let (result, signal) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut told = None;
            while !done.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
                // A failure is as good as a time-out: the work goes on.
                let _ = poll(&mut fds, STEP_MS);
                if let Ok(Some(signal)) = source.read_signal() {
                    told = u8::try_from(signal.ssi_signo).ok();
                    cancel.set();
                }
            }
            told
        });
        let result = work(&cancel);
        done.store(true, Ordering::Relaxed);
        (result, watcher.join().ok().flatten())
    });
    match (result, signal) {
        (Err(error @ Error::Interrupted), Some(signal)) => {
            Err(Coded::new(SIGNALLED + signal, error.to_string()).into())
        }
        (result, _) => Ok(result?),
    }
}
