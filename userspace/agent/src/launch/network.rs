//! CNI networks a container is put on, by the names of the operator's network lists.
//!
//! The lists are read anew for each run, as other runtimes do; what a run was given is written
//! down by its monitor ([`paddock_runtime::network`]), so that it is undone as it was done.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use paddock_cni::{Attachment, Network, PortMapping, Protocol};
use paddock_runtime::network::{Networks, plugins};
use serde_json::{Map, Value};

use super::Error;
use crate::{
    api::{CreateRequest, NamespaceMode, NetworkDetail},
    container::Container,
    options::Cni,
    shared::Shared,
};

const PORTS: &str = "portMappings";

/// Refuses what could not be, before anything is made, and chooses the ports left to choose.
pub(super) fn check(cni: &Cni, request: &mut CreateRequest) -> Result<(), Error> {
    if request.networks.is_empty() && request.ports.is_empty() {
        return Ok(());
    }
    if request.namespaces.network != NamespaceMode::Private {
        return Err(Error::invalid(
            "-p and --network NAME: need a network namespace of its own, not the host's or another's",
        ));
    }
    if request.networks.is_empty() {
        return Err(Error::invalid(
            "-p: a private network has no way in: add --network NAME, a CNI network whose list has portmap",
        ));
    }
    for (index, name) in request.networks.iter().enumerate() {
        if request.networks.iter().take(index).any(|one| one == name) {
            return Err(Error::invalid(format!("--network {name}: given twice")));
        }
    }
    for (index, port) in request.ports.iter().enumerate() {
        let others = request.ports.get(index + 1..).unwrap_or_default();
        if others.iter().any(|other| port.collides(other)) {
            return Err(Error::invalid(format!(
                "-p: port {}/{} of the host is given twice",
                port.host_port,
                port.protocol.name()
            )));
        }
    }
    let plugins = plugins(&cni.plugin_dirs);
    for attachment in attachments(cni, request, "c")? {
        attachment
            .check(&plugins)
            .map_err(|error| Error::invalid(error.to_string()))?;
    }
    request.ports.iter_mut().try_for_each(choose)
}

/// A port that is free now; the monitor holds it for each run.
fn choose(port: &mut PortMapping) -> Result<(), Error> {
    if port.host_port != 0 {
        return Ok(());
    }
    let address = port.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let bound = match port.protocol {
        Protocol::Udp => UdpSocket::bind((address, 0)).and_then(|socket| socket.local_addr()),
        Protocol::Tcp | Protocol::Sctp => {
            TcpListener::bind((address, 0)).and_then(|socket| socket.local_addr())
        }
    };
    let bound = bound.map_err(|error| {
        Error::invalid(format!(
            "-p: no port of {address} can be had: {}",
            super::request::reason(&error)
        ))
    })?;
    port.host_port = bound.port();
    Ok(())
}

/// What a run is given.
pub(super) fn of(
    cni: &Cni,
    request: &CreateRequest,
    id: &str,
    hostname: &str,
) -> Result<Option<Networks>, Error> {
    if request.networks.is_empty() {
        return Ok(None);
    }
    let domain = request.lookup.domainname.as_ref();
    let full = domain.map_or_else(String::new, |domain| format!("{hostname}.{domain} "));
    let own = request.namespaces.uts == NamespaceMode::Private;
    Ok(Some(Networks {
        attachments: attachments(cni, request, id)?,
        plugin_dirs: cni.plugin_dirs.clone(),
        names: if own { full + hostname } else { String::new() },
        name_servers: request.lookup.servers.is_empty(),
        ports: request.ports.clone(),
    }))
}

