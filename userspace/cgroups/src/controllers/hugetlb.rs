//! Huge pages by size, v1 `hugetlb.2MB.limit_in_bytes`, v2 `hugetlb.2MB.max`; also what is
//! reserved of them (`rsvd`, 5.7), since a reservation that is never used up counts only there.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{
    Error, Stats, change::Change, discovery::Version, readable::Readable, stats::HugePages,
};

use super::{Place, memory::same_bytes};

pub(crate) fn plan(place: &Place, limits: &BTreeMap<String, u64>) -> Result<Vec<Change>, Error> {
    let last = match place.version {
        Version::V1 => "limit_in_bytes",
        Version::V2 => "max",
    };
    let mut changes = Vec::new();
    for (size, bytes) in limits {
        let sizes = sizes(&place.dir, last);
        if !sizes.contains(size) {
            return Err(Error::Limit {
                name: "hugetlb",
                value: size.clone(),
                reason: format!("this kernel's sizes are {}", sizes.join(", ")),
            });
        }
        let mut change = |name: String| -> Result<(), Error> {
            changes.push(Change::new(
                place.file(&name),
                bytes.to_string(),
                same_bytes,
            )?);
            Ok(())
        };
        change(format!("hugetlb.{size}.{last}"))?;
        if place.file(&format!("hugetlb.{size}.rsvd.{last}")).exists() {
            change(format!("hugetlb.{size}.rsvd.{last}"))?;
        }
    }
    Ok(changes)
}

pub(crate) fn stats(files: &Readable, stats: &mut Stats) -> Result<(), Error> {
    let last = match files.version {
        Version::V1 => "usage_in_bytes",
        Version::V2 => "current",
    };
    for size in sizes(files.dir(), last) {
        if let Some(usage_bytes) = files.number(&format!("hugetlb.{size}.{last}"))? {
            stats.huge_pages.push(HugePages { size, usage_bytes });
        }
    }
    Ok(())
}

/// As in the names of the files.
fn sizes(dir: &Path, last: &str) -> Vec<String> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut sizes: Vec<String> = names
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let rest = name.strip_prefix("hugetlb.")?.strip_suffix(last)?;
            let size = rest.strip_suffix('.')?;
            (!size.contains('.')).then(|| size.to_owned())
        })
        .collect();
    sizes.sort();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::execute, fixture::Dir};

    #[test]
    fn both_files_of_a_size_and_no_other_size() {
        let dir = Dir::new();
        for name in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "hugetlb.1GB.max"] {
            dir.file(name, "max\n");
        }
        let place = Place {
            dir: dir.path().to_owned(),
            version: Version::V2,
        };
        let limits = |size: &str| BTreeMap::from([(size.to_owned(), 4 << 20)]);
        let _ = execute(plan(&place, &limits("2MB")).unwrap()).unwrap();
        assert_eq!(dir.read("hugetlb.2MB.max"), "4194304");
        assert_eq!(dir.read("hugetlb.2MB.rsvd.max"), "4194304");
        let error = plan(&place, &limits("64KB")).unwrap_err().to_string();
        assert_eq!(error, "hugetlb 64KB: this kernel's sizes are 1GB, 2MB");
    }
}
