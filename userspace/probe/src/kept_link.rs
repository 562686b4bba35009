//! Links of device and sysctl programs, so that the programs outlive the loader.
//!
//! aya keeps these kinds' descriptors to itself. One is told among the own ones by what procfs says of
//! it, and pinned as what aya does pin by a bare descriptor, a map: to the kernel the call is the
//! same for whatever object of BPF's it is.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::{
    maps::MapData,
    programs::{
        CgroupAttachMode, CgroupDevice, CgroupSysctl,
        links::{FdLink, PinnedLink},
    },
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::{cgroup_links, hierarchies, load::Refused, pins};

/// Its name while it is taken over from aya. What a loader that died on the way has left is removed.
const PASSING: &str = "passing";

/// By a link several may hang at the root all the same.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

pub(crate) fn device(program: &mut CgroupDevice, pin_dir: &Path) -> Result<FdLink, Refused> {
    let number = program.info()?.id();
    let id = program.attach(root()?, MODE)?;
    // It goes when this does, and by then the other descriptor holds it.
    let _held = program.take_link(id)?;
    another(number, pin_dir)
}

pub(crate) fn sysctl(program: &mut CgroupSysctl, pin_dir: &Path) -> Result<FdLink, Refused> {
    let number = program.info()?.id();
    let id = program.attach(root()?, MODE)?;
    // As above.
    let _held = program.take_link(id)?;
    another(number, pin_dir)
}

fn root() -> Result<impl AsFd, Refused> {
    hierarchies::unified_root()
        .map_err(|error| Refused::from_error("open the root of cgroup v2", &error))
}

/// Of the same link.
fn another(program: u32, pin_dir: &Path) -> Result<FdLink, Refused> {
    let link = descriptor(program).map_err(|error| Refused::from_error("find its link", &error))?;
    let path = pins::new_link_path(pin_dir, PASSING);
    let _ = fs::remove_file(&path);
    let refused = |error: &(dyn std::error::Error + 'static)| Refused::from_error("pin", error);
    MapData::from_fd(link)
        .map_err(|error| refused(&error))?
        .pin(&path)
        .map_err(|error| refused(&error))?;
    let pinned = PinnedLink::from_pin(&path).map_err(|error| refused(&error))?;
    pinned.unpin().map_err(|error| refused(&error))
}

/// Another descriptor of the link that this process has of a program of a cgroup.
fn descriptor(program: u32) -> io::Result<OwnedFd> {
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        let entry = entry?;
        // The directory's own is closed by the time that it is read.
        let Ok(info) = fs::read_to_string(entry.path()) else {
            continue;
        };
        if cgroup_links::hangs(&info) != Some(program) {
            continue;
        }
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(number) = number else { continue };
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        return Ok(pidfd_getfd(own, number, PidfdGetfdFlags::empty())?);
    }
    Err(io::ErrorKind::NotFound.into())
}
