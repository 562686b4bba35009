//! An agent for those who did not start one: the same binary, in the background, with its
//! metrics on a free port. It ends by itself when nothing runs and nobody asks (docs/adr/0004).
//!
//! Fails with the last line the agent wrote before it died.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::client::socket;

/// Loading the kernel half takes some hundred milliseconds, more in an emulated machine.
const PATIENCE: Duration = Duration::from_mins(1);
const STEP: Duration = Duration::from_millis(5);

/// Returns when an agent listens, one of ours if there was none.
pub(crate) fn ensure(state_dir: &Path, data_dir: &Path) -> anyhow::Result<()> {
    if answers(state_dir) {
        return Ok(());
    }
    let (mut child, mut log) =
        spawn(state_dir, data_dir).context("cannot start an agent in the background")?;
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if answers(state_dir) {
            return Ok(());
        }
        let ended = child
            .try_wait()
            .context("cannot wait for the agent in the background")?;
        // Of two that start at the same time one gives up, and the other serves both.
        if ended.is_some() && !is_locked(state_dir) && !answers(state_dir) {
            anyhow::bail!("the agent in the background ended: {}", last_line(&mut log));
        }
        // One that takes long is not hurried by asking often.
        std::thread::sleep(STEP.max(started.elapsed() / 50));
    }
    anyhow::bail!(
        "the agent in the background does not answer on {} after {} s: {}",
        socket(state_dir).display(),
        PATIENCE.as_secs(),
        last_line(&mut log)
    );
}

fn answers(state_dir: &Path) -> bool {
    UnixStream::connect(socket(state_dir)).is_ok()
}

fn is_locked(state_dir: &Path) -> bool {
    File::open(state_dir.join("lock"))
        .is_ok_and(|lock| Flock::lock(lock, FlockArg::LockSharedNonblock).is_err())
}

/// Its stderr goes to a memory file: readable here while it starts, and writable for it ever
/// after, when a pipe would have broken.
fn spawn(state_dir: &Path, data_dir: &Path) -> std::io::Result<(Child, File)> {
    let log = File::from(memfd_create(c"paddock-agent-log", MFdFlags::MFD_CLOEXEC)?);
    let child = Command::new("/proc/self/exe")
        .arg0("paddock")
        .arg("--state-dir")
        .arg(state_dir)
        .arg("--data-dir")
        .arg(data_dir)
        .args([
            "agent",
            "--ephemeral",
            "--detach-on-exit",
            "--web.listen-address",
            "127.0.0.1:0",
            "--web.systemd-socket=false",
        ])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.try_clone()?)
        .spawn()?;
    Ok((child, log))
}

fn last_line(log: &mut File) -> String {
    let mut text = String::new();
    // Not UTF-8 or unreadable: then there is no line to show.
    let _ = log.rewind().and_then(|()| log.read_to_string(&mut text));
    let line = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing");
    line.strip_prefix("paddock: ").unwrap_or(line).to_owned()
}
