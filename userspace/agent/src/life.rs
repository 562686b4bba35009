//! How long a container lives, as who made it wants: docker's words and docker's defaults.

use std::{fmt, str::FromStr};

use paddock_runtime::spec::LogLimits;
use serde::{Deserialize, Serialize};

/// SIGTERM.
const TERM: i32 = 15;
/// Seconds that `stop` waits before it kills.
const STOP_TIMEOUT: i64 = 10;

/// `--restart`, `--stop-signal`, `--stop-timeout`, `--log-opt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifeOptions {
    pub restart: RestartPolicy,
    /// Absent: SIGTERM.
    pub stop_signal: Option<i32>,
    /// Seconds, negative waits for ever; absent: 10.
    pub stop_timeout: Option<i64>,
    #[serde(default)]
    pub log: LogLimits,
}

impl LifeOptions {
    pub fn stop_signal(&self) -> i32 {
        self.stop_signal.unwrap_or(TERM)
    }

    pub fn stop_timeout(&self) -> i64 {
        self.stop_timeout.unwrap_or(STOP_TIMEOUT)
    }
}

/// What follows the end of a run that nobody asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    No,
    /// A failure is followed by another run, `max` times; 0: without an end.
    OnFailure { max: u32 },
    /// Also when an agent starts, even if a user had stopped it.
    Always,
    /// Also when an agent starts, unless a user had stopped it.
    UnlessStopped,
}

impl FromStr for RestartPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, max) = match text.split_once(':') {
            Some((name, max)) => (name, Some(max)),
            None => (text, None),
        };
        match (name, max) {
            ("no", None) => Ok(Self::No),
            ("always", None) => Ok(Self::Always),
            ("unless-stopped", None) => Ok(Self::UnlessStopped),
            ("on-failure", None) => Ok(Self::OnFailure { max: 0 }),
            ("on-failure", Some(max)) => max
                .parse()
                .map(|max| Self::OnFailure { max })
                .map_err(|_| format!("'{max}' is no number of restarts")),
            ("no" | "always" | "unless-stopped", Some(_)) => {
                Err(format!("only on-failure takes a number, not {name}"))
            }
            _ => Err("expected no, on-failure[:NUMBER], always or unless-stopped".to_owned()),
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { max: 0 } => f.write_str("on-failure"),
            Self::OnFailure { max } => write!(f, "on-failure:{max}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_docker_reads_them() {
        for text in [
            "no",
            "on-failure",
            "on-failure:3",
            "always",
            "unless-stopped",
        ] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "never",
            "always:3",
            "on-failure:",
            "on-failure:-1",
            "no:1",
        ] {
            assert!(wrong.parse::<RestartPolicy>().is_err(), "{wrong}");
        }
    }
}
