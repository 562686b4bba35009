//! Network lists: `*.conflist` of a directory, found by the network's name.
//!
//! The files of a directory are read in the order of their names, and the first of a name
//! counts. One that cannot be read hides no other.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, error::line};

/// The versions in which plugins are chained and speak the form of result read here.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// More is no network list.
const LARGEST: u64 = 1 << 20;

/// A network and the plugins that make it, in order of ADD.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Network {
    pub name: String,
    pub version: String,
    pub plugins: Vec<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conflist {
    name: String,
    cni_version: Option<String>,
    #[serde(default)]
    cni_versions: Vec<String>,
    plugins: Vec<Map<String, Value>>,
}

impl Network {
    /// The network `name` among the lists of `dir`.
    pub fn find(dir: &Path, name: &str) -> Result<Self, Error> {
        let mut found = Vec::new();
        for path in lists(dir)? {
            match Self::read(&path) {
                Ok(network) if network.name == name => return Ok(network),
                Ok(network) => found.push(network.name),
                Err(error) => found.push(format!("({error})")),
            }
        }
        if found.is_empty() {
            found.push("no network list (*.conflist)".to_owned());
        }
        Err(Error::NotFound {
            name: line(name),
            dir: dir.to_owned(),
            found: found.join(", "),
        })
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text))
            .map_err(Error::io("read", path))?;
        let parsed = if text.len() as u64 > LARGEST {
            Err(format!("more than the {LARGEST} bytes a list may have"))
        } else {
            Self::parse(&text)
        };
        parsed.map_err(|reason| Error::Conflist {
            path: path.to_owned(),
            reason,
        })
    }

    /// Reads one list; else says what is wrong with it.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let list: Conflist = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if !is_name(&list.name) {
            return Err(format!("'{}' is no name of a network", line(&list.name)));
        }
        let offered = || list.cni_version.iter().chain(&list.cni_versions);
        let version = VERSIONS
            .iter()
            .rev()
            .find(|version| offered().any(|one| one == *version))
            .ok_or_else(|| format!("its cniVersion is none of {}", VERSIONS.join(", ")))?;
        if list.plugins.is_empty() {
            return Err("it has no plugins".to_owned());
        }
        for plugin in &list.plugins {
            let kind = plugin.get("type").and_then(Value::as_str).unwrap_or("");
            if kind.is_empty() || kind.starts_with('.') || kind.contains(['/', '\0']) {
                return Err(format!("'{}' is no type of a plugin", line(kind)));
            }
        }
        Ok(Self {
            name: list.name,
            version: (*version).to_owned(),
            plugins: list.plugins,
        })
    }

    /// Whether any plugin takes `capability`.
    #[must_use]
    pub fn has_capability(&self, capability: &str) -> bool {
        let takes = |plugin: &Map<String, Value>| takes(plugin, capability);
        self.plugins.iter().any(takes)
    }
}

pub(crate) fn takes(plugin: &Map<String, Value>, capability: &str) -> bool {
    let value = plugin
        .get("capabilities")
        .and_then(|all| all.get(capability));
    value == Some(&Value::Bool(true))
}

/// The specification's form of network names and container ids.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || "_.-".contains(char))
}

fn lists(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    let entries = match fs::read_dir(dir) {
        // Nobody has made a network on this host.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(paths),
        entries => entries.map_err(Error::io("read", dir))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io("read", dir))?.path();
        // A FIFO would never end.
        if path.extension().is_some_and(|end| end == "conflist") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Dir;

    #[test]
    fn the_highest_version_of_a_list_counts() {
        let text = br#"{"name":"a","cniVersion":"0.4.0","cniVersions":["1.0.0","9.0.0"],
            "plugins":[{"type":"bridge","capabilities":{"portMappings":true,"x":false}}]}"#;
        let network = Network::parse(text).expect("a list");
        assert_eq!(network.version, "1.0.0");
        assert!(network.has_capability("portMappings"));
        assert!(!network.has_capability("x"));
    }

    #[test]
    fn bad_lists_are_refused() {
        for (text, why) in [
            (
                r#"{"name":"../a","cniVersion":"1.0.0","plugins":[{"type":"b"}]}"#,
                "no name",
            ),
            (
                r#"{"name":"a","cniVersion":"0.2.0","plugins":[{"type":"b"}]}"#,
                "cniVersion",
            ),
            (
                r#"{"name":"a","cniVersion":"1.0.0","plugins":[]}"#,
                "no plugins",
            ),
            (
                r#"{"name":"a","cniVersion":"1.0.0","plugins":[{"type":"../b"}]}"#,
                "no type",
            ),
            (
                r#"{"name":"a","cniVersion":"1.0.0","plugins":[{}]}"#,
                "no type",
            ),
            ("{", "EOF"),
        ] {
            let refusal = Network::parse(text.as_bytes()).expect_err(text);
            assert!(refusal.contains(why), "{refusal}");
        }
    }

    #[test]
    fn a_broken_list_hides_no_other() {
        let dir = Dir::new("lists");
        dir.write("1.conflist", "garbage");
        dir.write(
            "2.conflist",
            r#"{"name":"a","cniVersion":"1.0.0","plugins":[{"type":"b"}]}"#,
        );
        assert_eq!(Network::find(dir.path(), "a").expect("a").name, "a");
        let refusal = Network::find(dir.path(), "z")
            .expect_err("none")
            .to_string();
        assert!(refusal.contains("1.conflist: expected value"), "{refusal}");
        assert!(refusal.ends_with(", a"), "{refusal}");
        let refusal = Network::find(&dir.path().join("none"), "z").expect_err("none");
        let text = refusal.to_string();
        assert!(
            text.ends_with("which has no network list (*.conflist)"),
            "{text}"
        );
    }
}
