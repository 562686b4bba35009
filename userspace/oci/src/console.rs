//! Hand a terminal's master to whoever listens on `--console-socket`.

use std::{
    io::IoSlice,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::error::Error;

/// The name goes along, as runc does it.
pub(crate) fn send(socket: &Path, master: BorrowedFd<'_>) -> Result<(), Error> {
    let failed = Error::io("send the terminal to", socket);
    let send = || -> std::io::Result<()> {
        let stream = UnixStream::connect(socket)?;
        let fds = [master.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let name = [IoSlice::new(b"/dev/ptmx")];
        sendmsg::<()>(
            stream.as_raw_fd(),
            &name,
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    };
    send().map_err(failed)
}
