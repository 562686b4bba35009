//! `paddock agent`: the daemon, in the foreground; its log goes to stderr.

use std::{
    env::split_paths,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf, absolute},
    time::Duration,
};

use clap::ArgAction;
use paddock_agent::{
    Bounds, Cni, DEFAULT_LISTEN_ADDRESS, Endpoint, Guarding, Listen, Live, Options, ProbeMode,
    RecordRate, Reload,
};
use tracing_subscriber::EnvFilter;

use super::Context;
use crate::{args, config};

/// Watch every container and serve the other commands
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each option but --config may stand in the configuration, too; its names there:\n  \
    paddock config default\n\
    A flag wins over the environment, that over the files. SIGHUP has them read again."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Agent {
    /// Options from this file, and from the *.toml in FILE.d; 'none' reads none
    #[arg(long, env = "PADDOCK_CONFIG", default_value = config::DEFAULT, value_name = "FILE", hide_env_values = true)]
    config: PathBuf,
    /// Where metrics are served; port 0 takes a free one, 'none' serves none
    #[arg(long = "web.listen-address", env = "PADDOCK_WEB_LISTEN_ADDRESS", default_value = DEFAULT_LISTEN_ADDRESS, value_name = "ADDRESS", value_parser = listen_address, hide_env_values = true)]
    web_listen_address: Listen,
    /// TLS, passwords and client certificates for metrics: exporter-toolkit's web file (YAML)
    #[arg(
        long = "web.config.file",
        env = "PADDOCK_WEB_CONFIG_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    web_config_file: Option<PathBuf>,
    /// Serve metrics on the socket that systemd hands over, whatever the address says
    #[arg(long = "web.systemd-socket", env = "PADDOCK_WEB_SYSTEMD_SOCKET", value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_env_values = true)]
    web_systemd_socket: bool,
    /// Also a container: cgroups whose path fits this pattern, such as '/jobs/*'
    #[arg(
        long,
        env = "PADDOCK_TRACK",
        value_name = "PATTERN",
        value_delimiter = ',',
        hide_env_values = true
    )]
    track: Vec<String>,
    /// Take the kernel half down at the end; else it goes on counting for the next agent
    #[arg(long, env = "PADDOCK_DETACH_ON_EXIT", value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_env_values = true)]
    detach_on_exit: bool,
    /// Do not start where the kernel half cannot be loaded at all
    #[arg(long, env = "PADDOCK_REQUIRE_PROBE", value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_env_values = true)]
    require_probe: bool,
    /// What to log: error, warn, info, debug, trace, or by module
    #[arg(
        long,
        env = "PADDOCK_LOG",
        default_value = "info",
        value_name = "FILTER",
        value_parser = log_filter,
        hide_env_values = true
    )]
    log: String,
    /// Policy files (*.toml) in this directory are in force from the start on, after a reboot too
    #[arg(
        long,
        env = "PADDOCK_POLICY_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    policy_dir: Option<PathBuf>,
    /// Events that each container may tell a second; what is more is counted, not told. 0: no limit
    #[arg(
        long,
        env = "PADDOCK_EVENT_RATE",
        default_value_t = 2000,
        value_name = "NUMBER",
        hide_env_values = true
    )]
    event_rate: u32,
    /// How many of them may come at once
    #[arg(
        long,
        env = "PADDOCK_EVENT_BURST",
        default_value_t = 10_000,
        value_name = "NUMBER",
        hide_env_values = true
    )]
    event_burst: u32,
    /// Who else may touch paddock's own maps, programs and pins: auto (nobody while a policy is
    /// enforced, but any root where the agent is in a container), off (any root), audit (any root, counted), enforce (nobody), strict (and no signals)
    #[arg(long, env = "PADDOCK_GUARD", default_value = "auto", value_name = "MODE", value_parser = guarding, hide_env_values = true)]
    guard: Guarding,
    /// Play itself a harmless escape every so many seconds and count whether it was heard of; 0: never
    #[arg(
        long,
        env = "PADDOCK_CANARY_INTERVAL",
        default_value_t = 60,
        value_name = "SECONDS",
        hide_env_values = true
    )]
    canary_interval: u32,
    /// How much of the disk stored events may take; 0: they are kept in memory alone
    #[arg(long, env = "PADDOCK_EVENTS_MAX_SIZE", default_value = "256m", value_name = "SIZE", value_parser = size, hide_env_values = true)]
    events_max_size: u64,
    /// How long events are stored
    #[arg(long, env = "PADDOCK_EVENTS_MAX_AGE", default_value = "7d", value_name = "TIME", value_parser = humantime::parse_duration, hide_env_values = true)]
    events_max_age: Duration,
    /// Also pass events on to journald, with their fields
    #[arg(long, env = "PADDOCK_EVENTS_JOURNALD", value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_env_values = true)]
    events_journald: bool,
    /// Also pass events on as OTLP logs over HTTP, such as to http://127.0.0.1:4318
    #[arg(
        long,
        env = "PADDOCK_EVENTS_OTLP_ENDPOINT",
        value_name = "URL",
        hide_env_values = true
    )]
    events_otlp_endpoint: Option<Endpoint>,
    /// Log the kernel programs' own debug lines
    #[arg(long)]
    debug_programs: bool,
    /// Where CNI network lists are, for `run --network NAME`
    #[arg(
        long,
        env = "NETCONFPATH",
        default_value = "/etc/cni/net.d",
        value_name = "DIR",
        hide_env_values = true
    )]
    cni_netconfpath: PathBuf,
    /// Where CNI plugins are: directories, a colon between two
    #[arg(
        long,
        env = "CNI_PATH",
        default_value = "/opt/cni/bin:/usr/libexec/cni:/usr/lib/cni",
        value_name = "DIRS",
        hide_env_values = true
    )]
    cni_path: OsString,
    /// End when nothing runs and nobody asks
    #[arg(long, hide = true)]
    ephemeral: bool,
    /// For tests: use this rung for a capability
    #[arg(long, hide = true, value_name = "CAPABILITY=RUNG", value_parser = forced)]
    force_rung: Vec<(String, String)>,
}

