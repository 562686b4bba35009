//! A container on CNI networks: put there before its program runs, taken off after its last
//! process.
//!
//! Its namespace is the one that the clone made, so that it belongs to the container's user
//! namespace: made by others, root inside could not even bind port 80. It is mounted on
//! `netns` in the container's directory, where plugins find it when no process is in it any
//! more. `networks.json` says what DEL needs, from before the first ADD until after the last
//! DEL. The monitor does both; [`leave`] is also for whoever finds the two after a monitor that
//! was killed.
#![forbid(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
    },
};
use paddock_cni::Plugins;
pub use paddock_cni::{Attachment, PortMapping, Protocol};
use serde::{Deserialize, Serialize};

use crate::{
    disk::write_record,
    plan::{Failure, build::io_failure},
};

const RECORD: &str = "networks.json";
const NAMESPACE: &str = "netns";
/// Step of a failure whose path is a whole line that tells why.
pub(crate) const STEP: &str = "network";
const OWN_FILE: &str = "files of networks";
/// A DHCP lease takes seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// All of one container's; also the form of `networks.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networks {
    pub attachments: Vec<Attachment>,
    /// Where plugins are; the first directory that has one counts.
    pub plugin_dirs: Vec<PathBuf>,
    /// The container's names in its /etc/hosts, at its addresses there.
    pub names: String,
    /// Its /etc/resolv.conf has the networks' name servers, where they have some.
    pub name_servers: bool,
    /// Nobody else on the host gets these while it runs.
    pub ports: Vec<PortMapping>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Cni(#[from] paddock_cni::Error),
    #[error("{op} {path}", path = path.display())]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What is held as long as the container runs.
#[derive(Debug, Default)]
pub(crate) struct Held(#[expect(dead_code, reason = "closed with it")] Vec<OwnedFd>);

impl Networks {
    /// What is on disk; `None` is a container on none.
    pub fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(RECORD);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", path)(error)),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| failed("read", path)(error.into()))
    }

    fn write(&self, dir: &Path) -> Result<(), Failure> {
        write_record(dir, RECORD, self)
            .map_err(|source| io_failure(OWN_FILE, dir.join(RECORD), &source))
    }
}

/// Puts the network namespace of `pid` on all of them. Where one fails, [`leave`] is the
/// caller's.
pub(crate) fn join(
    dir: &Path,
    mut networks: Networks,
    pid: i32,
) -> Result<(Networks, Held), Failure> {
    let held = networks
        .ports
        .iter()
        .filter_map(hold)
        .collect::<Result<_, _>>()?;
    networks.write(dir)?;
    let namespace = dir.join(NAMESPACE);
    pin(&namespace, pid)?;
    let plugins = plugins(&networks.plugin_dirs);
    for index in 0..networks.attachments.len() {
        if let Some(attachment) = networks.attachments.get_mut(index) {
            attachment
                .add(&plugins, &namespace)
                .map_err(|error| Failure::new(STEP, chain(&error), Errno::EIO))?;
        }
        networks.write(dir)?;
    }
    tell(dir, &networks)?;
    Ok((networks, Held(held)))
}

/// Takes the container in `dir` off its networks; nothing to do is no error. What one plugin
/// fails at is told last, and kept on disk for another time.
pub fn leave(dir: &Path) -> Result<(), Error> {
    let namespace = dir.join(NAMESPACE);
    let mut first = Ok(());
    if let Some(mut networks) = Networks::read(dir)? {
        let plugins = plugins(&networks.plugin_dirs);
        let path = namespace.exists().then_some(&*namespace);
        let mut left = Vec::new();
        while let Some(attachment) = networks.attachments.pop() {
            if let Err(error) = attachment.delete(&plugins, path) {
                first = first.and(Err(error.into()));
                left.insert(0, attachment);
            }
        }
        if left.is_empty() {
            let record = dir.join(RECORD);
            fs::remove_file(&record).map_err(failed("remove", record))?;
        }
    }
    // Not mounted, or not there.
    let _ = umount2(&namespace, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    match fs::remove_file(&namespace) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            first.and(Err(failed("remove", namespace)(error)))
        }
        _ => first,
    }
}

pub fn plugins(dirs: &[PathBuf]) -> Plugins {
    Plugins {
        dirs: dirs.to_vec(),
        timeout: PATIENCE,
    }
}

fn failed(op: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { op, path, source }
}

