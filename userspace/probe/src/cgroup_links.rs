//! Links of the root cgroup: unlike others' they can be detached, and another program put in, by
//! whoever has a descriptor of one. What hangs there is looked at by what procfs says of the own
//! descriptors, and hung up again.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use aya::programs::{
    CgroupAttachMode, CgroupDevice, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr,
    CgroupSockAddrAttachType as Asked, CgroupSysctl, ProgramError,
    links::{FdLink, PinnedLink},
};

use crate::{Error, Probe, attachment::Kept, hierarchies, kept_link, pins};

/// One of this process' own, as it has to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hanging {
    /// The descriptor's own file in procfs.
    info: PathBuf,
    program: u32,
}

/// By the program's name; `programs` names them by their ids.
pub(crate) fn own(programs: &BTreeMap<u32, String>) -> io::Result<BTreeMap<String, Hanging>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        let info = entry?.path();
        // The directory's own is closed by the time that it is read.
        let Ok(text) = fs::read_to_string(&info) else {
            continue;
        };
        if let Some(program) = hangs(&text)
            && let Some(name) = programs.get(&program)
        {
            found.insert(name.clone(), Hanging { info, program });
        }
    }
    Ok(found)
}

impl Hanging {
    pub(crate) fn is_there(&self) -> bool {
        fs::read_to_string(&self.info).is_ok_and(|text| hangs(&text) == Some(self.program))
    }
}

/// The program of a cgroup's link. One that was detached has no cgroup.
pub(crate) fn hangs(info: &str) -> Option<u32> {
    let value = |key: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(":\t"));
        lines.find(|(one, _)| *one == key).map(|(_, value)| value)
    };
    if value("link_type")? != "cgroup" || value("cgroup_id")? == "0" {
        return None;
    }
    value("prog_id")?.parse().ok()
}

impl Probe {
    /// The pinned program anew, in the old link's place.
    pub(crate) fn hang_again(&mut self, program: &str) -> Result<(), Error> {
        let path = pins::program_path(&self.pin_dir, program);
        let refused = |source: ProgramError| Error::Program {
            path: path.clone(),
            source: Box::new(source),
        };
        let link = if let Some(asked) = asked(program) {
            let root = hierarchies::unified_root().map_err(|source| refused(source.into()))?;
            let mut loaded = CgroupSockAddr::from_pin(&path, asked).map_err(refused)?;
            let id = loaded
                .attach(root, CgroupAttachMode::Single)
                .map_err(refused)?;
            let link = loaded.take_link(id).map_err(refused)?;
            FdLink::try_from(link).map_err(|error| refused(io::Error::other(error).into()))?
        } else if let Some(way) = way(program) {
            let root = hierarchies::unified_root().map_err(|source| refused(source.into()))?;
            let mut loaded = CgroupSkb::from_pin(&path, way).map_err(refused)?;
            let id = loaded
                .attach(root, way, CgroupAttachMode::Single)
                .map_err(refused)?;
            let link = loaded.take_link(id).map_err(refused)?;
            FdLink::try_from(link).map_err(|error| refused(io::Error::other(error).into()))?
        } else {
            let kept = if program == "cgroup_sysctl" {
                let mut loaded = CgroupSysctl::from_pin(&path).map_err(refused)?;
                kept_link::sysctl(&mut loaded, &self.pin_dir)
            } else {
                let mut loaded = CgroupDevice::from_pin(&path).map_err(refused)?;
                kept_link::device(&mut loaded, &self.pin_dir)
            };
            kept.map_err(|error| refused(io::Error::other(error.reason).into()))?
        };
        let new = pins::new_link_path(&self.pin_dir, program);
        let pinned: PinnedLink = link.pin(&new).map_err(|source| Error::Pin {
            path: new.clone(),
            source,
        })?;
        let place = pins::link_path(&self.pin_dir, program);
        fs::rename(&new, &place).map_err(Error::io("rename", &new))?;
        self.links.push(Kept::Pinned(pinned));
        self.introduce()
    }
}

/// What a program that judges sockets is asked at.
fn asked(program: &str) -> Option<Asked> {
    Some(match program {
        "cgroup_connect4" => Asked::Connect4,
        "cgroup_connect6" => Asked::Connect6,
        "cgroup_sendmsg4" => Asked::UDPSendMsg4,
        "cgroup_sendmsg6" => Asked::UDPSendMsg6,
        _ => return None,
    })
}

/// Which way what a program counts goes.
fn way(program: &str) -> Option<CgroupSkbAttachType> {
    match program {
        "cgroup_ingress" => Some(CgroupSkbAttachType::Ingress),
        "cgroup_egress" => Some(CgroupSkbAttachType::Egress),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_link_hangs_nowhere() {
        // As Linux 6.18 writes it.
        let info = "pos:\t0\nflags:\t02\nmnt_id:\t16\nino:\t1057\nlink_type:\tcgroup\nlink_id:\t7\n\
            prog_tag:\t0123456789abcdef\nprog_id:\t23\ncgroup_id:\t1\nattach_type:\t10\n";
        assert_eq!(hangs(info), Some(23));
        assert_eq!(hangs(&info.replace("cgroup_id:\t1", "cgroup_id:\t0")), None);
        assert_eq!(hangs(&info.replace("\tcgroup\n", "\ttracing\n")), None);
        assert_eq!(hangs("pos:\t0\n"), None);
    }
}
