//! What can go wrong: each one line, with what it was about.

use std::{io, path::PathBuf};

use paddock_runtime::record::Failed;

/// The cause is the source and is not printed again by Display; [`crate::log`] writes the chain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{op} {}", path.display())]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The bundle asks for something wrong or for something that is not done here.
    #[error("config.json: {what}")]
    Config { what: String },
    #[error("{what}")]
    Usage { what: String },
    #[error("container {id:?} does not exist")]
    NotFound { id: String },
    #[error("container with id exists already: {id:?}")]
    Exists { id: String },
    /// What was asked for needs another status.
    #[error("cannot {verb} container {id:?} that is {status}")]
    Status {
        verb: &'static str,
        id: String,
        status: &'static str,
    },
    #[error(
        "cannot {verb} container {id:?}: it has no cgroup (it was made with --cgroup-manager disabled)"
    )]
    NoCgroup { verb: &'static str, id: String },
    #[error("{}", launch_line(failed, program))]
    Launch { failed: Failed, program: String },
    #[error("{kind} hook {why}: {}", path.display())]
    Hook {
        kind: &'static str,
        path: PathBuf,
        why: String,
    },
    #[error(transparent)]
    Cgroup(#[from] paddock_cgroups::Error),
    #[error(transparent)]
    NetDevice(#[from] paddock_runtime::net_devices::Error),
}

/// The words that podman looks for to tell a missing program (127) from one that may not be
/// executed (126).
fn launch_line(failed: &Failed, program: &str) -> String {
    let reason = nix::errno::Errno::from_raw(failed.errno)
        .desc()
        .to_lowercase();
    match (failed.step.as_str(), failed.exit_code) {
        ("exec", 127) if program.contains('/') => {
            format!("exec: {program:?}: stat {program}: no such file or directory")
        }
        ("exec", 127) => format!("exec: {program:?}: executable file not found in $PATH"),
        ("exec", _) => format!("exec: {program:?}: {reason}"),
        ("working directory", _) => format!(
            "chdir to cwd {:?} failed: {reason}",
            failed.path.as_deref().unwrap_or_default()
        ),
        _ => format!("cannot start container: {failed}"),
    }
}

impl Error {
    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::Config { what: what.into() }
    }

    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::Usage { what: what.into() }
    }

    /// For `map_err`.
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { op, path, source }
    }

    /// The line for people: this and its causes.
    pub(crate) fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line = format!("{line}: {error}");
            cause = error.source();
        }
        // A name from outside may hold anything.
        line.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        let program = failed.path.clone().unwrap_or_default();
        Self::Launch { failed, program }
    }
}