fn pin(at: &Path, pid: i32) -> Result<(), Failure> {
    File::create(at).map_err(|source| io_failure(OWN_FILE, at, &source))?;
    let namespace = format!("/proc/{pid}/ns/net");
    mount(
        Some(namespace.as_str()),
        at,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(|errno| Failure::new("mount network namespace", at, errno))
}

/// Bound and never listened on: packets take the plugins' way, and who else wants the port is
/// told that it is taken. SCTP may be a module that nobody needs here.
fn hold(port: &PortMapping) -> Option<Result<OwnedFd, Failure>> {
    let kind = match port.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
        Protocol::Sctp => return None,
    };
    let at = |address: IpAddr| bound(kind, SocketAddr::new(address, port.host_port));
    let held = match port.host_address {
        Some(address) => at(address),
        None => match at(Ipv6Addr::UNSPECIFIED.into()) {
            // A host without IPv6.
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => at(Ipv4Addr::UNSPECIFIED.into()),
            held => held,
        },
    };
    Some(held.map_err(|errno| {
        let address = port.host_address.map(|address| format!("{address} "));
        let name = format!(
            "{}{}/{}",
            address.unwrap_or_default(),
            port.host_port,
            port.protocol.name()
        );
        Failure::new("host port", name, errno)
    }))
}

fn bound(kind: SockType, address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if family == AddressFamily::Inet6 {
        // `::` takes IPv4's port, too.
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

/// The container's addresses and the networks' name servers, in its own /etc/hosts and
/// /etc/resolv.conf, where it has them.
fn tell(dir: &Path, networks: &Networks) -> Result<(), Failure> {
    let all = networks.attachments.iter();
    let addresses = all.clone().flat_map(Attachment::addresses);
    let lines = addresses
        .filter(|_| !networks.names.is_empty())
        .fold(String::new(), |lines, address| {
            lines + &format!("{address}\t{}\n", networks.names)
        });
    change(&dir.join("hosts"), |text| format!("{text}{lines}"))?;
    let servers: Vec<_> = all.flat_map(Attachment::name_servers).collect();
    if !networks.name_servers || servers.is_empty() {
        return Ok(());
    }
    change(&dir.join("resolv.conf"), |text| {
        let others = text.lines().filter(|line| !line.starts_with("nameserver"));
        let servers = servers.iter().map(|server| format!("nameserver {server}"));
        servers
            .chain(others.map(str::to_owned))
            .map(|line| line + "\n")
            .collect()
    })
}

/// In place: what is bound into the container is the file, not its name.
fn change(path: &Path, how: impl FnOnce(&str) -> String) -> Result<(), Failure> {
    let changed = match fs::read_to_string(path) {
        Ok(text) => fs::write(path, how(&text)),
        // A volume of the user's is there instead.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
    };
    changed.map_err(|source| io_failure(OWN_FILE, path, &source))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(text: &str) -> PortMapping {
        paddock_cni::parse_port(text).unwrap().remove(0)
    }

    #[test]
    fn a_held_port_is_nobody_elses() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let first = hold(&mapping(&format!("127.0.0.1:{port}:80")));
        first.unwrap().map(drop).unwrap();
        let _first = hold(&mapping(&format!("{port}:80"))).unwrap().unwrap();
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_err());
        let second = hold(&mapping(&format!("{port}:80"))).unwrap().unwrap_err();
        assert_eq!(second.errno, Errno::EADDRINUSE);
        assert!(hold(&mapping(&format!("{port}:80/sctp"))).is_none());
        let _udp = hold(&mapping(&format!("{port}:80/udp"))).unwrap().unwrap();
    }

    #[test]
    fn addresses_and_servers_go_to_the_containers_files() {
        let dir = std::env::temp_dir().join(format!("paddock-runtime-cni-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let result = serde_json::json!({
            "ips": [{"address": "10.1.2.3/24"}],
            "dns": {"nameservers": ["10.1.2.1"]},
        });
        let mut networks = Networks {
            attachments: vec![Attachment {
                network: serde_json::from_value(serde_json::json!({
                    "name": "n", "version": "1.0.0", "plugins": [],
                }))
                .unwrap(),
                container: "c".into(),
                interface: "eth0".into(),
                args: String::new(),
                capabilities: serde_json::Map::new(),
                result: result.as_object().cloned(),
            }],
            plugin_dirs: vec![],
            names: "web".into(),
            name_servers: false,
            ports: vec![],
        };
        // Where they are volumes of the user's there is nothing to change.
        tell(&dir, &networks).unwrap();
        assert!(!dir.join("hosts").exists());
        fs::write(dir.join("hosts"), "127.0.0.1\tlocalhost\n").unwrap();
        fs::write(dir.join("resolv.conf"), "nameserver 9.9.9.9\nsearch a\n").unwrap();
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        tell(&dir, &networks).unwrap();
        assert_eq!(read("hosts"), "127.0.0.1\tlocalhost\n10.1.2.3\tweb\n");
        assert_eq!(read("resolv.conf"), "nameserver 9.9.9.9\nsearch a\n");
        networks.name_servers = true;
        tell(&dir, &networks).unwrap();
        assert_eq!(read("resolv.conf"), "nameserver 10.1.2.1\nsearch a\n");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_to_leave_is_no_error() {
        leave(Path::new("/nowhere-at-all")).unwrap();
    }
}
