//! A file system of the kernel's for a moment.
//!
//! Many hosts do not mount it. A short-lived thread with a mount namespace of its own does,
//! so that nothing is ever mounted on the host.

use std::{io, thread};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::statfs::{FsType, statfs},
};

pub(crate) struct Filesystem {
    pub(crate) kind: &'static str,
    pub(crate) mount_point: &'static str,
    pub(crate) magic: FsType,
}

impl Filesystem {
    /// Runs `work` where the file system is at its usual place.
    pub(crate) fn with<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        // Once more over itself is EBUSY.
        if statfs(self.mount_point).is_ok_and(|found| found.filesystem_type() == self.magic) {
            return Ok(work());
        }
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.mount_privately()?;
                Ok(work())
            });
            worker.join().unwrap_or_else(|_| {
                Err(io::Error::other(format!(
                    "the {} thread panicked",
                    self.kind
                )))
            })
        })
    }

    fn mount_privately(&self) -> io::Result<()> {
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let mounted = mount(
            Some(self.kind),
            self.mount_point,
            Some(self.kind),
            MsFlags::empty(),
            none,
        );
        match mounted {
            // It is there already.
            Ok(()) | Err(Errno::EBUSY) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
