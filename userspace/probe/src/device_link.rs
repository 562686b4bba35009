//! The link of a device program, so that the program outlives the loader.
//!
//! aya keeps this kind's descriptor to itself. It is told among the own ones by what procfs says of
//! it, and pinned as what aya does pin by a bare descriptor, a map: to the kernel the call is the
//! same for whatever object of BPF's it is.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use aya::{
    maps::MapData,
    programs::{
        CgroupAttachMode, CgroupDevice,
        links::{FdLink, PinnedLink},
    },
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::{cgroup_links, hierarchies, load::Refused, pins};

/// Its name while it is taken over from aya. What a loader that died on the way has left is removed.
const PASSING: &str = "passing";

/// By a link several may hang at the root all the same.
pub(crate) fn attach(program: &mut CgroupDevice, pin_dir: &Path) -> Result<FdLink, Refused> {
    let root = hierarchies::unified_root()
        .map_err(|error| Refused::from_error("open the root of cgroup v2", &error))?;
    let number = program.info()?.id();
    let id = program.attach(root, CgroupAttachMode::Single)?;
    // It goes when this does, and by then the other descriptor holds it.
    let _held = program.take_link(id)?;
    let link = descriptor(number).map_err(|error| Refused::from_error("find its link", &error))?;
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
