//! What is below a cgroup's directory: child cgroups, and processes of all.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{Error, file};

/// Of it and all below. A cgroup that vanishes meanwhile has no processes.
pub(crate) fn pids(dir: &Path, found: &mut BTreeSet<i32>) -> Result<(), Error> {
    // A threaded child answers EOPNOTSUPP: its processes are listed by its domain.
    let text = file::read_optional(&dir.join("cgroup.procs"))?.unwrap_or_default();
    // 0 stands for a process outside the reader's pid namespace: nobody here can signal it.
    found.extend(
        text.lines()
            .filter_map(|line| line.parse().ok())
            .filter(|&pid: &i32| pid > 0),
    );
    for child in children(dir)? {
        pids(&child, found)?;
    }
    Ok(())
}

/// Child cgroups; none when `dir` is gone.
pub(crate) fn children(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Io {
        op: "list",
        path: dir.to_owned(),
        source,
    };
    // The kernel counts a cgroup's subdirectories as links beside the usual two.
    if fs::symlink_metadata(dir).is_ok_and(|found| found.nlink() == 2) {
        return Ok(Vec::new());
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
