//! The socket that systemd hands over, by sd_listen_fds(3). Call before threads are there.

use std::net::TcpListener;

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};

use super::Error;

/// Whose the descriptor is from now on; the environment names it no more.
pub(crate) fn inherited() -> Result<TcpListener, Error> {
    let refused = |why: &str| Error::Socket(why.to_owned());
    // Closes them at an exec, those that are not taken, too.
    let count = sd_notify::listen_fds()
        .map_err(|error| Error::Socket(format!("LISTEN_FDS: {error}")))?
        .len();
    match count {
        0 => {
            return Err(refused(
                "start paddock-web.socket before the agent, or leave out --web.systemd-socket",
            ));
        }
        1 => {}
        more => {
            return Err(Error::Socket(format!(
                "{more} came, and one is served: leave one ListenStream= to the agent"
            )));
        }
    }
    let listener = ListenFd::from_env()
        .take_tcp_listener(0)
        .ok()
        .flatten()
        .ok_or_else(|| refused("what came is none of TCP: write ListenStream=ADDRESS:PORT"))?;
    match getsockopt(&listener, AcceptConn) {
        Ok(true) => Ok(listener),
        _ => Err(refused(
            "what came is a connection: write Accept=no, which is the default",
        )),
    }
}
