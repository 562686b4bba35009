//! What a configuration may say: each setting is a flag of `paddock agent`, by another name.
//!
//! Types, checks, defaults and words of explanation are the flag's own, so the two cannot differ.

/// A setting.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) table: &'static str,
    pub(crate) name: &'static str,
    /// clap's name of the flag.
    pub(crate) arg: &'static str,
    pub(crate) kind: Kind,
    /// Whether SIGHUP changes it.
    pub(crate) live: bool,
    /// For `config default`, where nothing holds without it.
    pub(crate) example: Option<&'static str>,
}

/// Its TOML type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Switch,
    /// The flag is given once for each.
    Each,
    /// One flag, a colon between two.
    Path,
}

impl Kind {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Switch => "true or false",
            Self::Each | Self::Path => "an array of strings",
        }
    }
}

const fn key(
    table: &'static str,
    name: &'static str,
    arg: &'static str,
    kind: Kind,
    live: bool,
) -> Key {
    Key {
        table,
        name,
        arg,
        kind,
        live,
        example: None,
    }
}

impl Key {
    const fn such_as(mut self, example: &'static str) -> Self {
        self.example = Some(example);
        self
    }
}

/// In the order of `config default`.
pub(crate) static KEYS: &[Key] = &[
    key("agent", "track", "track", Kind::Each, true),
    key("agent", "guard", "guard", Kind::Text, true),
    key("agent", "log", "log", Kind::Text, true),
    key(
        "agent",
        "require_probe",
        "require_probe",
        Kind::Switch,
        false,
    ),
    key(
        "agent",
        "detach_on_exit",
        "detach_on_exit",
        Kind::Switch,
        true,
    ),
    key(
        "agent",
        "canary_interval",
        "canary_interval",
        Kind::Number,
        false,
    ),
    key(
        "web",
        "listen_address",
        "web_listen_address",
        Kind::Text,
        false,
    ),
    key("web", "config_file", "web_config_file", Kind::Text, false).such_as("/etc/paddock/web.yml"),
    key(
        "web",
        "systemd_socket",
        "web_systemd_socket",
        Kind::Switch,
        false,
    ),
    key("policy", "dir", "policy_dir", Kind::Text, true).such_as("/etc/paddock/policy.d"),
    key("events", "rate", "event_rate", Kind::Number, true),
    key("events", "burst", "event_burst", Kind::Number, true),
    key("events", "max_size", "events_max_size", Kind::Text, false),
    key("events", "max_age", "events_max_age", Kind::Text, false),
    key("events", "journald", "events_journald", Kind::Switch, false),
    key(
        "events",
        "otlp_endpoint",
        "events_otlp_endpoint",
        Kind::Text,
        false,
    )
    .such_as("http://127.0.0.1:4318"),
    key("cni", "netconfpath", "cni_netconfpath", Kind::Text, true),
    key("cni", "path", "cni_path", Kind::Path, true),
];
