//! Exit codes and the one line that goes with a failure.
//!
//! Docker's rules: 125 paddock itself failed in `run` or `exec`, 126 the command cannot be
//! invoked, 127 it is not there, else the workload's own or 128 + signal. Other commands end
//! with 1. A reader that went away (`paddock ps | head -1`) is no failure worth a line.

use std::{
    io::{ErrorKind, Write as _},
    process::ExitCode,
};

use crate::client::Error;

/// paddock itself failed.
pub(crate) const OWN_FAILURE: u8 = 125;
/// The command is not there.
pub(crate) const NOT_FOUND: u8 = 127;
/// Killed by SIGPIPE, as a shell would say it of a classic tool.
pub(crate) const BROKEN_PIPE: u8 = 141;
/// Any other command's failure.
pub(crate) const FAILURE: u8 = 1;

/// A failure that knows its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Coded {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Coded {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The workload's code as a process can carry it: the kernel keeps the low 8 bits.
pub(crate) fn from_workload(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(OWN_FAILURE)
}

/// Prints the line (and with `verbose` the chain under it) and says how to end: by the error's
/// own code, else `fallback`.
pub(crate) fn report(error: &anyhow::Error, verbose: bool, fallback: u8) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::from(BROKEN_PIPE);
    }
    // Nothing to be done about a closed stderr.
    let _ = writeln!(std::io::stderr(), "{}", lines(error, verbose));
    ExitCode::from(code_of(error, fallback))
}

/// A line on stderr that is no failure.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "paddock: {line}");
}

/// Whether its line ends with what to do, so that no cause needs to be told.
fn says_all(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(Error::NoAgent { .. }))
        || matches!(
            error.downcast_ref(),
            Some(paddock_agent::Error::Listen { .. })
        )
}

fn lines(error: &anyhow::Error, verbose: bool) -> String {
    let mut line = error.to_string();
    let root = error.root_cause().to_string();
    // The number helps nobody who has the words.
    let root = root.split(" (os error ").next().unwrap_or(&root);
    let whole = error.chain().find(|cause| says_all(*cause));
    let rest = whole.map_or_else(|| root.to_owned(), ToString::to_string);
    if !verbose && !line.contains(&rest) {
        line = format!("{line}: {rest}");
    }
    let mut text = format!("paddock: {}", crate::human::single_line(&line));
    if verbose {
        for cause in error.chain().skip(1) {
            text.push_str("\n  caused by: ");
            text.push_str(&crate::human::single_line(&cause.to_string()));
        }
    }
    text
}

/// The error's own code; of what the agent refused, the agent's, but only for `run` and `exec`.
fn code_of(error: &anyhow::Error, fallback: u8) -> u8 {
    let of = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<Error>() {
        Some(Error::Refused {
            exit_code: Some(code),
            ..
        }) if fallback == OWN_FAILURE => Some(from_workload(*code)),
        _ => cause.downcast_ref::<Coded>().map(|coded| coded.code),
    };
    error.chain().find_map(of).unwrap_or(fallback)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<crate::output::StdoutError>()
        .is_some_and(|error| error.0.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn denied() -> anyhow::Error {
        Err::<(), _>(std::io::Error::from_raw_os_error(13))
            .context("/x: cannot open")
            .context("greedy: cannot start")
            .unwrap_err()
    }

    #[test]
    fn one_line_ends_with_the_root_cause() {
        assert_eq!(
            lines(&denied(), false),
            "paddock: greedy: cannot start: Permission denied"
        );
    }

    #[test]
    fn what_to_do_is_told_through_context() {
        let error = Err::<(), _>(Error::NoAgent {
            socket: "/s".into(),
            source: std::io::Error::from_raw_os_error(2),
        });
        let error = error.context("walls.toml: not in force").unwrap_err();
        assert_eq!(
            lines(&error, false),
            "paddock: walls.toml: not in force: no agent answers on /s: start one with `paddock agent`"
        );
    }

    #[test]
    fn verbose_shows_every_level() {
        assert_eq!(
            lines(&denied(), true),
            "paddock: greedy: cannot start\n  caused by: /x: cannot open\n  caused by: Permission denied (os error 13)"
        );
    }

    #[test]
    fn a_code_is_found_through_context() {
        let error = anyhow::Error::new(Coded::new(127, "not there")).context("greedy");
        assert_eq!((code_of(&error, 1), code_of(&denied(), 1)), (127, 1));
    }

    #[test]
    fn the_agents_code_counts_where_a_workload_was_to_run() {
        let refused = || Error::Refused {
            status: hyper::StatusCode::BAD_REQUEST,
            message: "no".into(),
            exit_code: Some(126),
        };
        assert_eq!(
            (
                code_of(&refused().into(), 125),
                code_of(&refused().into(), 1)
            ),
            (126, 1)
        );
    }

    #[test]
    fn a_reader_that_left_is_quiet() {
        let error = anyhow::Error::new(crate::output::StdoutError(ErrorKind::BrokenPipe.into()));
        assert!(is_broken_pipe(&error));
        // Another pipe's end, such as the agent's socket, is a failure.
        assert!(!is_broken_pipe(&anyhow::Error::new(std::io::Error::from(
            ErrorKind::BrokenPipe
        ))));
    }

    #[test]
    fn workload_codes_keep_their_low_byte() {
        assert_eq!([0, 137, 255, 256].map(from_workload), [0, 137, 255, 0]);
    }
}