/// eth0, eth1…, in the order they were named; ports lead to the first that can have them.
fn attachments(cni: &Cni, request: &CreateRequest, id: &str) -> Result<Vec<Attachment>, Error> {
    let mut attachments = Vec::new();
    for (index, name) in request.networks.iter().enumerate() {
        let network = Network::find(&cni.lists, name).map_err(|error| {
            Error::invalid(format!("--network: {}", crate::chain::chain(&error)))
        })?;
        attachments.push(Attachment {
            network,
            container: id.to_owned(),
            interface: format!("eth{index}"),
            args: String::new(),
            capabilities: Map::new(),
            result: None,
        });
    }
    if !request.ports.is_empty() {
        let mut mappings = request.ports.clone();
        for mapping in &mut mappings {
            // Every address is what portmap takes the absence for.
            mapping.host_address = mapping.host_address.filter(|ip| !ip.is_unspecified());
        }
        let mappings = serde_json::to_value(&mappings).unwrap_or(Value::Null);
        let takes = |one: &&mut Attachment| one.network.has_capability(PORTS);
        let found = attachments.iter_mut().find(takes);
        let first = found.map_or_else(|| Err(no_portmap(request)), Ok)?;
        first.capabilities.insert(PORTS.to_owned(), mappings);
    }
    Ok(attachments)
}

fn no_portmap(request: &CreateRequest) -> Error {
    Error::invalid(format!(
        "-p: no plugin of network {} takes ports: add {{\"type\": \"portmap\", \"capabilities\": {{\"portMappings\": true}}}} to its list",
        request.networks.join(", ")
    ))
}

/// For `inspect`: what its present run was given. Blocking.
pub(crate) fn networks(shared: &Shared, container: &Container) -> Vec<NetworkDetail> {
    let dir = shared.instance.container_dir(&container.id);
    let networks = Networks::read(&dir).unwrap_or_else(|error| {
        Shared::warn(container, "its networks are not known", &error);
        None
    });
    let all = networks.iter().flat_map(|networks| &networks.attachments);
    all.map(|one| NetworkDetail {
        name: one.network.name.clone(),
        interface: one.interface.clone(),
        addresses: one.addresses(),
        mac: one.mac().map(str::to_owned),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::request::tests::request;

    fn refusal(change: impl Fn(&mut CreateRequest)) -> String {
        let dir = std::env::temp_dir().join(format!("paddock-agent-cni-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let plain = r#"{"name":"plain","cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}"#;
        std::fs::write(dir.join("1.conflist"), plain).unwrap();
        let cni = Cni {
            plugin_dirs: vec![dir.join("bin")],
            lists: dir.clone(),
        };
        std::fs::create_dir_all(dir.join("bin")).unwrap();
        std::fs::copy("/bin/true", dir.join("bin/bridge")).unwrap();
        let mut wanted = request();
        change(&mut wanted);
        let checked = check(&cni, &mut wanted);
        std::fs::remove_dir_all(dir).unwrap();
        checked.map_or_else(|error| error.to_string(), |()| "none".to_owned())
    }

    fn port(text: &str) -> PortMapping {
        paddock_cni::parse_port(text).unwrap().remove(0)
    }

    #[test]
    fn what_could_not_be_is_refused_first() {
        assert_eq!(refusal(|_| ()), "none");
        assert_eq!(refusal(|one| one.networks = vec!["plain".into()]), "none");
        let lost = refusal(|one| one.ports = vec![port("80")]);
        assert!(lost.contains("add --network NAME"), "{lost}");
        let hosts = refusal(|one| {
            one.networks = vec!["plain".into()];
            one.namespaces.network = NamespaceMode::Host;
        });
        assert!(hosts.contains("of its own"), "{hosts}");
        let unknown = refusal(|one| one.networks = vec!["bridge".into()]);
        assert!(
            unknown.contains("no network 'bridge' in ") && unknown.ends_with(", which has plain")
        );
        let twice = refusal(|one| one.networks = vec!["plain".into(), "plain".into()]);
        assert!(twice.contains("given twice"), "{twice}");
        let portless = refusal(|one| {
            one.networks = vec!["plain".into()];
            one.ports = vec![port("8080:80")];
        });
        assert!(portless.contains("\"portmap\""), "{portless}");
        let both = refusal(|one| {
            one.networks = vec!["plain".into()];
            one.ports = vec![port("8080:80"), port("127.0.0.1:8080:81")];
        });
        assert!(both.contains("8080/tcp"), "{both}");
    }

    #[test]
    fn a_free_port_is_chosen_once() {
        let mut any = port("80");
        choose(&mut any).unwrap();
        assert_ne!(any.host_port, 0);
        let chosen = any.clone();
        choose(&mut any).unwrap();
        assert_eq!(any, chosen);
    }
}
