//! A hook run by the child itself, between clone and exec: in the container's namespaces.
//!
//! No allocation: its words are made before the clone. It inherits the child's stdout and
//! stderr, reads the container's state from stdin and is killed when its time is over
//! (ETIMEDOUT). Another end than exit code 0 is ECANCELED.
#![forbid(unsafe_code)]

use std::{
    ffi::CString,
    os::fd::{AsFd as _, RawFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::CloneFlags,
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid},
};

use crate::sys::{
    clone::{Cloned, Side, clone3, pidfd_send_signal},
    exec::{self, Strings},
    task::{self, rewind},
};

#[derive(Debug)]
pub(crate) struct Hook {
    pub path: CString,
    pub argv: Strings,
    pub envp: Strings,
    /// `None`: as long as it takes.
    pub timeout: Option<Duration>,
}

impl Hook {
    pub(crate) fn run(&self, state: RawFd) -> nix::Result<()> {
        // The hooks before have read it.
        rewind(state)?;
        match clone3(CloneFlags::empty(), None)? {
            Side::Child => self.execute(state),
            Side::Parent(process) => self.wait(&process),
        }
    }

    fn execute(&self, state: RawFd) -> ! {
        task::reset_signals();
        // Without its stdin the hook can't know its container; everything else closes at exec.
        if task::place_number(state, 0).is_ok() {
            exec::exec(std::slice::from_ref(&self.path), &self.argv, &self.envp);
        }
        exec::exit_now(super::NOT_FOUND)
    }

    fn wait(&self, process: &Cloned) -> nix::Result<()> {
        let pidfd = process.pidfd.as_fd();
        let late = self.timeout.is_some_and(|limit| {
            let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
            poll(&mut fds, limit) == Ok(0)
        });
        if late {
            pidfd_send_signal(pidfd, libc::SIGKILL)?;
        }
        let status = loop {
            match waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        match status {
            _ if late => Err(Errno::ETIMEDOUT),
            WaitStatus::Exited(_, 0) => Ok(()),
            _ => Err(Errno::ECANCELED),
        }
    }
}
