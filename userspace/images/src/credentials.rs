//! Passwords for registries, from docker's `config.json` if there is one.
//!
//! Only what lies in the file itself is used (`auths`); a helper program is never run.

use std::{collections::BTreeMap, path::PathBuf};

use base64::Engine as _;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Debug, Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
}

/// `DOCKER_CONFIG/config.json`, else the one in the home directory.
pub(crate) fn find(registry: &str) -> RegistryAuth {
    let directory = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
    let text = directory.and_then(|path| std::fs::read(path.join("config.json")).ok());
    text.and_then(|text| read(&text, registry))
        .unwrap_or(RegistryAuth::Anonymous)
}

fn read(text: &[u8], registry: &str) -> Option<RegistryAuth> {
    let file: File = serde_json::from_slice(text).ok()?;
    // docker's own name for its registry is a URL of old.
    let aliases: &[&str] = match registry {
        "docker.io" | "index.docker.io" => &[
            "https://index.docker.io/v1/",
            "docker.io",
            "index.docker.io",
        ],
        _ => &[],
    };
    let host = |key: &str| {
        let key = key
            .strip_prefix("https://")
            .or_else(|| key.strip_prefix("http://"))
            .unwrap_or(key);
        key.split('/').next() == Some(registry)
    };
    let (_, found) = file
        .auths
        .iter()
        .find(|(key, _)| aliases.contains(&key.as_str()) || host(key))?;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(&found.auth)
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(RegistryAuth::Basic(user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_own_password_is_found() {
        let text = br#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"},
            "localhost:5000":{"auth":"eW91OmE6Yg=="},"broken":{"auth":"?"}},"credsStore":"x"}"#;
        let basic =
            |user: &str, password: &str| Some(RegistryAuth::Basic(user.into(), password.into()));
        assert_eq!(read(text, "docker.io"), basic("me", "secret"));
        assert_eq!(read(text, "localhost:5000"), basic("you", "a:b"));
        for none in ["broken", "localhost", "evil/localhost:5000"] {
            assert_eq!(read(text, none), None, "{none}");
        }
        assert_eq!(read(b"{", "x"), None);
    }
}
