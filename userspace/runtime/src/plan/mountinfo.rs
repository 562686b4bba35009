//! What the kernel says of the mount behind a descriptor: proc_pid_mountinfo(5).
#![forbid(unsafe_code)]

use std::{
    fs,
    os::fd::{AsRawFd as _, BorrowedFd},
};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct MountInfo {
    /// Of file system.
    pub kind: String,
    /// In a peer group.
    pub shared: bool,
    /// Gets what is mounted in another peer group.
    pub slave: bool,
}

/// `None`: of another mount namespace or detached, or a kernel that does not tell.
pub(super) fn of(fd: BorrowedFd<'_>) -> Option<MountInfo> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let id = info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?
        .trim();
    find(&fs::read_to_string("/proc/self/mountinfo").ok()?, id)
}

fn find(table: &str, id: &str) -> Option<MountInfo> {
    table.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        if fields.next() != Some(id) {
            return None;
        }
        let tags: Vec<_> = fields.skip(5).collect();
        let tagged = |tag: &str| tags.iter().any(|field| field.starts_with(tag));
        Some(MountInfo {
            kind: filesystem.split(' ').next()?.to_owned(),
            shared: tagged("shared:"),
            slave: tagged("master:"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_whole_id() {
        let table = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            2 22 0:5 / /mnt/a rw shared:7 master:1 - tmpfs tmpfs rw\n\
            30 22 0:6 / /x rw - fuse.sshfs h:/ rw\n";
        let found = |id| find(table, id).unwrap();
        assert_eq!(
            found("2"),
            MountInfo {
                kind: "tmpfs".into(),
                shared: true,
                slave: true,
            }
        );
        assert_eq!(
            (found("30").kind.as_str(), found("30").shared),
            ("fuse.sshfs", false)
        );
        assert_eq!(find(table, "3"), None);
    }

    #[test]
    fn the_root_is_found() {
        let root = fs::File::open("/").unwrap();
        assert!(of(std::os::fd::AsFd::as_fd(&root)).is_some());
    }
}
