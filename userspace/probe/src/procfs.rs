//! What procfs and the cgroup mounts say about this process: the self-test's witness.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use paddock_abi::namespace::NsType;

use crate::NsInums;

/// Namespaces of `/proc/PROCESS`, those for children where there are two; 0 is unreadable.
pub(crate) fn namespaces(process: &str) -> NsInums {
    NsType::ALL.map(|ty| {
        let file = match ty {
            NsType::Pid => "pid_for_children",
            NsType::Time => "time_for_children",
            other => other.name(),
        };
        inum(&format!("/proc/{process}/ns/{file}")).unwrap_or(0)
    })
}

fn inum(path: &str) -> Option<u32> {
    let link = fs::read_link(path).ok()?;
    let (_, rest) = link.to_str()?.split_once('[')?;
    rest.strip_suffix(']')?.parse().ok()
}

/// A cgroup of this process: its id, its directory, whether it is the hierarchy's root.
pub(crate) struct OwnCgroup {
    pub(crate) id: u64,
    pub(crate) directory: PathBuf,
    pub(crate) is_root: bool,
}

/// In the hierarchy of a v1 controller, or the v2 one for `None`; `None` where it is not mounted whole.
pub(crate) fn own_cgroup(controller: Option<&str>) -> Option<OwnCgroup> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount_point = mounts
        .lines()
        .find_map(|line| cgroup_mount(line, controller))?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let fits = match controller {
            None => controllers.is_empty(),
            Some(name) => controllers.split(',').any(|found| found == name),
        };
        fits.then_some(path)
    })?;
    let directory = PathBuf::from(mount_point).join(path.trim_start_matches('/'));
    let id = fs::metadata(&directory).ok()?.ino();
    Some(OwnCgroup {
        id,
        directory,
        is_root: path == "/",
    })
}

/// Where the v2 hierarchy is mounted whole.
pub(crate) fn unified_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let found = mounts.lines().find_map(|line| cgroup_mount(line, None));
    found.map(PathBuf::from)
}

/// `36 35 98:0 ROOT MOUNT_POINT OPTIONS … - TYPE SOURCE SUPER_OPTIONS`
fn cgroup_mount<'a>(line: &'a str, controller: Option<&str>) -> Option<&'a str> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, mount_point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let fits = match controller {
        None => kind == "cgroup2",
        Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
    };
    (fits && root == "/").then_some(mount_point)
}

/// Address of a kernel symbol, where the kernel shows addresses.
pub(crate) fn symbol(name: &str) -> Option<u64> {
    let symbols = fs::read_to_string("/proc/kallsyms").ok()?;
    let line = symbols
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(name))?;
    let address = u64::from_str_radix(line.split(' ').next()?, 16).ok()?;
    (address != 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_tells_hierarchies_apart() {
        let v2 = "31 25 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:6 - cgroup2 cgroup2 rw,nsdelegate";
        let v1 = "33 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let part = "33 25 0:28 /sub /mnt rw - cgroup2 cgroup2 rw";
        assert_eq!(cgroup_mount(v2, None), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup_mount(v2, Some("memory")), None);
        assert_eq!(
            cgroup_mount(v1, Some("memory")),
            Some("/sys/fs/cgroup/memory")
        );
        assert_eq!(cgroup_mount(v1, Some("mem")), None);
        assert_eq!(cgroup_mount(part, None), None);
    }
}
