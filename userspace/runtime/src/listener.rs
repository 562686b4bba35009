//! A seccomp listener is told of a process: the specification's container process state and
//! the descriptor by which the kernel asks, one message on one connection.
#![forbid(unsafe_code)]

use std::{
    io::{IoSlice, Write as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::{
    plan::{Failure, build::io_failure},
    sys::clone::{Cloned, pidfd_getfd},
};

const STEP: &str = "seccomp listener";

/// `number` is the descriptor's in the process.
pub(crate) fn tell(
    process: &Cloned,
    number: RawFd,
    socket: &Path,
    state: &str,
) -> Result<(), Failure> {
    use std::os::fd::AsFd as _;
    let listener = pidfd_getfd(process.pidfd.as_fd(), number)
        .map_err(|errno| Failure::without_path(STEP, errno))?;
    let send = || -> std::io::Result<()> {
        let mut stream = UnixStream::connect(socket)?;
        let fds = [listener.as_raw_fd()];
        let sent = sendmsg::<()>(
            stream.as_raw_fd(),
            &[IoSlice::new(state.as_bytes())],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        // What did not fit goes without it.
        stream.write_all(&state.as_bytes()[sent..])
    };
    send().map_err(|source| io_failure(STEP, socket, &source))
}
