//! OOM kills against the cgroup tree: where a limit's cgroup is, and what a cgroup counts itself.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use paddock_cgroups::{Cgroup, Hierarchies, Layout};
use paddock_probe::{CgroupKey, Constraint, Level};

use crate::container::Container;

/// Cgroups below a container that are looked at for one of them.
const LOOKED_AT: usize = 512;

pub(crate) fn constraint_name(constraint: Constraint) -> &'static str {
    match constraint {
        Constraint::Memcg => "memcg",
        Constraint::Host => "host",
        Constraint::Cpuset => "cpuset",
    }
}

pub(crate) fn level_name(level: Level) -> &'static str {
    match level {
        Level::Own => "own",
        Level::Nested => "nested",
        Level::Ancestor => "ancestor",
        Level::Host => "host",
    }
}

/// Whether a cgroup counts the kills in it alone and not those in cgroups below.
pub(crate) fn leaf_only(hierarchies: &Hierarchies) -> bool {
    matches!(hierarchies.locate("memory"), Some((Layout::V1, _)))
}

/// What the cgroup has counted so far.
pub(crate) fn counted(cgroup: &Cgroup) -> u64 {
    let stats = cgroup.stats().unwrap_or_default();
    stats.totals.memory_oom_kills.unwrap_or(0)
}

/// Path of the cgroup whose limit a process of the container hit; `None` where it is gone.
pub(crate) fn limit_cgroup(
    hierarchies: &Hierarchies,
    container: &Container,
    key: CgroupKey,
    level: Level,
) -> Option<String> {
    let (mount, id) = match key {
        CgroupKey::Unified(id) => (hierarchies.unified()?, id),
        CgroupKey::MemoryV1(id) => (hierarchies.locate("memory")?.1, id),
        CgroupKey::PidsV1(id) => (hierarchies.locate("pids")?.1, id),
    };
    let own = Path::new(&container.cgroup);
    let found = match level {
        Level::Host => None,
        Level::Own | Level::Ancestor => own
            .ancestors()
            .find(|path| is(&mount.join(path), id))
            .map(Path::to_owned),
        Level::Nested => below(&mount.join(own), id)
            .and_then(|path| path.strip_prefix(mount).ok().map(Path::to_owned)),
    };
    found.map(|path| format!("/{}", path.display()))
}

/// A cgroup's id is its directory's inode number.
fn is(dir: &Path, id: u64) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|found| found.ino() == id)
}

fn below(root: &Path, id: u64) -> Option<PathBuf> {
    let mut left = vec![root.to_owned()];
    for _ in 0..LOOKED_AT {
        let dir = left.pop()?;
        if is(&dir, id) {
            return Some(dir);
        }
        let children = fs::read_dir(&dir).into_iter().flatten().flatten();
        left.extend(
            children
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_found_by_its_number_and_never_by_a_link() {
        let dir = crate::fixture::Dir::new();
        let deep = dir.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("a/root")).unwrap();
        let id = fs::metadata(&deep).unwrap().ino();
        assert_eq!(below(dir.path(), id), Some(deep));
        let outside = fs::metadata("/").unwrap().ino();
        assert_eq!(
            below(&dir.path().join("a"), outside.wrapping_add(1 << 40)),
            None
        );
    }
}
