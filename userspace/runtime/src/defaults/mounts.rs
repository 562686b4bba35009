//! The mounts that every container gets, docker's, by whose its namespaces are.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::{
    spec::{Mount, MountSource, Namespace, Namespaces},
    sys::mount::{NODEV, NOEXEC, NOSUID, RDONLY},
};

const SAFE: u64 = NOSUID | NODEV | NOEXEC;
/// Nodes take no memory; what a program writes here by mistake should not take much.
const DEV_SIZE: u64 = 64 << 20;

/// Hidden behind /dev/null or an empty read-only directory.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// /dev, /proc, /sys and what is in them. `shm_size` in bytes. Where a namespace stays the
/// host's but the user namespace is new, the kernel refuses a new mount of what belongs to it,
/// and the host's is bound instead.
pub fn mounts(namespaces: &Namespaces, shm_size: u64) -> Vec<Mount> {
    let belongs = |namespace: &Namespace| namespaces.user.is_host() || !namespace.is_host();
    let mut mounts = vec![
        Mount::fixed("/dev", MountSource::Dev { size: DEV_SIZE }, NOSUID | NOEXEC),
        Mount::fixed("/dev/pts", MountSource::Devpts, NOSUID | NOEXEC),
    ];
    match &namespaces.ipc {
        Namespace::New => mounts.push(Mount::fixed("/dev/shm", shm(shm_size), SAFE)),
        // The other container's /dev/shm is the caller's to add.
        Namespace::Join(_) => {}
        Namespace::Host => {
            mounts.extend(host("/dev/shm", false, SAFE));
            mounts.extend(host("/dev/mqueue", false, SAFE));
        }
    }
    if !namespaces.ipc.is_host() {
        let source = MountSource::new("mqueue");
        mounts.push(Mount::fixed("/dev/mqueue", source, SAFE));
    }
    if belongs(&namespaces.pid) {
        mounts.push(Mount::fixed("/proc", MountSource::new("proc"), SAFE));
    } else {
        mounts.extend(host("/proc", true, SAFE));
    }
    if belongs(&namespaces.net) {
        let source = MountSource::new("sysfs");
        mounts.push(Mount::fixed("/sys", source, SAFE | RDONLY));
    } else {
        mounts.extend(host("/sys", false, SAFE | RDONLY));
    }
    if namespaces.cgroup.is_host() {
        mounts.extend(host("/sys/fs/cgroup", true, SAFE | RDONLY));
    } else {
        let source = MountSource::Cgroups;
        mounts.push(Mount::fixed("/sys/fs/cgroup", source, SAFE | RDONLY));
    }
    mounts
}

pub fn masked_paths() -> Vec<PathBuf> {
    MASKED.map(PathBuf::from).to_vec()
}

pub fn read_only_paths() -> Vec<PathBuf> {
    READ_ONLY.map(PathBuf::from).to_vec()
}

/// `MOUNT_ATTR_RDONLY`, for a volume.
pub const READ_ONLY_MOUNT: u64 = RDONLY;

/// `MOUNT_ATTR_NOSUID`, `MOUNT_ATTR_NODEV`, `MOUNT_ATTR_NOEXEC`.
pub const NOSUID_MOUNT: u64 = NOSUID;
pub const NODEV_MOUNT: u64 = NODEV;
pub const NOEXEC_MOUNT: u64 = NOEXEC;
/// All three.
pub const SAFE_MOUNT: u64 = SAFE;

/// POSIX shared memory, charged to who writes it.
fn shm(size: u64) -> MountSource {
    MountSource::New {
        kind: "tmpfs".to_owned(),
        parameters: vec![
            ("mode".to_owned(), Some("1777".to_owned())),
            ("size".to_owned(), Some(size.to_string())),
        ],
    }
}

/// The host's mount of the same path, where it has one.
fn host(path: &str, recursive: bool, set: u64) -> Option<Mount> {
    let source = MountSource::Bind {
        path: path.into(),
        recursive,
    };
    let mount = Mount {
        recursive,
        ..Mount::fixed(path, source, set)
    };
    Path::new(path).exists().then_some(mount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::namespaces;

    fn source(mounts: &[Mount], path: &str) -> MountSource {
        let found = mounts.iter().find(|mount| mount.target == Path::new(path));
        found.unwrap().source.clone()
    }

    #[test]
    fn a_shared_namespaces_file_system_is_bound_only_from_another_user_namespace() {
        let all = mounts(&namespaces(), 1);
        assert_eq!(source(&all, "/proc"), MountSource::new("proc"));
        let mut shared = Namespaces {
            pid: Namespace::Host,
            ..namespaces()
        };
        let bound = mounts(&shared, 1);
        assert!(matches!(
            source(&bound, "/proc"),
            MountSource::Bind {
                recursive: true,
                ..
            }
        ));
        shared.user = Namespace::Host;
        assert_eq!(
            source(&mounts(&shared, 1), "/proc"),
            MountSource::new("proc")
        );
    }
}
