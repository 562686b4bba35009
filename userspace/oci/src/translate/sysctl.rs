//! `linux.sysctl`: only what belongs to a namespace of the container's own.
//!
//! Everything else would change the host: namespaces(7), ipc_namespaces(7), and runc's list.

use oci_spec::runtime::Linux;
use paddock_runtime::spec::Namespaces;

use crate::{config::shorten, error::Error};

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub(super) fn translate(
    linux: &Linux,
    namespaces: &Namespaces,
    domainname: Option<&str>,
) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    for (name, value) in linux.sysctl().iter().flatten() {
        check(name, namespaces)
            .map_err(|why| Error::config(format!("linux.sysctl {:?}: {why}", shorten(name))))?;
        let other = domainname.is_some_and(|domainname| domainname != value);
        if name.replace('/', ".") == "kernel.domainname" && other {
            return Err(Error::config(
                "linux.sysctl \"kernel.domainname\": domainname says something else",
            ));
        }
        found.push((name.clone(), value.clone()));
    }
    found.sort();
    Ok(found)
}

fn check(name: &str, namespaces: &Namespaces) -> Result<(), &'static str> {
    let dotted = name.replace('/', ".");
    if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        return own(
            !namespaces.ipc.is_host(),
            "needs an IPC namespace of its own",
        );
    }
    if dotted.starts_with("net.") {
        return own(
            !namespaces.net.is_host(),
            "needs a network namespace of its own",
        );
    }
    if dotted.starts_with("user.") {
        return own(
            !namespaces.user.is_host(),
            "needs a user namespace of its own",
        );
    }
    match dotted.as_str() {
        "kernel.hostname" => Err("is what hostname is for"),
        "kernel.domainname" => own(
            !namespaces.uts.is_host(),
            "needs a UTS namespace of its own",
        ),
        _ => Err("belongs to no namespace: it would be the host's"),
    }
}

fn own(is: bool, why: &'static str) -> Result<(), &'static str> {
    if is { Ok(()) } else { Err(why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paddock_runtime::{defaults, spec::Namespace};

    #[test]
    fn nothing_of_the_hosts_is_set() {
        let own = defaults::namespaces();
        for name in [
            "net.ipv4.ip_forward",
            "net/core/somaxconn",
            "kernel.msgmax",
            "fs.mqueue.x",
        ] {
            assert!(check(name, &own).is_ok(), "{name}");
        }
        let shared = Namespaces {
            net: Namespace::Host,
            ipc: Namespace::Host,
            ..own.clone()
        };
        for name in ["net.ipv4.ip_forward", "kernel.msgmax", "fs.mqueue.x"] {
            assert!(check(name, &shared).is_err(), "{name}");
        }
        for name in [
            "kernel.core_pattern",
            "vm.swappiness",
            "kernel.hostname",
            "",
            "netx",
        ] {
            assert!(check(name, &own).is_err(), "{name}");
        }
    }
}