impl Agent {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<u8> {
        if self.ephemeral {
            // Away from the terminal whose Ctrl-C is for the workload. Fails only for a process
            // group's leader, which has a terminal of its own choice.
            let _ = nix::unistd::setsid();
        }
        let log = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::try_new(&self.log)?)
            .with_target(false)
            .with_writer(std::io::stderr)
            .with_filter_reloading();
        let handle = log.reload_handle();
        log.init();
        let (state_dir, data_dir) = (context.state_dir.clone(), context.data_dir.clone());
        let options = self.options(&state_dir, &data_dir)?;
        let reload = Reload::new(move || {
            let agent = args::parse_again()?;
            let filter = EnvFilter::try_new(&agent.log).map_err(|error| error.to_string())?;
            let options = agent.options(&state_dir, &data_dir);
            let options = options.map_err(|error| format!("{error:#}"))?;
            handle.reload(filter).map_err(|error| error.to_string())?;
            Ok(options)
        });
        paddock_agent::run(options, reload)?;
        Ok(0)
    }

    fn options(self, state_dir: &Path, data_dir: &Path) -> anyhow::Result<Options> {
        let passes_on = self.events_journald || self.events_otlp_endpoint.is_some();
        anyhow::ensure!(
            self.events_max_size > 0 || !passes_on,
            "events are passed on from where they are stored, and none are with --events-max-size 0: \
             give it a size, or pass none on to journald or OTLP"
        );
        Ok(Options {
            state_dir: state_dir.to_owned(),
            data_dir: data_dir.to_owned(),
            listen: if self.web_systemd_socket {
                Listen::Systemd
            } else {
                self.web_listen_address
            },
            web_config: self.web_config_file.map(absolute).transpose()?,
            ephemeral: self.ephemeral,
            program_log: self.debug_programs,
            force_rungs: self.force_rung,
            journald: self.events_journald,
            otlp_endpoint: self.events_otlp_endpoint,
            events: Bounds {
                max_bytes: self.events_max_size,
                max_age: self.events_max_age,
            },
            probe: if self.require_probe {
                ProbeMode::Required
            } else {
                ProbeMode::Optional
            },
            canary: (self.canary_interval != 0 && !self.ephemeral)
                .then(|| Duration::from_secs(self.canary_interval.into())),
            live: Live {
                detach_on_exit: self.detach_on_exit,
                track: self.track,
                guard: self.guard,
                record_rate: (self.event_rate != 0).then_some(RecordRate {
                    per_second: self.event_rate,
                    burst: self.event_burst,
                }),
                cni: Cni {
                    lists: absolute(&self.cni_netconfpath)?,
                    plugin_dirs: split_paths(&self.cni_path)
                        .map(absolute)
                        .collect::<Result<_, _>>()?,
                },
                policy_dir: self.policy_dir.map(absolute).transpose()?,
            },
        })
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    let filter = EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    drop(filter);
    Ok(text.to_owned())
}

