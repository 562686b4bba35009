//! Every container in the cgroup tree now: the start, and what records were lost of.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use paddock_cgroups::Hierarchies;

use super::pattern::{self, Match};

/// Deeper trees exist only to be deep.
const DEEPEST: usize = 16;

/// The containers in all hierarchies that serve an identity, by path.
pub(super) fn containers(hierarchies: &Hierarchies, globs: &[String]) -> BTreeMap<String, Match> {
    let mut found = BTreeMap::new();
    for mount in mounts(hierarchies) {
        descend(&mount, "", globs, DEEPEST, &mut found);
    }
    found
}

/// v2's, and those whose ids stand in where a process sits in v2's root.
fn mounts(hierarchies: &Hierarchies) -> Vec<PathBuf> {
    let v1 = ["memory", "pids"]
        .into_iter()
        .filter_map(|controller| hierarchies.locate(controller));
    let mut mounts: Vec<PathBuf> = hierarchies
        .unified()
        .map(Path::to_owned)
        .into_iter()
        .collect();
    for (_, mount) in v1 {
        if !mounts.iter().any(|seen| seen == mount) {
            mounts.push(mount.to_owned());
        }
    }
    mounts
}

fn descend(
    dir: &Path,
    path: &str,
    globs: &[String],
    deeper: usize,
    found: &mut BTreeMap<String, Match>,
) {
    // A cgroup that goes meanwhile has nothing in it.
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let path = format!("{path}/{name}");
        if let Some(container) = pattern::find(&path, globs) {
            found.insert(container.path.clone(), container);
        } else if deeper > 0 && name != "paddock" {
            descend(&entry.path(), &path, globs, deeper - 1, found);
        }
    }
}
