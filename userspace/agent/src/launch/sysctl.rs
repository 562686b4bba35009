//! Which kernel parameters a container may have of its own: those of its namespaces, as docker allows.

use super::Error;
use crate::api::{NamespaceMode, NamespaceModes};

/// Those of System V IPC, all else of `kernel.` is the host's.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

pub(super) fn check(name: &str, value: &str, namespaces: &NamespaceModes) -> Result<(), Error> {
    let shown: String = name
        .chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect();
    let refused = |why: &str| Err(Error::invalid(format!("--sysctl {shown}: {why}")));
    let dotted = name.replace('/', ".");
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    if !name.chars().all(plain) || dotted.split('.').any(str::is_empty) {
        return refused("no parameter's name");
    }
    if value.contains(|c: char| c.is_control() && c != '\t') {
        return refused("its value has a control character");
    }
    let (namespace, mode, flag) = if dotted.starts_with("net.") {
        ("network", &namespaces.network, "--network")
    } else if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        ("IPC", &namespaces.ipc, "--ipc")
    } else {
        return refused("belongs to no namespace, so it would change the host");
    };
    if *mode == NamespaceMode::Private {
        Ok(())
    } else {
        refused(&format!(
            "needs a {namespace} namespace of the container's own ({flag} private)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_private_namespace_has() {
        let private = NamespaceModes::default();
        let allowed = |name: &str| check(name, "1", &private).is_ok();
        for name in [
            "net.ipv4.ip_forward",
            "net/ipv4/conf/eth0.1/forwarding",
            "kernel.shmmax",
            "kernel/sem",
            "fs.mqueue.msg_max",
        ] {
            assert!(allowed(name), "{name}");
        }
        for name in [
            "kernel.core_pattern",
            "kernel.shmmax.x",
            "vm.swappiness",
            "network",
            "net",
            "net.",
            "net/../kernel/core_pattern",
            "/net.x",
            "",
            "net.a b",
        ] {
            assert!(!allowed(name), "{name}");
        }
        assert!(check("net.core.somaxconn", "1\n2", &private).is_err());
        let shared = NamespaceModes {
            network: NamespaceMode::Host,
            ipc: NamespaceMode::Container("x".into()),
            ..private
        };
        assert!(check("net.core.somaxconn", "1", &shared).is_err());
        assert!(check("kernel.shmmax", "1", &shared).is_err());
    }
}
