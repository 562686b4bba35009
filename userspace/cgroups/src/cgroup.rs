//! One cgroup path in every hierarchy: joining it, limiting it, naming it to the kernel.

use std::{
    collections::BTreeSet,
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Applied, CpuLimits, CpusetLimits, Error, Hierarchies, IoLimits, Limits, MemoryLimits, Stats,
    change::{self, Change},
    controllers::{
        Place, blkio, cpu, cpuset, devices, freezer, hugetlb, keyed, memory, pids, unified,
    },
    create,
    discovery::{Hierarchy, Version},
    file, path, stats, tree,
};

/// One cgroup path, present in every hierarchy of the host.
#[derive(Debug)]
pub struct Cgroup {
    pub(crate) hierarchies: Hierarchies,
    pub(crate) path: String,
}

impl Cgroup {
    /// Makes `path` (relative, such as `paddock/default/ab12`) in every hierarchy, enabling
    /// the controllers on the way down; on failure removes what it made. The last component
    /// must be new, those before may be there.
    pub fn create(hierarchies: &Hierarchies, path: &str) -> Result<Self, Error> {
        let components = path::components(path)?;
        create::everywhere(hierarchies, &components)?;
        Ok(Self {
            hierarchies: hierarchies.clone(),
            path: path.to_owned(),
        })
    }

    /// As [`Self::create`], but a path that is there already is taken as it is: another
    /// runtime's caller may have made it, with limits of its own.
    pub fn create_or_adopt(hierarchies: &Hierarchies, path: &str) -> Result<Self, Error> {
        let components = path::components(path)?;
        create::missing(hierarchies, &components)?;
        Ok(Self {
            hierarchies: hierarchies.clone(),
            path: path.to_owned(),
        })
    }

    /// Opens a path that exists in at least one hierarchy (found containers).
    pub fn open(hierarchies: &Hierarchies, path: &str) -> Result<Self, Error> {
        path::components(path)?;
        let found = Self {
            hierarchies: hierarchies.clone(),
            path: path.to_owned(),
        };
        if found.dirs().any(|dir| dir.is_dir()) {
            return Ok(found);
        }
        Err(Error::NotFound {
            path: path.to_owned(),
        })
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Writes the limits and reads them back: all, or none. An error names file or controller,
    /// value and the present use. What is so already is not written.
    pub fn apply(&self, limits: &Limits) -> Result<(), Error> {
        self.update(limits).map(drop)
    }

    /// As [`Self::apply`], for one that is to be taken back when something after it fails.
    pub fn update(&self, limits: &Limits) -> Result<Applied, Error> {
        let mut changes = self.plan(limits)?;
        let memory = if limits.memory.limit.is_some() {
            self.place("memory")
        } else {
            None
        };
        let Some(memory) = memory else {
            return change::execute(changes);
        };
        let room = memory::make_room(&memory, &limits.memory)?;
        if room.is_some() {
            // What they said before, the brake may have changed.
            for change in &mut changes {
                change.shown.clear();
            }
        }
        let applied = change::execute(changes).map_err(|error| memory::below_use(&memory, error));
        match room {
            Some(room) if applied.is_err() || limits.memory.high.is_none() => room.leave()?,
            _ => {}
        }
        applied
    }

    /// What is to be written; a limit that this host does not have ends it here.
    pub(crate) fn plan(&self, limits: &Limits) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        if limits.memory != MemoryLimits::default() {
            let place = self.limited_place("memory")?;
            changes.extend(memory::plan(&place, &limits.memory)?);
        }
        if limits.cpu != CpuLimits::default() {
            let place = self.limited_place("cpu")?;
            changes.extend(cpu::plan(&place, &limits.cpu)?);
        }
        if limits.cpuset != CpusetLimits::default() {
            let place = self.limited_place("cpuset")?;
            changes.extend(cpuset::plan(&place, &limits.cpuset)?);
        }
        if limits.io != IoLimits::default() {
            // v1's name for it.
            let place = self
                .limited_place("blkio")
                .or_else(|_| self.limited_place("io"))?;
            changes.extend(blkio::plan(&place, &limits.io)?);
        }
        if let Some(limit) = limits.pids {
            changes.extend(pids::plan(&self.limited_place("pids")?, limit)?);
        }
        if !limits.hugetlb.is_empty() {
            let place = self.limited_place("hugetlb")?;
            changes.extend(hugetlb::plan(&place, &limits.hugetlb)?);
        }
        if !limits.rdma.is_empty() {
            let place = self.limited_place("rdma")?;
            changes.extend(keyed::plan_rdma(&place, &limits.rdma)?);
        }
        if !limits.misc.is_empty() {
            let place = self.limited_place("misc")?;
            changes.extend(keyed::plan_misc(&place, &limits.misc)?);
        }
        for (name, value) in &limits.unified {
            changes.push(unified::plan(&self.unified_place(name)?, name, value)?);
        }
        Ok(changes)
    }

