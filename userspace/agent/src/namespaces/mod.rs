//! A process' namespaces as /proc/PID/ns shows them.
//!
//! `pid` and `time` are those that children are born in, as everywhere in the kernel half.
//! Kernels without time namespaces (before 5.6) leave that one unknown.

pub(crate) mod listing;

use std::{collections::BTreeMap, fs, io, os::unix::fs::MetadataExt as _};

use paddock_probe::{NS_TYPES, NsInums, NsType};

/// Inode numbers; 0 where a file cannot be read. Fails when the process is not there.
pub(crate) fn of(pid: i32) -> io::Result<NsInums> {
    let mut inums = [0; NS_TYPES];
    let mut first_error = None;
    for (ty, inum) in NsType::ALL.into_iter().zip(&mut inums) {
        match fs::metadata(format!("/proc/{pid}/ns/{}", link(ty))) {
            Ok(found) => *inum = u32::try_from(found.ino()).unwrap_or(0),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        Some(error) if inums == [0; NS_TYPES] => Err(error),
        _ => Ok(inums),
    }
}

fn link(ty: NsType) -> &'static str {
    match ty {
        NsType::Pid => "pid_for_children",
        NsType::Time => "time_for_children",
        _ => ty.name(),
    }
}

/// For people: `uts -> 4026531838`, unknown ones left out.
pub(crate) fn by_name(inums: &NsInums) -> BTreeMap<String, u64> {
    NsType::ALL
        .into_iter()
        .zip(inums)
        .filter(|(_, inum)| **inum != 0)
        .map(|(ty, inum)| (ty.name().to_owned(), u64::from(*inum)))
        .collect()
}

/// Mask of the types that are the same, known ones only.
pub(crate) fn common(one: &NsInums, other: &NsInums) -> u32 {
    NsType::ALL
        .into_iter()
        .zip(one.iter().zip(other))
        .filter(|(_, (one, other))| one == other && **one != 0)
        .fold(0, |mask, (ty, _)| mask | ty.bit())
}

/// Makes the types in a mask unknown.
pub(crate) fn clear(inums: &mut NsInums, mask: u32) {
    for (ty, inum) in NsType::ALL.into_iter().zip(inums) {
        if mask & ty.bit() != 0 {
            *inum = 0;
        }
    }
}

/// Names of the types in a mask.
pub(crate) fn names(mask: u32) -> Vec<String> {
    let chosen = NsType::ALL.into_iter().filter(|ty| mask & ty.bit() != 0);
    chosen.map(|ty| ty.name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_namespaces_are_what_readlink_shows() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let inums = of(pid).unwrap();
        for (name, inum) in by_name(&inums) {
            let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            assert_eq!(link.to_str(), Some(format!("{name}:[{inum}]").as_str()));
        }
        assert!(of(i32::MAX).is_err());
    }

    #[test]
    fn unknown_is_common_with_nothing() {
        let mut one = [7; NS_TYPES];
        let mut other = [8; NS_TYPES];
        (one[NsType::Uts.index()], other[NsType::Uts.index()]) = (5, 5);
        (one[NsType::Time.index()], other[NsType::Time.index()]) = (0, 0);
        assert_eq!(names(common(&one, &other)), ["uts"]);
    }
}
