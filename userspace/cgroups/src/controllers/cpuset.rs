//! Which CPUs and which memory nodes a cgroup may use.
//!
//! v1 starts a new cgroup with both lists empty and lets nobody join until they are filled,
//! so they are copied from the parent. v2 inherits, but silently keeps the parent's CPUs
//! when it is asked for absent ones: what is not available is refused here.

use std::{collections::BTreeSet, path::Path};

use crate::{CpusetLimits, Error, change::Change, discovery::Version, file, parse};

use super::Place;

pub(crate) fn plan(place: &Place, limits: &CpusetLimits) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    if let Some(cpus) = &limits.cpus {
        changes.push(list(place, "cpuset cpus", "cpuset.cpus", cpus)?);
    }
    if let Some(mems) = &limits.mems {
        changes.push(list(place, "cpuset mems", "cpuset.mems", mems)?);
    }
    Ok(changes)
}

fn list(place: &Place, limit: &'static str, file: &str, text: &str) -> Result<Change, Error> {
    let refused = |reason: String| Error::Limit {
        name: limit,
        value: text.to_owned(),
        reason,
    };
    let wanted = parse::number_list(text).map_err(|error| refused(error.reason))?;
    let parent = place.dir.parent().unwrap_or(&place.dir);
    if let Some(available) = available(parent, place.version, file)?
        && !wanted.is_subset(&available)
    {
        let available = parse::format_list(&available);
        return Err(refused(format!("available are {available}")));
    }
    Change::new(place.file(file), text.to_owned(), same)
}

fn same(wrote: &str, shown: &str) -> bool {
    let list = |text| parse::number_list(text).ok();
    list(wrote).is_some_and(|wrote| list(shown) == Some(wrote))
}

fn available(parent: &Path, version: Version, file: &str) -> Result<Option<BTreeSet<u32>>, Error> {
    let path = match version {
        Version::V1 => parent.join(file),
        Version::V2 => parent.join(format!("{file}.effective")),
    };
    let text = file::read_optional(&path)?;
    Ok(text.and_then(|text| parse::number_list(&text).ok()))
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

/// What is made in it starts with its lists. Where the kernel will not, they are copied then.
pub(crate) fn hand_down_v1(dir: &Path) {
    drop(file::write(&dir.join("cgroup.clone_children"), "1"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::execute, fixture::Dir};

    fn child(dir: &Dir, version: Version) -> Place {
        Place {
            dir: dir.path().join("child"),
            version,
        }
    }

    fn cpus(list: &str) -> CpusetLimits {
        CpusetLimits {
            cpus: Some(list.to_owned()),
            mems: None,
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
        let error = plan(&child(&dir, Version::V2), &cpus("0,7")).unwrap_err();
        assert_eq!(error.to_string(), "cpuset cpus 0,7: available are 0-1");
    }

    #[test]
    fn the_same_set_in_other_words_is_kept() {
        let dir = Dir::new();
        dir.file("cpuset.cpus", "0-3\n");
        dir.file("child/cpuset.cpus", "\n");
        let _ = execute(plan(&child(&dir, Version::V1), &cpus("2,0-1")).unwrap()).unwrap();
        assert_eq!(dir.read("child/cpuset.cpus"), "2,0-1");
    }
}
