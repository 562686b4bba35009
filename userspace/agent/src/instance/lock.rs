//! `STATE/lock`: held by flock as long as the agent lives, so a kill -9 frees it.
//!
//! Its text is the holder's pid and, on a second line, whether paddock made the directory.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg, OFlag};

use super::Error;

const MADE: &str = "made";
/// A client that looks whether an agent is there holds a shared lock for a moment.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);
/// One that ends has no socket any more and still takes its programs down: it is waited for.
const ENDING: u32 = 1000;

#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    file: Flock<File>,
    made_directory: bool,
}

impl Lock {
    pub(super) fn take(dir: &Path, made: bool) -> Result<Self, Error> {
        let path = dir.join("lock");
        let failed = |op| {
            let path = path.clone();
            move |source| Error::Io { op, path, source }
        };
        let socket = dir.join("paddock.sock");
        let (mut left, mut ending) = (TRIES, ENDING);
        loop {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(&path)
                .map_err(failed("open"))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // The holder before may have removed the name between our open and our lock.
                Ok(file) if is_named(&file, &path) => {
                    let mut lock = Self {
                        made_directory: made,
                        path: path.clone(),
                        file,
                    };
                    lock.write().map_err(failed("write"))?;
                    return Ok(lock);
                }
                Ok(_) => {}
                Err((file, _)) if left == 0 => {
                    return Err(Error::Running {
                        path: dir.to_owned(),
                        pid: holder(file),
                    });
                }
                Err(_) => {
                    if ending > 0 && !socket.exists() {
                        ending -= 1;
                    } else {
                        left -= 1;
                    }
                    sleep(PAUSE);
                }
            }
        }
    }

    pub(crate) fn made_directory(&self) -> bool {
        self.made_directory
    }

    /// Removes the name; whoever opened it meanwhile finds that when the lock is dropped, and
    /// starts again. `keep` leaves it without a pid, where it must go on telling who made the
    /// directory.
    pub(super) fn release(&mut self, keep: bool) {
        // A text that stays is a dead agent's, which is what it then is.
        if !(keep && self.made_directory) {
            let _ = fs::remove_file(&self.path);
        } else if self.file.set_len(0).is_ok() && self.file.rewind().is_ok() {
            let _ = writeln!(self.file, "\n{MADE}");
        }
    }

    /// Our pid over the text of the one before, which knew whether paddock made the directory.
    fn write(&mut self) -> io::Result<()> {
        let mut before = String::new();
        self.file.read_to_string(&mut before)?;
        self.made_directory |= before.lines().nth(1) == Some(MADE);
        let made = if self.made_directory { MADE } else { "" };
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}\n{made}", std::process::id())
    }
}

fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn holder(mut file: File) -> Option<i32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.lines().next()?.parse().ok()
}