    /// Where a v2 file by that name is, its controller enabled.
    fn unified_place(&self, name: &str) -> Result<Place, Error> {
        let refused = |reason: String| Error::Limit {
            name: "cgroup file",
            value: name.to_owned(),
            reason,
        };
        let Some(controller) = unified::controller(name)? else {
            let dir = self
                .unified_dir()
                .ok_or_else(|| refused("this host has no cgroup v2".to_owned()))?;
            return Ok(Place {
                dir,
                version: Version::V2,
            });
        };
        match self.hierarchies.of(controller) {
            Some(found) if found.version == Version::V2 => {
                create::enable_on_the_way(
                    &found.mount,
                    &path::components(&self.path)?,
                    controller,
                )?;
                Ok(self.place_in(found))
            }
            Some(_) => Err(refused(format!(
                "the {controller} controller is on cgroup v1 here, this is for v2"
            ))),
            None => Err(refused(format!(
                "no mounted cgroup hierarchy has the {controller} controller"
            ))),
        }
    }

    /// Gives the parents of a v1 cgroup the real-time budget that it and its siblings take: for
    /// parents that are the caller's. What cannot be given, the limit's own error tells.
    pub fn lend_real_time(&self, limits: &CpuLimits) {
        let Some(hierarchy) = self.hierarchies.of("cpu") else {
            return;
        };
        if hierarchy.version == Version::V1 {
            cpu::lend_real_time(&hierarchy.mount, &self.place_in(hierarchy).dir, limits);
        }
    }

    /// v1's file that keeps real-time policies from all in it: its budget is 0, and the kernel
    /// answers a bare EPERM, to any root.
    pub fn without_real_time(&self) -> Option<PathBuf> {
        let place = self.place("cpu")?;
        let path = place.file("cpu.rt_runtime_us");
        let budget = file::read_optional(&path).ok()??;
        (place.version == Version::V1 && budget == "0").then_some(path)
    }

    /// Limits device nodes where v1's controller is mounted. Else the v2 directory, to which the
    /// caller is to attach [`devices::device_program`] of the same rules.
    pub fn limit_devices(&self, rules: &[devices::DeviceRule]) -> Result<Option<OwnedFd>, Error> {
        if let Some(place) = self.place("devices").filter(|place| place.dir.is_dir()) {
            devices::apply(&place, rules)?;
            return Ok(None);
        }
        match self.unified_fd()? {
            Some(directory) => Ok(Some(directory)),
            None => Err(Error::NoController {
                controller: "devices",
                hint: "",
            }),
        }
    }

    /// Whether the kernel can limit swap here; without, a `memory_swap` that needs it is an error.
    pub fn accounts_swap(&self) -> bool {
        self.place("memory")
            .is_some_and(|place| memory::accounts_swap(&place))
    }

    /// The v2 directory for `CLONE_INTO_CGROUP`; `None` without a v2 hierarchy.
    pub fn unified_fd(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(dir) = self.unified_dir() else {
            return Ok(None);
        };
        match fs::File::open(&dir) {
            Ok(file) => Ok(Some(file.into())),
            Err(source) => Err(Error::Io {
                op: "open",
                path: dir,
                source,
            }),
        }
    }

    /// `tasks` in the v1 hierarchies, where a thread that writes `0` joins by itself.
    pub fn v1_tasks(&self) -> Vec<PathBuf> {
        self.hierarchies
            .all()
            .filter(|one| one.version == Version::V1)
            .map(|one| one.mount.join(&self.path).join("tasks"))
            .collect()
    }

