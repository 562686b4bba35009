//! Ports of the host that lead to a container's: docker's notation, the form of `portMappings`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
};

use serde::{Deserialize, Serialize};

/// More mappings than that are a mistake, not a range.
const MOST: usize = 1024;

/// One port, as the plugin `portmap` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// 0 is any free one, chosen before a plugin sees it.
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
    /// Absent: every address of the host.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_address: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// As docker shows it: `0.0.0.0:8080->80/tcp`.
impl fmt::Display for PortMapping {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self
            .host_address
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let host = SocketAddr::new(address, self.host_port);
        let protocol = self.protocol.name();
        write!(out, "{host}->{}/{protocol}", self.container_port)
    }
}

impl PortMapping {
    /// Whether no two programs could have both.
    #[must_use]
    pub fn collides(&self, other: &Self) -> bool {
        let addresses = match (self.host_address, other.host_address) {
            (Some(one), Some(another)) => one == another,
            _ => true,
        };
        addresses
            && self.host_port != 0
            && self.host_port == other.host_port
            && self.protocol == other.protocol
    }
}

/// `[ADDRESS:][HOST:]CONTAINER[/PROTOCOL]`, each port a number or a range; IPv6 in brackets.
pub fn parse(text: &str) -> Result<Vec<PortMapping>, String> {
    const EXPECTED: &str = "expected [ADDRESS:][HOSTPORT:]PORT[/tcp|udp|sctp], such as 8080:80";
    let (ports, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.split('/').next().unwrap_or(text), Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((ports, "sctp")) => (ports, Protocol::Sctp),
        Some(_) => return Err(EXPECTED.to_owned()),
    };
    let (address, ports) = match ports.strip_prefix('[') {
        Some(rest) => {
            let (address, ports) = rest.split_once("]:").ok_or(EXPECTED)?;
            (Some(address), ports)
        }
        None => match ports.split(':').count() {
            3 => ports
                .split_once(':')
                .map(|(address, ports)| (Some(address), ports))
                .ok_or(EXPECTED)?,
            _ => (None, ports),
        },
    };
    let host_address = address
        .filter(|address| !address.is_empty())
        .map(|address| {
            address
                .parse()
                .map_err(|_| format!("'{address}' is no address: {EXPECTED}"))
        })
        .transpose()?;
    let (host, container) = match ports.split_once(':') {
        Some((host, container)) => (Some(host).filter(|host| !host.is_empty()), container),
        None => (None, ports),
    };
    let container = range(container).ok_or(EXPECTED)?;
    let host = host.map(|host| range(host).ok_or(EXPECTED)).transpose()?;
    let count = container.len();
    if host.as_ref().is_some_and(|host| host.len() != count) {
        return Err("the two ranges of ports are not of one length".to_owned());
    }
    if count > MOST {
        return Err(format!("more than {MOST} ports"));
    }
    let first = host.map(|host| *host.start());
    Ok(container
        .clone()
        .map(|port| PortMapping {
            host_port: first.map_or(0, |first| first + (port - container.start())),
            container_port: port,
            protocol,
            host_address,
        })
        .collect())
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        Ok(parse(text)?
            .iter()
            .map(|one| {
                let address = one.host_address.map(|ip| format!("{ip} "));
                format!(
                    "{}{}>{}/{}",
                    address.unwrap_or_default(),
                    one.host_port,
                    one.container_port,
                    one.protocol.name()
                )
            })
            .collect())
    }

    #[test]
    fn dockers_notations() {
        for (text, one) in [
            ("80", "0>80/tcp"),
            ("8080:80", "8080>80/tcp"),
            ("8080:80/tcp", "8080>80/tcp"),
            ("53:53/udp", "53>53/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080>80/tcp"),
            ("127.0.0.1::80", "127.0.0.1 0>80/tcp"),
            ("[::1]:8080:80/sctp", "::1 8080>80/sctp"),
        ] {
            assert_eq!(shown(text).unwrap(), [one], "{text}");
        }
        assert_eq!(
            shown("8000-8001:80-81").unwrap(),
            ["8000>80/tcp", "8001>81/tcp"]
        );
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in [
            "",
            "0",
            "65536",
            "+80",
            "80:",
            "a:80",
            "80/icmp",
            "80/",
            "8000-8001:80",
            "9-8",
            "1.2.3:8:8",
            "::1:80:80",
            "[::1]80",
            "1-2000",
            "80/tcp/udp",
        ] {
            assert!(parse(text).is_err(), "{text}: {:?}", shown(text));
        }
    }

    #[test]
    fn any_address_collides_with_each() {
        let one = |text| parse(text).unwrap().remove(0);
        assert!(one("80:1").collides(&one("127.0.0.1:80:2")));
        assert!(!one("127.0.0.2:80:1").collides(&one("127.0.0.1:80:2")));
        assert!(!one("80:1").collides(&one("80:1/udp")));
        assert!(!one("1").collides(&one("1")));
    }

    #[test]
    fn plugins_are_told_in_their_form() {
        let json = serde_json::to_string(&parse("127.0.0.1:8080:80/udp").unwrap()).unwrap();
        assert_eq!(
            json,
            r#"[{"hostPort":8080,"containerPort":80,"protocol":"udp","hostIP":"127.0.0.1"}]"#
        );
    }
}
