//! Standard output, with a reader that may leave.
//!
//! Rust ignores SIGPIPE, so a closed pipe arrives as an error; it keeps its own type to be told
//! from the same errno on a socket. Text that a container chose never reaches a terminal raw.

use std::{
    io::{IsTerminal as _, Write as _},
    os::fd::AsFd as _,
};

use tokio::{io::Interest, net::unix::pipe::Sender};

#[derive(Debug, thiserror::Error)]
#[error("stdout: cannot write")]
pub(crate) struct StdoutError(#[source] pub(crate) std::io::Error);

/// `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

/// Writes and flushes: a follower's lines are to be seen as they come.
pub(crate) fn print(text: &str) -> Result<(), StdoutError> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(StdoutError)
}

/// Ends when stdout is a pipe whose reader closed it, else never: a follower with nothing to
/// write would not notice.
pub(crate) async fn reader_left() {
    // A regular file cannot be polled and has no reader to lose.
    if let Ok(stdout) = std::io::stdout().as_fd().try_clone_to_owned()
        && let Ok(stdout) = Sender::from_owned_fd_unchecked(stdout)
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Pretty JSON and a line feed.
pub(crate) fn print_json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(print(&text)?)
}

/// Columns to fit a table in; `None` where nobody looks at it (a pipe or a file).
pub(crate) fn width() -> Option<usize> {
    let told = std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    let seen = || {
        terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0))
    };
    told.or_else(seen).filter(|&columns| columns > 0)
}

/// Whether to colour: a terminal, and nobody asked for none (no-color.org).
pub(crate) fn colour() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
