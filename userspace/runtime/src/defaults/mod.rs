//! Docker's defaults, which `paddock run` keeps: capabilities, masked paths, environment.
//!
//! The lists are moby's `oci/caps/defaults.go` and `oci/defaults.go`. Capability names are
//! parsed strictly: a name the kernel headers don't know is an error, never ignored.
#![forbid(unsafe_code)]

mod devices;
mod mounts;

use crate::spec::{Namespace, Namespaces};

pub use self::devices::device_rules;
pub use self::mounts::{
    NODEV_MOUNT, NOEXEC_MOUNT, NOSUID_MOUNT, READ_ONLY_MOUNT, SAFE_MOUNT, masked_paths, mounts,
    read_only_paths,
};

/// The 14 that Docker leaves a container's root.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Where a command without a slash is looked for when the environment has no `PATH`.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's size of /dev/shm.
pub const SHM_SIZE: u64 = 64 << 20;

/// The environment before the user's own; `TERM` only with a terminal.
pub fn environment(hostname: &str, terminal: bool) -> Vec<String> {
    let mut environment = vec![
        format!("PATH={PATH}"),
        format!("HOSTNAME={hostname}"),
        "HOME=/root".to_owned(),
    ];
    if terminal {
        environment.push("TERM=xterm".to_owned());
    }
    environment
}

/// All new but the time namespace, as with docker.
pub fn namespaces() -> Namespaces {
    Namespaces {
        cgroup: Namespace::New,
        ipc: Namespace::New,
        net: Namespace::New,
        pid: Namespace::New,
        time: Namespace::Host,
        user: Namespace::New,
        uts: Namespace::New,
    }
}

/// Every name the kernel's `linux/capability.h` has, by number.
pub const CAPABILITY_NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The number of a capability: `CAP_CHOWN`, `chown` and `CHOWN` are 0.
pub fn capability(name: &str) -> Result<u8, UnknownCapability> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    CAPABILITY_NAMES
        .iter()
        .zip(0..)
        .find_map(|(known, number)| (known.strip_prefix("CAP_") == Some(short)).then_some(number))
        .ok_or_else(|| UnknownCapability {
            name: name.to_owned(),
        })
}

/// The set as the kernel's bits; `ALL` is every known one.
pub fn capability_set<S: AsRef<str>>(names: &[S]) -> Result<u64, UnknownCapability> {
    names.iter().try_fold(0, |set, name| match name.as_ref() {
        all if all.eq_ignore_ascii_case("all") => Ok((1 << CAPABILITY_NAMES.len()) - 1),
        name => Ok(set | (1 << capability(name)?)),
    })
}

/// The defaults with `--cap-add` and `--cap-drop` applied, Docker's way: `ALL` in either list
/// replaces the start, a named one in the other list still counts. Names come back in full form.
pub fn capabilities<S: AsRef<str>>(
    add: &[S],
    drop: &[S],
) -> Result<Vec<String>, UnknownCapability> {
    let all = |names: &[S]| {
        names
            .iter()
            .any(|name| name.as_ref().eq_ignore_ascii_case("all"))
    };
    let named = |names: &[S]| -> Result<u64, UnknownCapability> {
        let some: Vec<&str> = names
            .iter()
            .map(AsRef::as_ref)
            .filter(|name| !name.eq_ignore_ascii_case("all"))
            .collect();
        capability_set(&some)
    };
    let start = match (all(add), all(drop)) {
        (true, _) => capability_set(&["ALL"])?,
        (false, true) => 0,
        (false, false) => capability_set(&CAPABILITIES)?,
    };
    let set = if all(drop) && !all(add) {
        named(add)?
    } else {
        (start | named(add)?) & !named(drop)?
    };
    let known = CAPABILITY_NAMES.iter().zip(0..);
    Ok(known
        .filter(|(_, number)| set & (1 << number) != 0)
        .map(|(name, _)| (*name).to_owned())
        .collect())
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {name}")]
pub struct UnknownCapability {
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(capability("CAP_SYS_ADMIN"), Ok(21));
        assert_eq!(capability("sys_admin"), Ok(21));
        assert_eq!(capability("CAP_CHECKPOINT_RESTORE"), Ok(40));
    }

    #[test]
    fn unknown_names_are_errors() {
        for name in ["", "CAP_", "CAP_CAP_CHOWN", "CHOWN ", "21"] {
            assert_eq!(
                capability(name),
                Err(UnknownCapability {
                    name: name.to_owned()
                })
            );
        }
    }

    #[test]
    fn the_default_set_is_dockers() {
        // CapBnd of a `docker run` container.
        assert_eq!(capability_set(&CAPABILITIES), Ok(0xa804_25fb));
    }

    #[test]
    fn add_and_drop_combine() {
        assert_eq!(
            capabilities(&["net_admin"], &["all"]).unwrap(),
            ["CAP_NET_ADMIN"]
        );
        assert_eq!(capabilities(&["ALL"], &["CAP_BPF"]).unwrap().len(), 40);
        assert_eq!(capabilities(&[], &["chown"]).unwrap().len(), 13);
    }
}
