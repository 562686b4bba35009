//! An attached run: output, input, signals and the window's size between this terminal and a
//! monitor, until the workload ends.
//!
//! Speaks with the monitor alone, so the agent may die and come back meanwhile. One thread, one
//! poll loop, nothing in it blocks: a reader that stalls holds back the workload's output, not
//! its signals. The terminal is put back on every way out.

mod buffer;
mod connection;
mod dispositions;
mod keys;
mod message;
mod pump;
mod steps;
mod terminal;

use std::path::Path;

pub(crate) use self::keys::DetachKeys;
pub(crate) use self::message::{detached, failed, monitor_gone, out_of_memory};
pub(crate) use self::pump::Pump;
use paddock_runtime::record::{Exit, Failed};

/// What to do with a monitor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attach<'a> {
    /// For messages.
    pub(crate) name: &'a str,
    pub(crate) monitor: &'a Path,
    /// The workload has a terminal: pass the window's size on.
    pub(crate) terminal: bool,
    /// Pass stdin on.
    pub(crate) stdin: bool,
    pub(crate) mode: Mode,
    /// Leave it by these, when they are typed at a terminal.
    pub(crate) keys: &'a DetachKeys,
    /// Signals go to the workload; else they end the attaching.
    pub(crate) sig_proxy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Start it.
    Start,
    /// One that runs already, from now on.
    Join,
}

#[derive(Debug)]
pub(crate) enum End {
    Exited(Exit),
    /// It never ran.
    Failed(Failed),
    /// The monitor died, and its container with it.
    MonitorGone,
    /// Only the attaching ended.
    Detached,
    /// Nobody reads stdout any more; the workload was killed.
    ReaderLeft,
}

impl<'a> Attach<'a> {
    /// Connects, takes signals and the terminal over; [`Pump::run`] does the rest.
    pub(crate) fn ready(self) -> anyhow::Result<Pump<'a>> {
        Pump::new(self)
    }
}

/// A terminal whose input is not one would echo and line-edit for nobody: docker refuses too.
pub(crate) fn check_input(interactive: bool, tty: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        !(interactive && tty) || terminal::is_input_terminal(),
        "-t: stdin is not a terminal; leave out -t to pipe into the command"
    );
    Ok(())
}
