//! `kill`: by pidfd to exactly the container's first process, or to all in its cgroup.

use std::path::Path;

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    args::Kill,
    config::shorten,
    container::{Container, Status},
    error::Error,
};

/// Real-time ones have no names here but numbers.
const HIGHEST: i32 = 64;

pub(super) fn verb(root: &Path, wanted: &Kill) -> Result<(), Error> {
    let signal = parse(&wanted.signal)?;
    let container = Container::open(root, &wanted.id)?;
    let refused = |status: Status| Error::Status {
        verb: "kill",
        id: wanted.id.clone(),
        status: status.word(),
    };
    if wanted.all {
        return all(&container, signal);
    }
    let status = container.status();
    let process = container
        .process()
        .ok_or_else(|| refused(Status::Stopped))?;
    process.signal(signal).map_err(|errno| match errno {
        Errno::ESRCH => refused(Status::Stopped),
        other => Error::io("signal", format!("/proc/{}", container.record.pid))(other.into()),
    })?;
    // A frozen one would get it only when thawed.
    if status == Status::Paused
        && signal == Signal::SIGKILL as i32
        && let Some(cgroup) = container.record.open_cgroup()?
    {
        cgroup.thaw()?;
    }
    Ok(())
}

fn all(container: &Container, signal: i32) -> Result<(), Error> {
    let cgroup = container.record.needed_cgroup("kill --all")?;
    if signal == Signal::SIGKILL as i32 {
        return Ok(cgroup.kill()?);
    }
    let signal =
        Signal::try_from(signal).map_err(|errno| Error::io("signal", "--all")(errno.into()))?;
    for pid in cgroup.pids()? {
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::io("signal", format!("/proc/{pid}"))(errno.into())),
        }
    }
    Ok(())
}

/// `9`, `KILL`, `SIGKILL`, `sigkill`.
fn parse(text: &str) -> Result<i32, Error> {
    let unknown = || Error::usage(format!("unknown signal {:?}", shorten(text)));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=HIGHEST).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    name.parse::<Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for text in ["9", "KILL", "SIGKILL", "sigkill"] {
            assert_eq!(parse(text).unwrap(), 9, "{text}");
        }
        for text in ["", "-1", "65", "NOPE", "9x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