/// `HOST:PORT` by number, `:PORT` for every address, `none`.
fn listen_address(text: &str) -> Result<Listen, String> {
    if text == "none" {
        return Ok(Listen::Nowhere);
    }
    let full = if text.starts_with(':') {
        format!("[::]{text}")
    } else {
        text.to_owned()
    };
    full.parse::<SocketAddr>()
        .map(Listen::Address)
        .map_err(|_| {
            format!("expected an address and a port, such as {DEFAULT_LISTEN_ADDRESS}, or 'none'")
        })
}

fn size(text: &str) -> Result<u64, String> {
    paddock_cgroups::parse::size(text).map_err(|error| error.reason)
}

fn guarding(text: &str) -> Result<Guarding, &'static str> {
    Ok(match text {
        "auto" => Guarding::Auto,
        "off" => Guarding::Off,
        "audit" => Guarding::Audit,
        "enforce" => Guarding::Enforce,
        "strict" => Guarding::Strict,
        _ => return Err("expected auto, off, audit, enforce or strict"),
    })
}

fn forced(text: &str) -> Result<(String, String), String> {
    let (capability, rung) = text.split_once('=').ok_or("expected CAPABILITY=RUNG")?;
    Ok((capability.to_owned(), rung.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    #[test]
    fn what_is_not_stored_cannot_be_passed_on() {
        let options = |words: &[&str]| {
            let args = ["paddock", "agent"].iter().chain(words);
            let args = Args::try_parse_from(args).unwrap();
            let args::Command::Agent(agent) = args.command else {
                panic!("another command");
            };
            let nowhere = Path::new("/nowhere");
            let options = agent.options(nowhere, nowhere);
            options.map(|_| ()).map_err(|error| error.to_string())
        };
        for way in [
            "--events-journald",
            "--events-otlp-endpoint=http://127.0.0.1:1",
        ] {
            assert_eq!(options(&[way]), Ok(()));
            let told = options(&["--events-max-size=0", way]).unwrap_err();
            assert!(told.contains("--events-max-size 0"), "{told}");
        }
        assert_eq!(options(&["--events-max-size=0"]), Ok(()));
    }

    #[test]
    fn listen_addresses() {
        let at = |text: &str| Ok(Listen::Address(text.parse().unwrap()));
        assert_eq!(listen_address("127.0.0.1:0"), at("127.0.0.1:0"));
        assert_eq!(listen_address(":9750"), at("[::]:9750"));
        assert_eq!(listen_address("none"), Ok(Listen::Nowhere));
        for wrong in ["", "9750", "localhost:9750", "127.0.0.1", "1.2.3.4:99999"] {
            assert!(listen_address(wrong).is_err(), "{wrong}");
        }
    }
}
