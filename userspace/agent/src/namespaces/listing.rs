//! Every namespace of the host that has a process, and whose it is: `paddock ns`.
//!
//! One walk through /proc. A process that ends meanwhile is left out, a namespace that only a
//! bind mount or a descriptor keeps is not seen. Whose it is goes by the cgroups of the
//! processes in it: namespaces have no names, cgroups have.

use std::collections::{BTreeMap, BTreeSet};

use paddock_probe::{NsInums, NsType};
use procfs::process::Process;

use super::of;
use crate::api::{NamespaceEntry, NamespaceOwner};

/// What is gathered of one namespace.
#[derive(Debug)]
struct Seen {
    first: i32,
    processes: u64,
    containers: BTreeSet<String>,
    /// Somebody in it belongs to no container.
    outside: bool,
}

/// `container` says which one the cgroup at a path is part of.
pub(crate) fn list(
    host: &NsInums,
    container: impl Fn(&str) -> Option<String>,
) -> Result<Vec<NamespaceEntry>, procfs::ProcError> {
    let mut all: BTreeMap<(usize, u32), Seen> = BTreeMap::new();
    for process in procfs::process::all_processes()?.flatten() {
        let Ok(inums) = of(process.pid) else {
            continue;
        };
        let owner = owner(&process, &container);
        for (index, inum) in inums.into_iter().enumerate().filter(|(_, inum)| *inum != 0) {
            let seen = all.entry((index, inum)).or_insert_with(|| Seen {
                first: process.pid,
                processes: 0,
                containers: BTreeSet::new(),
                outside: false,
            });
            seen.first = seen.first.min(process.pid);
            seen.processes += 1;
            match &owner {
                Some(name) => drop(seen.containers.insert(name.clone())),
                None => seen.outside = true,
            }
        }
    }
    let entry = |((index, inum), seen): ((usize, u32), Seen)| entry(host, index, inum, seen);
    Ok(all.into_iter().map(entry).collect())
}

fn entry(host: &NsInums, index: usize, inum: u32, seen: Seen) -> NamespaceEntry {
    let owner = if inum == host[index] {
        NamespaceOwner::Host
    } else if seen.containers.len() > 1 || (seen.outside && !seen.containers.is_empty()) {
        NamespaceOwner::Shared
    } else if seen.containers.is_empty() {
        NamespaceOwner::Other
    } else {
        NamespaceOwner::Own
    };
    let process = Process::new(seen.first);
    let command = process.as_ref().map(command).unwrap_or_default();
    NamespaceEntry {
        namespace: NsType::ALL[index].name().to_owned(),
        inode: u64::from(inum),
        owner,
        containers: seen.containers.into_iter().collect(),
        processes: seen.processes,
        pid: seen.first,
        user: process.and_then(|process| process.uid()).unwrap_or(0),
        command,
    }
}

/// Of the first hierarchy whose path is a container's.
fn owner(process: &Process, container: impl Fn(&str) -> Option<String>) -> Option<String> {
    let groups = process.cgroups().ok()?;
    groups
        .into_iter()
        .find_map(|group| container(&group.pathname))
}

/// Its arguments; a kernel thread has only a name.
fn command(process: &Process) -> String {
    let words = process.cmdline().unwrap_or_default();
    if words.is_empty() {
        return process
            .stat()
            .map(|stat| format!("[{}]", stat.comm))
            .unwrap_or_default();
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_it_is_goes_by_who_is_in_it() {
        let host = [3; paddock_probe::NS_TYPES];
        let owner = |inum, containers: &[&str], outside| {
            let seen = Seen {
                first: 1,
                processes: 2,
                containers: containers.iter().map(ToString::to_string).collect(),
                outside,
            };
            entry(&host, 0, inum, seen).owner
        };
        assert_eq!(owner(3, &["a"], true), NamespaceOwner::Host);
        assert_eq!(owner(4, &["a"], false), NamespaceOwner::Own);
        assert_eq!(owner(4, &["a", "b"], false), NamespaceOwner::Shared);
        assert_eq!(owner(4, &["a"], true), NamespaceOwner::Shared);
        assert_eq!(owner(4, &[], true), NamespaceOwner::Other);
    }

    #[test]
    fn the_tests_own_namespaces_are_listed_with_their_processes() {
        let own = of(std::process::id().cast_signed()).unwrap();
        let all = list(&own, |_| None).unwrap();
        for (ty, inum) in NsType::ALL.into_iter().zip(own) {
            let found = all
                .iter()
                .find(|entry| entry.namespace == ty.name() && entry.inode == u64::from(inum));
            let found = found.unwrap();
            assert_eq!(found.owner, NamespaceOwner::Host);
            assert!(found.processes >= 1 && found.pid >= 1);
        }
    }
}
