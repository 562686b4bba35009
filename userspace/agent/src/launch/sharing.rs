//! Whose namespaces a container gets: `container:NAME` becomes paths with the inodes they had.
//!
//! A namespace belongs to the user namespace it was made in, and only who has capabilities
//! there may mount its /proc or its cgroups. So who joins another container's namespaces joins
//! its user namespace with them unless told otherwise, and what could not work is refused here.

use std::{fs, path::Path, sync::Arc};

use paddock_probe::{NS_TYPES, NsInums, NsType, Shares};
use paddock_runtime::spec::{IdMap, IdMaps, Joined, Mount, MountSource, Namespace, Namespaces};

use super::{
    Error,
    remap::{self, Choice},
};
use crate::{
    api::{NamespaceMode, NamespaceModes, State},
    container::Container,
    namespaces,
    shared::Shared,
};

/// What the modes come to.
#[derive(Debug)]
pub(super) struct Sharing {
    pub(super) namespaces: Namespaces,
    /// Of the container's user namespace where that is another's.
    pub(super) id_maps: Option<IdMaps>,
    /// A joined IPC namespace's /dev/shm: POSIX shared memory is files.
    pub(super) shm: Option<Mount>,
    pub(super) shares: Shares,
}

impl Sharing {
    /// Ids of its own for a new user namespace: those of its earlier runs, else a choice.
    pub(super) fn remap(
        &mut self,
        wanted: &str,
        kept: Option<&IdMaps>,
        containers: &Path,
    ) -> Result<Option<Choice>, Error> {
        if !self.namespaces.user.is_new() {
            return Err(Error::invalid(
                "--userns-remap: needs a user namespace of the container's own (--userns private)",
            ));
        }
        if let Some(kept) = kept {
            self.id_maps = Some(kept.clone());
            return Ok(None);
        }
        let choice = remap::choose(wanted, containers)?;
        self.id_maps = Some(choice.maps.clone());
        Ok(Some(choice))
    }
}

/// Another container and its namespaces at one moment.
struct Other {
    name: String,
    pid: i32,
    inums: NsInums,
}

pub(super) fn resolve(agent: &Shared, modes: &NamespaceModes) -> Result<Sharing, Error> {
    use NsType::{Cgroup, Ipc, Net, Pid, Time, User, Uts};

    let other = |mode: &NamespaceMode| match mode {
        NamespaceMode::Container(reference) => Other::find(agent, reference).map(Some),
        NamespaceMode::Private | NamespaceMode::Host => Ok(None),
    };
    let mut shares = Shares::default();
    let mut joined = Vec::new();
    let mut whose = |ty: NsType, mode: &NamespaceMode| -> Result<Namespace, Error> {
        Ok(match (mode, other(mode)?) {
            (NamespaceMode::Host, _) => Namespace::Host,
            (_, None) => Namespace::New,
            (_, Some(other)) => {
                shares.joined[ty.index()] = other.inums[ty.index()];
                let namespace = other.join(ty);
                joined.push((ty, other));
                namespace
            }
        })
    };
    let mut namespaces = Namespaces {
        cgroup: whose(Cgroup, &modes.cgroup)?,
        ipc: whose(Ipc, &modes.ipc)?,
        net: whose(Net, &modes.network)?,
        pid: whose(Pid, &modes.pid)?,
        time: whose(Time, &modes.time)?,
        user: Namespace::New,
        uts: whose(Uts, &modes.uts)?,
    };
    let host = agent.kernel.host()[User.index()];
    let user = match &modes.user {
        Some(mode) => other(mode)?,
        None => implied(&mut joined, host)?,
    };
    namespaces.user = match (&modes.user, &user) {
        (Some(NamespaceMode::Host), _) => Namespace::Host,
        (_, None) => Namespace::New,
        (_, Some(other)) if other.inums[User.index()] == host => Namespace::Host,
        (_, Some(other)) => other.join(User),
    };
    let inside = user.as_ref().map_or(0, |other| other.inums[User.index()]);
    if !namespaces.user.is_host() {
        can_be_shared(&joined, inside)?;
    }
    shares.with_host = with_host(&namespaces);
    let mut id_maps = None;
    if let (Namespace::Join(_), Some(other)) = (&namespaces.user, &user) {
        shares.joined[User.index()] = inside;
        id_maps = Some(other.id_maps()?);
    }
    let ipc = joined.iter().find(|(ty, _)| *ty == Ipc);
    Ok(Sharing {
        shm: ipc.map(|(_, other)| other.shm()),
        namespaces,
        id_maps,
        shares,
    })
}

/// The user namespace that joined namespaces belong to; `None` is a new one.
fn implied(joined: &mut [(NsType, Other)], host: u32) -> Result<Option<Other>, Error> {
    let mut found: Option<&Other> = None;
    for (_, other) in joined.iter() {
        let user = other.inums[NsType::User.index()];
        match found {
            _ if user == host => {}
            Some(former) if former.inums[NsType::User.index()] != user => {
                return Err(Error::invalid(format!(
                    "{} and {} have different user namespaces: join the namespaces of one, or add --userns",
                    former.name, other.name
                )));
            }
            _ => found = Some(other),
        }
    }
    Ok(found.map(Other::again))
}

