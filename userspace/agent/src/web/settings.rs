//! exporter-toolkit's web file, as it is written: every key of its format, no other.
//!
//! What it means is decided where it is used; an error names the place and quotes no secret.

use std::collections::BTreeMap;

use paddock_policy::printable;
use serde::Deserialize;

/// So much of what the parser says is passed on.
const SAID: usize = 200;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) tls_server_config: Option<Tls>,
    pub(super) http_server_config: Option<Http>,
    pub(super) basic_auth_users: Option<BTreeMap<String, String>>,
    pub(super) rate_limit: Option<RateLimit>,
}

#[derive(Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) cert_file: Option<String>,
    pub(super) key_file: Option<String>,
    pub(super) client_auth_type: Option<String>,
    pub(super) client_ca_file: Option<String>,
    pub(super) client_allowed_sans: Option<Vec<String>>,
    pub(super) min_version: Option<String>,
    pub(super) max_version: Option<String>,
    pub(super) cipher_suites: Option<Vec<String>>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    pub(super) curve_preferences: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Http {
    pub(super) http2: Option<bool>,
    pub(super) headers: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RateLimit {
    pub(super) interval: Option<String>,
    pub(super) burst: Option<u32>,
}

/// `Err`: `LINE:COLUMN: what`.
pub(super) fn parse(text: &str) -> Result<Settings, String> {
    let is_empty = text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    });
    if is_empty {
        return Ok(Settings::default());
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error
            .location()
            .map_or_else(String::new, |at| format!("{}:{}: ", at.line(), at.column()));
        let said = error.to_string();
        let said = said.lines().next().unwrap_or_default();
        let said = said.split(" at line ").next().unwrap_or_default();
        let said: String = said.chars().take(SAID).collect();
        format!("{place}{}", printable(&said))
    })
}