    /// The ids the kernel half keys on: inode numbers of the directories.
    pub fn ids(&self) -> Result<CgroupIds, Error> {
        let v1 = |name| match self.place(name) {
            Some(place) if place.version == Version::V1 => inode(&place.dir),
            _ => Ok(None),
        };
        Ok(CgroupIds {
            unified: match self.unified_dir() {
                Some(dir) => inode(&dir)?,
                None => None,
            },
            memory_v1: v1("memory")?,
            pids_v1: v1("pids")?,
        })
    }

    /// Moves a process in, in the v2 hierarchy where there is one.
    pub fn attach_unified(&self, pid: i32) -> Result<(), Error> {
        let pid = pid.to_string();
        self.unified_dir()
            .map_or(Ok(()), |dir| file::write(&dir.join("cgroup.procs"), &pid))
    }

    /// Moves a process in, in every hierarchy.
    pub fn attach(&self, pid: i32) -> Result<(), Error> {
        let pid = pid.to_string();
        self.dirs()
            .try_for_each(|dir| file::write(&dir.join("cgroup.procs"), &pid))
    }

    /// Process ids in this cgroup and below, in any hierarchy.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let mut found = BTreeSet::new();
        for dir in self.dirs() {
            tree::pids(&dir, &mut found)?;
        }
        Ok(found.into_iter().collect())
    }

    /// Stops every task in it and below.
    pub fn freeze(&self) -> Result<(), Error> {
        self.set_frozen(true)
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<(), Error> {
        self.set_frozen(false)
    }

    /// Whether every task in it is stopped, by whoever did it.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        freezer::is_frozen(&self.freezer_place()?)
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), Error> {
        freezer::set(&self.freezer_place()?, &self.path, frozen)
    }

    /// Reads use and limits now. A value the host does not offer is `None`.
    pub fn stats(&self) -> Result<Stats, Error> {
        stats::read(self)
    }

    /// CPU time used, in microseconds: one file.
    pub fn cpu_usage(&self) -> Result<Option<u64>, Error> {
        stats::cpu_usage(self)
    }

    /// The directory of the hierarchy that has `controller`, if any.
    pub(crate) fn place(&self, controller: &str) -> Option<Place> {
        self.hierarchies
            .of(controller)
            .map(|found| self.place_in(found))
    }

    pub(crate) fn place_in(&self, hierarchy: &Hierarchy) -> Place {
        Place {
            dir: hierarchy.mount.join(&self.path),
            version: hierarchy.version,
        }
    }

    /// As [`Self::place`]; in v2 it enables the controller where creation could not.
    fn limited_place(&self, controller: &'static str) -> Result<Place, Error> {
        let hierarchy = self.hierarchies.require(controller)?;
        if hierarchy.version == Version::V2 {
            create::enable_on_the_way(
                &hierarchy.mount,
                &path::components(&self.path)?,
                controller,
            )?;
        }
        Ok(self.place_in(hierarchy))
    }

    /// v1's freezer where it is mounted and has this cgroup, else v2's, which needs no controller.
    pub(crate) fn freezer_place(&self) -> Result<Place, Error> {
        if let Some(place) = self.place("freezer").filter(|place| place.dir.is_dir()) {
            return Ok(place);
        }
        match self.unified_dir() {
            Some(dir) => Ok(Place {
                dir,
                version: Version::V2,
            }),
            None => Err(Error::NoController {
                controller: "freezer",
                hint: "",
            }),
        }
    }

    pub(crate) fn unified_dir(&self) -> Option<PathBuf> {
        self.hierarchies
            .unified()
            .map(|mount| mount.join(&self.path))
    }

    /// Its directories, one a hierarchy, v2 first.
    pub fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.all().map(|one| one.mount.join(&self.path))
    }
}

/// Inode numbers of a cgroup's directories: kernel `cgroup_id`, unique per hierarchy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupIds {
    pub unified: Option<u64>,
    pub memory_v1: Option<u64>,
    pub pids_v1: Option<u64>,
}

/// `None` where the path is not in that hierarchy.
fn inode(dir: &Path) -> Result<Option<u64>, Error> {
    match fs::metadata(dir) {
        Ok(found) => Ok(Some(found.ino())),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io {
            op: "stat",
            path: dir.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
