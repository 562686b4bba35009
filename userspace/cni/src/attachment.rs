//! One container on one network: the chain of ADD, its result, the chain of DEL.

use std::{net::IpAddr, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    Error, Network, Plugins,
    network::{is_name, takes},
};

/// What DEL needs of its ADD; kept on disk by the caller from before ADD until after DEL.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Attachment {
    pub network: Network,
    pub container: String,
    /// The interface's name inside.
    pub interface: String,
    /// `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.
    pub args: String,
    /// By capability: `portMappings`.
    pub capabilities: Map<String, Value>,
    /// The last plugin's, once all of ADD succeeded.
    pub result: Option<Map<String, Value>>,
}

impl Attachment {
    /// Refuses what plugins could misread, capabilities that no plugin takes, and plugins that
    /// are not there.
    pub fn check(&self, plugins: &Plugins) -> Result<(), Error> {
        let parameter = |what, value: &str| Error::Parameter {
            what,
            value: crate::error::line(value),
        };
        if !is_name(&self.container) {
            return Err(parameter("container id", &self.container));
        }
        let name = self.interface.as_str();
        let bad = |char: char| char == '/' || char == ':' || char == '\0' || char.is_whitespace();
        if matches!(name, "" | "." | "..") || name.len() > 15 || name.contains(bad) {
            return Err(parameter("interface name", name));
        }
        if self.args.contains('\0') {
            return Err(parameter("argument", &self.args));
        }
        let missing = |capability: &&String| !self.network.has_capability(capability);
        if let Some(capability) = self.capabilities.keys().find(missing) {
            return Err(Error::NoCapability {
                network: self.network.name.clone(),
                capability: capability.clone(),
            });
        }
        let all = self.network.plugins.iter();
        all.map(kind)
            .try_for_each(|name| plugins.locate(name).map(drop))
    }

    /// Adds the container in `netns`. What fails is undone by DEL of the whole chain.
    pub fn add(&mut self, plugins: &Plugins, netns: &Path) -> Result<(), Error> {
        self.check(plugins)?;
        self.result = None;
        match self.chain(plugins, netns) {
            Ok(result) => {
                self.result = result;
                Ok(())
            }
            Err(error) => {
                // The first error is the one to mend.
                let _ = self.delete(plugins, Some(netns));
                Err(error)
            }
        }
    }

    fn chain(&self, plugins: &Plugins, netns: &Path) -> Result<Option<Map<String, Value>>, Error> {
        let mut last = None;
        for plugin in &self.network.plugins {
            let name = kind(plugin);
            let config = self.config(plugin, last.as_ref());
            let printed = plugins.run(name, "ADD", &self.environment(Some(netns)), &config)?;
            let broken = |reason: String| Error::Broken {
                plugin: name.to_owned(),
                command: "ADD",
                reason,
            };
            let mut result: Map<String, Value> = serde_json::from_slice(&printed)
                .map_err(|error| broken(format!("its result is no JSON object: {error}")))?;
            let version = result
                .entry("cniVersion")
                .or_insert_with(|| json!(self.network.version));
            if version.as_str() != Some(&self.network.version) {
                let asked = &self.network.version;
                return Err(broken(format!("its result is not of version {asked}")));
            }
            last = Some(result);
        }
        Ok(last)
    }

    /// Takes the container off; `netns` None once it is gone. Any number of times. One plugin's
    /// error keeps no other from its part; the first is told.
    pub fn delete(&self, plugins: &Plugins, netns: Option<&Path>) -> Result<(), Error> {
        // Results came to DEL with 0.4.0.
        let told = !self.network.version.starts_with("0.3.");
        let result = self.result.as_ref().filter(|_| told);
        let mut first = Ok(());
        for plugin in self.network.plugins.iter().rev() {
            let config = self.config(plugin, result);
            let done = plugins.run(kind(plugin), "DEL", &self.environment(netns), &config);
            first = first.and(done.map(drop));
        }
        first
    }

    /// The container's, by the result.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let address = |ip: &Value| ip.get("address")?.as_str()?.split('/').next()?.parse().ok();
        list(self.result.as_ref(), "ips")
            .iter()
            .filter_map(address)
            .collect()
    }

    /// Name servers that the plugins know of.
    #[must_use]
    pub fn name_servers(&self) -> Vec<IpAddr> {
        let server = |server: &Value| server.as_str()?.parse().ok();
        let dns = self.result.as_ref().and_then(|result| result.get("dns"));
        let servers = list(dns.and_then(Value::as_object), "nameservers");
        servers.iter().filter_map(server).collect()
    }

    /// Of the interface inside.
    #[must_use]
    pub fn mac(&self) -> Option<&str> {
        let inside = |one: &&Value| {
            let text = |key| one.get(key).and_then(Value::as_str).unwrap_or_default();
            text("name") == self.interface && !text("sandbox").is_empty()
        };
        let interfaces = list(self.result.as_ref(), "interfaces");
        interfaces.iter().find(inside)?.get("mac")?.as_str()
    }

    fn environment(&self, netns: Option<&Path>) -> [(&'static str, String); 4] {
        let netns = netns.map(|path| path.to_string_lossy().into_owned());
        [
            ("CNI_CONTAINERID", self.container.clone()),
            ("CNI_NETNS", netns.unwrap_or_default()),
            ("CNI_IFNAME", self.interface.clone()),
            ("CNI_ARGS", self.args.clone()),
        ]
    }

    /// The specification's "deriving execution configuration from plugin configuration".
    fn config(
        &self,
        plugin: &Map<String, Value>,
        previous: Option<&Map<String, Value>>,
    ) -> Map<String, Value> {
        let mut config = plugin.clone();
        for reserved in ["capabilities", "runtimeConfig", "prevResult"] {
            config.remove(reserved);
        }
        config.retain(|key, _| !key.starts_with("cni.dev/"));
        config.insert("name".to_owned(), json!(self.network.name));
        config.insert("cniVersion".to_owned(), json!(self.network.version));
        let mut runtime = self.capabilities.clone();
        runtime.retain(|capability, _| takes(plugin, capability));
        if !runtime.is_empty() {
            config.insert("runtimeConfig".to_owned(), Value::Object(runtime));
        }
        if let Some(previous) = previous {
            config.insert("prevResult".to_owned(), Value::Object(previous.clone()));
        }
        config
    }
}

fn list<'a>(object: Option<&'a Map<String, Value>>, key: &str) -> &'a [Value] {
    let list = object.and_then(|object| object.get(key)?.as_array());
    list.map_or(&[], Vec::as_slice)
}

fn kind(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
#[path = "attachment_tests.rs"]
mod tests;
