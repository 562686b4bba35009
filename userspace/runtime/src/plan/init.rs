//! `--init`: the container's first process stays paddock's, reaps, hands signals on, and ends
//! with the program's exit code.
//!
//! It runs after the last step, with the program's own privileges and the three standard
//! descriptors. No allocation, no lock. It never execs, so /proc/1/exe is the sealed copy, and
//! it stays undumpable: the container can't look into what it was before. It lives under the
//! program's seccomp filter, or a container that may ptrace would have a way around that.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd as _, BorrowedFd};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, setpgid, tcsetpgrp},
};

use super::SETUP_FAILED;
use crate::sys::{
    clone::{Cloned, Side, fork, pidfd_open, pidfd_send_signal},
    exec, seccomp,
};

/// What a shell says of a program that ended by a signal.
const SIGNAL_BASE: i32 = 128;

/// Comes back in the child that is to exec, in a process group of its own, which has the
/// terminal if there is one; the first process stays here to the end.
///
/// `filter` is this process' own to install, like the child's at its exec; an earlier one may
/// refuse clone3, as Docker's does, so it is fork.
pub(super) fn stay(
    terminal: Option<BorrowedFd<'_>>,
    filter: Option<&seccomp::Program>,
) -> nix::Result<()> {
    // From here on signals wait for the loop; for the child they wait until it can take them.
    let all = SigSet::all();
    all.thread_block()?;
    match fork()? {
        Side::Child => {
            setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
            if let Some(terminal) = terminal {
                tcsetpgrp(terminal, Pid::this())?;
            }
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            all.thread_unblock()
        }
        Side::Parent(pid) => {
            let program = Cloned {
                pid: pid.as_raw(),
                pidfd: pidfd_open(pid.as_raw())?,
            };
            // The program's exec or its failure is told by the program alone.
            exec::close_status();
            // Names are for people.
            let _ = prctl::set_name(c"paddock-init");
            let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC);
            if let Some(filter) = filter
                && seccomp::install(filter).is_err()
            {
                exec::exit_now(SETUP_FAILED);
            }
            exec::exit_now(serve(&program, &signals))
        }
    }
}

/// A kernel without signalfd, or without room for one more descriptor: the program's end is all
/// that can be waited for.
fn serve(program: &Cloned, signals: &nix::Result<SignalFd>) -> i32 {
    loop {
        match signals.as_ref().map(SignalFd::read_signal) {
            Ok(Ok(Some(signal))) => {
                let number = signal.ssi_signo.cast_signed();
                if number == Signal::SIGCHLD as i32 {
                    if let Some(code) = reap(program.pid, WaitPidFlag::WNOHANG) {
                        return code;
                    }
                } else {
                    // One that has ended is reaped next.
                    let _ = pidfd_send_signal(program.pidfd.as_fd(), number);
                }
            }
            Ok(Ok(None) | Err(Errno::EINTR)) => {}
            Ok(Err(_)) | Err(_) => {
                if let Some(code) = reap(program.pid, WaitPidFlag::empty()) {
                    return code;
                }
            }
        }
    }
}

/// Every process that has ended; the program's exit code once that is among them.
fn reap(program: i32, flags: WaitPidFlag) -> Option<i32> {
    loop {
        match waitpid(Pid::from_raw(-1), Some(flags)) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == program => return Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == program => {
                return Some(SIGNAL_BASE + signal as i32);
            }
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return Some(SIGNAL_BASE - 1),
        }
    }
}
