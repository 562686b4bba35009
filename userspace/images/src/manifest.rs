//! The JSON of an image: index, manifest, config. Unknown fields are ignored, as OCI demands.
//!
//! Docker's schema 2 and OCI's 1 have the same shape; only media types differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{digest::Digest, error::Error};

/// Docker's limit on a manifest, and more than any config has.
pub(crate) const MOST_JSON: u64 = 4 << 20;
/// Docker's limit, which overlayfs can stack on every kernel.
pub(crate) const MOST_LAYERS: usize = 127;

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Either, told apart by what is in it: a media type may be missing or wrong.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    #[serde(default)]
    pub(crate) config: Option<RunConfig>,
    pub(crate) rootfs: Layers,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Layers {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    pub(crate) diff_ids: Vec<Digest>,
}

/// How the image wants to be run. Go writes `null` for what is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    pub user: Option<String>,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub stop_signal: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
}

pub(crate) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::broken(
            what,
            format!(
                "no such JSON: {}",
                crate::error::shown(error.to_string().as_bytes())
            ),
        )
    })
}

/// This machine, in Go's words.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// The one of several that runs on this machine. One alone needs to say nothing of platforms.
pub(crate) fn choose<'a>(what: &str, all: &[&'a Descriptor]) -> Result<&'a Descriptor, Error> {
    if let [only] = all
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let fits = |entry: &&&Descriptor| {
        entry.platform.as_ref().is_some_and(|platform| {
            platform.os == "linux"
                && platform.architecture == architecture()
                // amd64's v2 and later and arm64's v9 need a processor that may not be here.
                && matches!(platform.variant.as_deref(), None | Some("" | "v1" | "v8"))
        })
    };
    all.iter().find(fits).copied().ok_or_else(|| {
        let mut has: Vec<String> = all
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .map(|platform| {
                crate::error::shown(format!("{}/{}", platform.os, platform.architecture).as_bytes())
            })
            .take(20)
            .collect();
        has.dedup();
        Error::broken(
            what,
            format!(
                "nothing in it for linux/{}: it has {}",
                architecture(),
                if has.is_empty() {
                    "no platform".to_owned()
                } else {
                    has.join(", ")
                }
            ),
        )
    })
}

impl ImageConfig {
    /// Refuses what could not be run here.
    pub(crate) fn check(&self, what: &str) -> Result<(), Error> {
        let diff_ids = self.rootfs.diff_ids.len();
        if diff_ids == 0 || diff_ids > MOST_LAYERS {
            return Err(Error::broken(
                what,
                format!("has {diff_ids} layers: expected 1 to {MOST_LAYERS}"),
            ));
        }
        let known = |value: &str, wanted: &str| value.is_empty() || value == wanted;
        if !known(&self.os, "linux") || !known(&self.architecture, architecture()) {
            return Err(Error::broken(
                what,
                format!(
                    "is for {}, this machine is linux/{}",
                    crate::error::shown(format!("{}/{}", self.os, self.architecture).as_bytes()),
                    architecture()
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(os: &str, architecture: &str, variant: Option<&str>) -> Descriptor {
        Descriptor {
            digest: Digest::of(format!("{os}{architecture}{variant:?}").as_bytes()),
            size: 1,
            platform: Some(Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: variant.map(str::to_owned),
            }),
            annotations: None,
        }
    }

    #[test]
    fn this_machines_platform_is_chosen() {
        let all = [
            entry("unknown", "unknown", None),
            entry("linux", "s390x", None),
            entry("linux", architecture(), Some("v3")),
            entry("linux", architecture(), None),
        ];
        let chosen = choose("x", &all.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(chosen.digest, all[3].digest);
        let error = choose("x", &[&all[0], &all[1]]).unwrap_err().to_string();
        assert!(error.contains("it has linux/s390x"), "{error}");
    }

    #[test]
    fn null_is_nothing() {
        let text = r#"{"config":{"Env":null,"Cmd":["a"],"Labels":null,"Volumes":{}},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config: ImageConfig = parse("x", text.as_bytes()).unwrap();
        assert_eq!(config.config.clone().unwrap().cmd, Some(vec!["a".into()]));
        assert!(
            config
                .check("x")
                .unwrap_err()
                .to_string()
                .contains("0 layers")
        );
        let deep = "[".repeat(100_000);
        assert!(parse::<ImageConfig>("x", deep.as_bytes()).is_err());
    }
}