/// /proc, mqueue and cgroup mounts are refused to who is nobody in the namespace's owner.
fn can_be_shared(joined: &[(NsType, Other)], user: u32) -> Result<(), Error> {
    for (ty, other) in joined {
        let mounts = matches!(ty, NsType::Pid | NsType::Ipc | NsType::Cgroup);
        if mounts && other.inums[NsType::User.index()] != user {
            return Err(Error::invalid(format!(
                "the {} namespace of {} belongs to its user namespace: add --userns container:{}",
                ty.name(),
                other.name,
                other.name
            )));
        }
    }
    Ok(())
}

/// Mask of the types that are the host's.
fn with_host(namespaces: &Namespaces) -> u32 {
    use NsType::{Cgroup, Ipc, Net, Pid, Time, User, Uts};

    [
        (Cgroup, &namespaces.cgroup),
        (Ipc, &namespaces.ipc),
        (Net, &namespaces.net),
        (Pid, &namespaces.pid),
        (Time, &namespaces.time),
        (User, &namespaces.user),
        (Uts, &namespaces.uts),
    ]
    .into_iter()
    .filter(|(_, namespace)| namespace.is_host())
    .fold(0, |mask, (ty, _)| mask | ty.bit())
}

/// For the log: what it shares.
pub(super) fn describe(shares: &Shares) -> String {
    let host = namespaces::names(shares.with_host).join(",");
    let joined = (0..NS_TYPES).filter(|index| shares.joined[*index] != 0);
    let joined = namespaces::names(joined.fold(0, |mask, index| mask | 1 << index)).join(",");
    format!("with the host: {host}; with others: {joined}")
}

impl Other {
    /// Its first process is the same before and after its namespaces are read.
    fn find(shared: &Shared, reference: &str) -> Result<Self, Error> {
        let container: Arc<Container> = shared.registry.find(reference)?;
        let life = container.life();
        let gone = || Error::state(format!("{} does not run", container.name));
        let (State::Running, Some((pid, start_time))) = (life.state, life.main) else {
            return Err(gone());
        };
        let inums = namespaces::of(pid).map_err(|_| gone())?;
        if super::watch::start_time(pid) != Some(start_time) {
            return Err(gone());
        }
        Ok(Self {
            name: container.name.clone(),
            pid,
            inums,
        })
    }

    fn again(&self) -> Self {
        Self {
            name: self.name.clone(),
            ..*self
        }
    }

    fn joined(&self, ty: NsType) -> Joined {
        Joined {
            path: format!("/proc/{}/ns/{}", self.pid, ty.name()).into(),
            inode: Some(self.inums[ty.index()]),
        }
    }

    fn join(&self, ty: NsType) -> Namespace {
        Namespace::Join(self.joined(ty))
    }

    fn shm(&self) -> Mount {
        let source = MountSource::Of {
            mount_namespace: self.joined(NsType::Mnt),
            path: "/dev/shm".into(),
        };
        Mount::fixed("/dev/shm", source, 0)
    }

    fn id_maps(&self) -> Result<IdMaps, Error> {
        let read = |file: &str| -> Result<Vec<IdMap>, Error> {
            let path = format!("/proc/{}/{file}", self.pid);
            let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            Ok(text.lines().filter_map(id_map).collect())
        };
        Ok(IdMaps {
            uids: read("uid_map")?,
            gids: read("gid_map")?,
        })
    }
}

/// user_namespaces(7): inside, outside as the reader has it, length.
fn id_map(line: &str) -> Option<IdMap> {
    let mut numbers = line.split_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(IdMap {
        inside: next()?,
        outside: next()?,
        size: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(name: &str, user: u32) -> Other {
        let mut inums = [7; NS_TYPES];
        inums[NsType::User.index()] = user;
        Other {
            name: name.into(),
            pid: 1,
            inums,
        }
    }

    #[test]
    fn the_user_namespace_comes_with_the_others() {
        let user = |joined: &mut [(NsType, Other)]| {
            implied(joined, 1).map(|found| found.map(|other| other.inums[NsType::User.index()]))
        };
        assert_eq!(user(&mut []).unwrap(), None);
        assert_eq!(user(&mut [(NsType::Net, other("a", 1))]).unwrap(), None);
        let mut two = [(NsType::Net, other("a", 5)), (NsType::Pid, other("a", 5))];
        assert_eq!(user(&mut two).unwrap(), Some(5));
        let mut two = [(NsType::Net, other("a", 5)), (NsType::Pid, other("b", 6))];
        let error = user(&mut two).unwrap_err().to_string();
        assert!(error.starts_with("a and b have different"), "{error}");
    }

    #[test]
    fn what_needs_mounts_needs_its_owner() {
        let pid = [(NsType::Pid, other("a", 5))];
        assert!(can_be_shared(&pid, 5).is_ok());
        let error = can_be_shared(&pid, 0).unwrap_err().to_string();
        assert!(error.ends_with("add --userns container:a"), "{error}");
        assert!(can_be_shared(&[(NsType::Net, other("a", 5))], 0).is_ok());
    }

    #[test]
    fn maps_are_read_as_the_kernel_shows_them() {
        let map = id_map("         0     165536      65536").unwrap();
        assert_eq!((map.inside, map.outside, map.size), (0, 165_536, 65_536));
        assert_eq!(id_map("0 x 1"), None);
        assert_eq!(id_map("0 4294967296 1"), None);
    }
}
