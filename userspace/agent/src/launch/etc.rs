//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, docker's contents.
//!
//! They lie in the container's directory and are bound read-only: what a container could write
//! there it could fill the host's /run with. Nothing is made in a root file system for them:
//! where it has no such file, there is none.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use paddock_runtime::{
    defaults,
    spec::{IdMaps, Mount, MountSource, Namespaces},
};

use super::Error;
use crate::api::{CreateRequest, Lookup, NamespaceMode};

const HOSTS: &str = "/etc/hosts";
const HOSTNAME: &str = "/etc/hostname";
const RESOLV_CONF: &str = "/etc/resolv.conf";

const LOCAL: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// Refuses what would break a line of these files, or what could not be.
pub(super) fn check(request: &CreateRequest) -> Result<(), Error> {
    let Lookup {
        domainname,
        hosts,
        servers: _,
        search,
        options,
    } = &request.lookup;
    let words = hosts
        .iter()
        .map(|(name, _)| name)
        .chain(search)
        .chain(options);
    for word in words.chain(domainname) {
        let broken = |c: char| c.is_whitespace() || c.is_control() || c == '#';
        if word.is_empty() || word.len() > 253 || word.contains(broken) {
            return Err(Error::invalid(format!(
                "'{}': expected a name without spaces, at most 253 characters",
                word.escape_default().take(80).collect::<String>()
            )));
        }
    }
    if domainname.as_ref().is_some_and(|name| name.len() > 64) {
        return Err(Error::invalid(
            "--domainname: expected at most 64 characters",
        ));
    }
    if domainname.is_some() && request.namespaces.uts != NamespaceMode::Private {
        return Err(Error::invalid(
            "--domainname: needs a UTS namespace of its own (--uts private)",
        ));
    }
    if matches!(request.namespaces.network, NamespaceMode::Container(_))
        && request.lookup.is_asked()
    {
        return Err(Error::invalid(
            "--add-host and --dns belong to the container whose network is joined",
        ));
    }
    Ok(())
}

/// Writes what this container gets, and says how it is mounted.
pub(super) fn make(
    dir: &Path,
    request: &CreateRequest,
    namespaces: &Namespaces,
    hostname: &str,
    maps: &IdMaps,
) -> Result<Vec<Mount>, Error> {
    let lookup = &request.lookup;
    let mut made = Vec::new();
    let mut add = |target: &str, text: String| -> Result<(), Error> {
        let mounted = |path: &PathBuf| path == Path::new(target);
        if request.volumes.iter().any(|volume| mounted(&volume.target)) {
            return Ok(());
        }
        let path = dir.join(target.trim_start_matches("/etc/"));
        write(&path, &text, maps).map_err(Error::io("write", &path))?;
        made.push(mount(target, path));
        Ok(())
    };
    if namespaces.uts.is_new() {
        add(HOSTNAME, format!("{hostname}\n"))?;
    }
    if namespaces.net.is_new() {
        // On a network its own line has its address there, known once it has one.
        let own = (namespaces.uts.is_new() && request.networks.is_empty()).then_some(hostname);
        add(HOSTS, hosts(LOCAL, own, lookup))?;
        add(RESOLV_CONF, resolv_conf(&host(RESOLV_CONF), lookup, true))?;
    } else if namespaces.net.is_host() && lookup.is_asked() {
        // The host's network needs what the host knows, and that as well.
        add(HOSTS, hosts(&host(HOSTS), None, lookup))?;
        add(RESOLV_CONF, resolv_conf(&host(RESOLV_CONF), lookup, false))?;
    }
    Ok(made)
}

fn mount(target: &str, path: PathBuf) -> Mount {
    let source = MountSource::Bind {
        path,
        recursive: false,
    };
    let set = defaults::READ_ONLY_MOUNT | defaults::SAFE_MOUNT;
    Mount {
        follow: true,
        only_there: true,
        ..Mount::fixed(target, source, set)
    }
}

/// World-readable in a directory that is root's alone.
fn write(path: &Path, text: &str, maps: &IdMaps) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    chown(path, maps.host_uid(0), maps.host_gid(0))
}

/// A host without the file has nothing to say.
fn host(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn hosts(base: &str, own: Option<&str>, lookup: &Lookup) -> String {
    let mut lines: Vec<_> = base.lines().map(str::to_owned).collect();
    if let Some(own) = own {
        let full = lookup.domainname.as_ref();
        let full = full.map_or_else(String::new, |domain| format!("{own}.{domain} "));
        lines.push(format!("127.0.1.1\t{full}{own}"));
    }
    let added = lookup.hosts.iter();
    lines.extend(added.map(|(name, address)| format!("{address}\t{name}")));
    text(&lines)
}

/// The host's with the flags in place of what they name. In a `private` network the host's own
/// loopback does not answer.
fn resolv_conf(base: &str, lookup: &Lookup, private: bool) -> String {
    let kept = |line: &&str| {
        let mut words = line.split_whitespace();
        let (keyword, value) = (words.next(), words.next());
        match keyword {
            Some("nameserver") => {
                let address = value.and_then(|value| value.parse::<IpAddr>().ok());
                lookup.servers.is_empty() && !(private && address.is_none_or(|ip| ip.is_loopback()))
            }
            Some("search" | "domain") => lookup.search.is_empty(),
            Some("options") => lookup.options.is_empty(),
            _ => false,
        }
    };
    let host = base.lines().map(str::trim).filter(kept);
    let mut lines: Vec<_> = host.map(str::to_owned).collect();
    let servers = lookup.servers.iter();
    lines.extend(servers.map(|server| format!("nameserver {server}")));
    // Docker's word for no search domain at all.
    let search = lookup.search.iter().filter(|name| *name != ".");
    let search: Vec<_> = search.map(String::as_str).collect();
    if !search.is_empty() {
        lines.push(format!("search {}", search.join(" ")));
    }
    if !lookup.options.is_empty() {
        lines.push(format!("options {}", lookup.options.join(" ")));
    }
    text(&lines)
}

fn text(lines: &[String]) -> String {
    lines
        .iter()
        .flat_map(|line| [line.as_str(), "\n"])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_knows_itself_and_who_was_added() {
        let lookup = Lookup {
            domainname: Some("example.org".into()),
            hosts: vec![("db".into(), "10.0.0.7".parse().unwrap())],
            ..Lookup::default()
        };
        let text = hosts(LOCAL, Some("web"), &lookup);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(
            text.ends_with("127.0.1.1\tweb.example.org web\n10.0.0.7\tdb\n"),
            "{text}"
        );
    }

    #[test]
    fn flags_replace_what_they_name() {
        let base = "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch a b\noptions x\n";
        let none = Lookup::default();
        assert_eq!(
            resolv_conf(base, &none, true),
            "nameserver 10.0.0.1\nsearch a b\noptions x\n"
        );
        assert!(resolv_conf(base, &none, false).starts_with("nameserver 127.0.0.53\n"));
        let lookup = Lookup {
            servers: vec!["9.9.9.9".parse().unwrap()],
            search: vec![".".into()],
            options: vec!["ndots:2".into()],
            ..none
        };
        assert_eq!(
            resolv_conf(base, &lookup, true),
            "nameserver 9.9.9.9\noptions ndots:2\n"
        );
    }
}
