//! The zygote's own side: wait for requests, fork a monitor for each.
//!
//! Single-threaded and without state, so a monitor's memory is small and a fork always safe.
//! SIGCHLD is ignored: the kernel reaps monitors of a living zygote, and init those of a dead
//! one. It ends when the agent's end of its socket closes; monitors go on.
#![forbid(unsafe_code)]

use std::{
    fs::File,
    io::IoSliceMut,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
    },
    unistd::setsid,
};

use paddock_cgroups::Hierarchies;

use crate::{
    monitor,
    sys::{
        clone::{Side, fork},
        descriptor::{inherited_socket, received},
        exec::exit_now,
        task::ignore_signal,
    },
};

/// What one receive brought.
#[derive(Debug)]
enum Incoming {
    Launch {
        spec: OwnedFd,
        reply: OwnedFd,
    },
    /// Not a request: nothing to answer on.
    Nonsense,
    End,
}

/// Serves until the end. Exit code 0, or 1 when there is no socket to serve.
pub(super) fn serve() -> i32 {
    // Names and sessions are conveniences: Ctrl-C at the agent's terminal is not for the zygote.
    let _ = prctl::set_name(c"paddock-zygote");
    let _ = setsid();
    // What a killed monitor leaves behind comes here and, like monitors, is reaped by the kernel.
    let _ = prctl::set_child_subreaper(true);
    ignore_signal(libc::SIGCHLD);
    let socket = match inherited_socket() {
        Ok(socket) => socket,
        Err(errno) => {
            eprintln!("paddock-zygote: descriptor 3 must be the agent's socket: {errno}");
            return 1;
        }
    };
    // As the agent saw them: whatever is mounted later is none of either's.
    let hierarchies = Hierarchies::discover();
    loop {
        match receive(&socket) {
            Ok(Incoming::Launch { spec, reply }) => match fork() {
                Ok(Side::Child) => {
                    drop(socket);
                    monitor::run(File::from(spec), File::from(reply), hierarchies);
                    exit_now(0);
                }
                Ok(Side::Parent(_)) => {}
                // The agent sees the answer's pipe close.
                Err(errno) => eprintln!("paddock-zygote: fork: {errno}"),
            },
            Ok(Incoming::Nonsense) | Err(Errno::EINTR) => {}
            Ok(Incoming::End) => return 0,
            Err(errno) => {
                eprintln!("paddock-zygote: receive: {errno}");
                return 1;
            }
        }
    }
}

fn receive(socket: &OwnedFd) -> nix::Result<Incoming> {
    let mut byte = [0];
    let mut iov = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 2]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    if message.bytes == 0 {
        return Ok(Incoming::End);
    }
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(rights) = part {
            fds.extend(rights.into_iter().map(received));
        }
    }
    Ok(match <[OwnedFd; 2]>::try_from(fds) {
        Ok([spec, reply]) => Incoming::Launch { spec, reply },
        Err(_) => Incoming::Nonsense,
    })
}
