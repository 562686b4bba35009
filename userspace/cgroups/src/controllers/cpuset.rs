//! Which CPUs a cgroup may run on.
//!
//! v1 starts a new cgroup with both lists empty and lets nobody join until they are filled,
//! so they are copied from the parent. v2 inherits, but silently keeps the parent's CPUs
//! when it is asked for absent ones: what is not available is refused here.

use std::{collections::BTreeSet, path::Path};

use crate::{Error, discovery::Version, file, parse};

use super::Place;

pub(crate) fn apply(place: &Place, cpus: &str) -> Result<(), Error> {
    let wanted = parse::cpu_list(cpus).map_err(|error| refused(cpus, error.to_string()))?;
    let parent = place.dir.parent().unwrap_or(&place.dir);
    let available = available(parent, place.version)?;
    if let Some(available) = available
        && !wanted.is_subset(&available)
    {
        let text = parse::format_cpu_list(&available);
        return Err(refused(cpus, format!("available are {text}")));
    }
    let path = place.file("cpuset.cpus");
    file::write(&path, cpus)?;
    let kept = file::read(&path)?;
    if parse::cpu_list(&kept).is_ok_and(|kept| kept == wanted) {
        return Ok(());
    }
    Err(Error::NotKept {
        path,
        wrote: cpus.to_owned(),
        read: kept,
    })
}

fn available(parent: &Path, version: Version) -> Result<Option<BTreeSet<u32>>, Error> {
    let name = match version {
        Version::V1 => "cpuset.cpus",
        Version::V2 => "cpuset.cpus.effective",
    };
    let text = file::read_optional(&parent.join(name))?;
    Ok(text.and_then(|text| parse::cpu_list(&text).ok()))
}

fn refused(cpus: &str, reason: String) -> Error {
    Error::Limit {
        name: "cpuset cpus",
        value: cpus.to_owned(),
        reason,
    }
}

/// Fills a new v1 cgroup's lists from its parent's; leaves lists that are there.
pub(crate) fn inherit_v1(dir: &Path) -> Result<(), Error> {
    let Some(parent) = dir.parent() else {
        return Ok(());
    };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let own = dir.join(name);
        if file::read(&own)?.is_empty() {
            file::write(&own, &file::read(&parent.join(name))?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Dir;

    fn child(dir: &Dir, version: Version) -> Place {
        Place {
            dir: dir.path().join("child"),
            version,
        }
    }

    #[test]
    fn v1_copies_both_lists_once() {
        let dir = Dir::new();
        dir.file("cpuset.cpus", "0-3\n");
        dir.file("cpuset.mems", "0\n");
        dir.file("child/cpuset.cpus", "\n");
        dir.file("child/cpuset.mems", "\n");
        inherit_v1(&dir.path().join("child")).unwrap();
        assert_eq!(dir.read("child/cpuset.cpus"), "0-3");
        assert_eq!(dir.read("child/cpuset.mems"), "0");
        dir.file("child/cpuset.cpus", "1\n");
        inherit_v1(&dir.path().join("child")).unwrap();
        assert_eq!(dir.read("child/cpuset.cpus"), "1\n");
    }

    #[test]
    fn absent_cpus_are_refused_and_named() {
        let dir = Dir::new();
        dir.file("cpuset.cpus.effective", "0-1\n");
        dir.file("child/cpuset.cpus", "\n");
        let error = apply(&child(&dir, Version::V2), "0,7").unwrap_err();
        assert_eq!(error.to_string(), "cpuset cpus 0,7: available are 0-1");
        assert_eq!(dir.read("child/cpuset.cpus"), "\n");
    }

    #[test]
    fn the_same_set_in_other_words_is_kept() {
        let dir = Dir::new();
        dir.file("cpuset.cpus", "0-3\n");
        dir.file("child/cpuset.cpus", "\n");
        apply(&child(&dir, Version::V1), "2,0-1").unwrap();
        assert_eq!(dir.read("child/cpuset.cpus"), "2,0-1");
    }
}
