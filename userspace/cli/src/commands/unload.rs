//! `paddock unload`: end the agent and take everything of the kernel half down, also what an
//! agent that was killed left. Containers that run go on, unwatched.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hyper::Method;
use nix::fcntl::{Flock, FlockArg, OFlag};
use paddock_cgroups::Hierarchies;
use paddock_probe::Probe;

use super::Context;
use crate::client::{Client, Error};

/// An agent ends within a second; an emulated machine needs more.
const PATIENCE: Duration = Duration::from_secs(30);
/// What only a running agent needs, the lock last.
const FILES: [&str; 4] = ["paddock.sock", "agent.json", "events.next", "lock"];

/// End the agent and remove its programs and maps from the kernel
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    paddock unload")]
pub(crate) struct Unload {}

impl Unload {
    #[expect(clippy::unused_self, reason = "commands have one form")]
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let state_dir = &context.state_dir;
        // An agent that ends takes its note of it along.
        let parent = paddock_agent::cgroup_parent(state_dir);
        match Client::new(state_dir)?.send(Method::POST, "/v1/shutdown") {
            // One that ended before its answer was out has ended.
            Ok(()) | Err(Error::NoAgent { .. } | Error::Broken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let pins = state_dir.join("bpf");
        let Some(lock) = lock(state_dir, pins.exists())? else {
            return Ok(0);
        };
        if pins.exists() {
            Probe::unload_pins(&pins)
                .with_context(|| format!("cannot remove the pins in {}", pins.display()))?;
        }
        // An agent keeps them for its next container, and one that was killed left them.
        let parent = parent.with_context(|| format!("{}: cannot resolve", state_dir.display()))?;
        let hierarchies = Hierarchies::discover().context("cannot read the host's cgroups")?;
        hierarchies.remove_empty(&parent);
        if let Some(base) = paddock_agent::delegated_base(&parent) {
            hierarchies.leave_delegated(base);
        }
        for name in FILES {
            remove(&state_dir.join(name))?;
        }
        drop(lock);
        // Both stay where containers have left something.
        let _ = fs::remove_dir(state_dir.join("containers"));
        let _ = fs::remove_dir(&pins);
        if *state_dir == Path::new(crate::args::STATE_DIR) {
            let _ = fs::remove_dir(state_dir);
        }
        Ok(0)
    }
}

/// Waits until no agent has the instance, and keeps one from coming meanwhile. `None` where
/// there is nothing to lock and nothing left.
fn lock(state_dir: &Path, left: bool) -> anyhow::Result<Option<Flock<File>>> {
    let path = state_dir.join("lock");
    let end = Instant::now() + PATIENCE;
    loop {
        let file = File::options()
            .read(true)
            .write(left)
            .create(left)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path);
        let file = match file {
            Ok(file) => file,
            // An agent that ended well takes it along, but for the pins, which go on counting.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("{}: cannot open", path.display()));
            }
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => anyhow::bail!("the agent of {} does not end", state_dir.display()),
        }
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}: cannot remove", path.display()))
        }
        _ => Ok(()),
    }
}
