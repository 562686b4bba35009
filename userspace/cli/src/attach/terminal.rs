//! This terminal: raw mode while a workload's terminal is attached, and the window's size.

use std::{
    io::{IsTerminal as _, stdin, stdout},
    os::fd::AsFd as _,
};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Raw from its making to its drop, so on every way out that runs destructors; signals that
/// would not are taken by the pump's signalfd.
#[derive(Debug)]
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    pub(crate) fn enter() -> std::io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(stdin().as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

pub(crate) fn is_input_terminal() -> bool {
    stdin().is_terminal()
}

/// Rows and columns of the terminal on stdin or stdout.
pub(crate) fn size() -> Option<(u16, u16)> {
    terminal_size::terminal_size_of(stdin())
        .or_else(|| terminal_size::terminal_size_of(stdout()))
        .map(|(columns, rows)| (rows.0, columns.0))
}
