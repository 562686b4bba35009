//! How an agent is started: what command line, environment and configuration decided, and which
//! part of that may change while it lives.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use paddock_probe::RecordRate;

use crate::{shipping::Endpoint, store::Bounds};

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Absolute; made, mode 0700, when it is not there.
    pub state_dir: PathBuf,
    /// Absolute; images, and what containers write over them.
    pub data_dir: PathBuf,
    pub listen: Listen,
    /// Absolute; who may see metrics, by exporter-toolkit's web file. `None`: everybody.
    pub web_config: Option<PathBuf>,
    /// End when no container runs and no client is connected.
    pub ephemeral: bool,
    /// Load the programs' own debug lines.
    pub program_log: bool,
    /// `(capability, rung)`: tests force a lower rung.
    pub force_rungs: Vec<(String, String)>,
    pub probe: ProbeMode,
    /// How often the agent plays itself an escape; `None`: never.
    pub canary: Option<Duration>,
    pub live: Live,
    /// How many events are stored, and for how long.
    pub events: Bounds,
    /// Where else they go.
    pub journald: bool,
    pub otlp_endpoint: Option<Endpoint>,
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    Nowhere,
    /// Port 0 takes a free one.
    Address(SocketAddr),
    /// On the socket that systemd hands over.
    Systemd,
}

/// What SIGHUP may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Take the kernel half down at the end, instead of leaving it counting.
    pub detach_on_exit: bool,
    /// Globs of cgroup paths (`/byhand*`) that are containers, besides the known runtimes' ones.
    pub track: Vec<String>,
    /// How many records each container may tell; `None`: as many as it makes.
    pub record_rate: Option<RecordRate>,
    pub cni: Cni,
    pub guard: Guarding,
    /// Absolute; policy files (`*.toml`) that are to be in force.
    pub policy_dir: Option<PathBuf>,
}

/// Where the operator's container networks are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cni {
    /// Network lists (`*.conflist`).
    pub lists: PathBuf,
    /// Plugins; the first directory that has one counts.
    pub plugin_dirs: Vec<PathBuf>,
}

/// What a kernel half that cannot be loaded at all means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeMode {
    /// The agent runs without, and says so in its log, in `/readyz` and in its metrics.
    #[default]
    Optional,
    /// The agent does not start.
    Required,
}

/// Who besides paddock may touch its maps, programs, links and pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guarding {
    /// Nobody, while a policy in mode enforce is in force.
    #[default]
    Auto,
    /// Everybody who is root.
    Off,
    /// Everybody, and it is counted.
    Audit,
    /// Nobody.
    Enforce,
    /// Nobody, and nobody but the first process may send the agent signals.
    Strict,
}

/// Port by convention beside the others of 97xx; loopback, since metrics name what runs here.
pub const DEFAULT_LISTEN_ADDRESS: &str = "127.0.0.1:9750";

/// What command line, environment and configuration say now; the log's filter is set by it, too.
pub struct Reload(Box<dyn Fn() -> Result<Options, String> + Send + Sync>);

impl Reload {
    pub fn new(read: impl Fn() -> Result<Options, String> + Send + Sync + 'static) -> Self {
        Self(Box::new(read))
    }

    pub(crate) fn read(&self) -> Result<Options, String> {
        (self.0)()
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}
