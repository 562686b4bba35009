//! Remove a cgroup with what is below it, in every hierarchy.
//!
//! The kernel answers EBUSY for a moment after the last process is gone; that is waited out
//! for a short time. A cgroup that still has processes stays and is the error.

use std::{
    fs,
    io::ErrorKind::{DirectoryNotEmpty, NotFound, ResourceBusy},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    Cgroup, Error, Hierarchies,
    delegation::{is_delegated, is_made},
    tree::children,
};

const TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(2);

impl Cgroup {
    /// Removes it and what is below, in every hierarchy, and the parents that this leaves
    /// empty. Gone already is no error. All hierarchies are tried; the first error is told.
    pub fn remove(&self) -> Result<(), Error> {
        self.remove_and(|mount, dir| self.hierarchies.remove_empty_parents(mount, dir))
    }

    /// The same, but the parents stay: they are somebody else's.
    pub fn remove_alone(&self) -> Result<(), Error> {
        self.remove_and(|_, _| {})
    }

    /// Whoever removed the last container of a delegated cgroup gives that back as it was.
    pub fn hand_back(&self) {
        // As the agent makes it: `BASE/paddock/INSTANCE/ID`.
        let base = Path::new(&self.path).ancestors().nth(3);
        if let Some(base) = base.and_then(Path::to_str).filter(|base| !base.is_empty()) {
            self.hierarchies.leave_delegated(base);
        }
    }

    fn remove_and(&self, then: impl Fn(&Path, &Path)) -> Result<(), Error> {
        let deadline = Instant::now() + TIMEOUT;
        let mut first = Ok(());
        for hierarchy in self.hierarchies.all() {
            let dir = hierarchy.mount.join(&self.path);
            match tree(&dir, deadline) {
                Ok(()) => then(&hierarchy.mount, &dir),
                Err(error) if first.is_ok() => first = Err(error),
                Err(_) => {}
            }
        }
        first
    }
}

impl Hierarchies {
    /// Removes the cgroup where nothing is in it, and the parents that this leaves empty.
    pub fn remove_empty(&self, path: &Path) {
        for hierarchy in self.all() {
            let dir = hierarchy.mount.join(path);
            if fs::remove_dir(&dir).is_ok() {
                self.remove_empty_parents(&hierarchy.mount, &dir);
            }
        }
    }

    /// Ends at the first that is in use; a create that loses its parent so starts again. From a
    /// delegated cgroup on upwards only what paddock made is its to remove.
    fn remove_empty_parents(&self, mount: &Path, dir: &Path) {
        let mut given = false;
        for parent in dir.ancestors().skip(1) {
            let Some(path) = parent.strip_prefix(mount).ok().filter(|_| parent != mount) else {
                return;
            };
            given |= self
                .managed()
                .is_some_and(|managed| is_delegated(&managed.join(path)));
            if (given && !is_made(parent)) || fs::remove_dir(parent).is_err() {
                return;
            }
        }
    }
}

fn tree(dir: &Path, deadline: Instant) -> Result<(), Error> {
    let mut pause = Duration::ZERO;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(source) if source.kind() == NotFound => return Ok(()),
            Err(source)
                if matches!(source.kind(), ResourceBusy | DirectoryNotEmpty)
                    && Instant::now() < deadline =>
            {
                // Those below it are the same errno as the moment after the last process.
                for child in children(dir)? {
                    tree(&child, deadline)?;
                }
                sleep(pause);
                pause = PAUSE;
            }
            Err(source) => {
                return Err(Error::Io {
                    op: "remove cgroup",
                    path: dir.to_owned(),
                    source,
                });
            }
        }
    }
}
