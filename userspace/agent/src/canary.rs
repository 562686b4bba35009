//! The agent plays itself a harmless escape now and then, and waits until it hears of it: that
//! nothing was told for a week may be good news or a chain that is broken somewhere between hook
//! and reader, and only this tells the two apart.
//!
//! The escape is real: a process in a cgroup with a slot and a UTS namespace of its own joins the
//! namespace that the agent is in, the host's, and ends. It is no container: nothing of it is told
//! or counted but here.
//! What cannot be played is counted as failed, and logged once.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::dup2_stdin,
};
use paddock_cgroups::Cgroup;
use paddock_probe::{Body, Record, Shares, Slot};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{chain::chain, clock, found, kernel::EnrolError, shared::Shared};

/// How the process is called that plays it.
pub const ARGV0: &str = "paddock-canary";
/// Below the containers' parent, where their ids are.
const NAME: &str = "canary";
/// From the act to the reader; a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process' last record comes soon after, or was thinned out.
const CURTAIN: Duration = Duration::from_secs(1);

/// What came of it so far.
#[derive(Debug, Default)]
pub(crate) struct Canary {
    /// The slot that is listened for, 0 for none.
    slot: AtomicU64,
    heard: watch::Sender<Heard>,
    /// When the first one was to be played, nanoseconds since the epoch; 0 for never.
    since_ns: AtomicU64,
    seen: AtomicU64,
    missed: AtomicU64,
    failed: AtomicU64,
    last: Mutex<Option<Last>>,
}

/// Of the one that is played now.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    act: bool,
    end: bool,
}

/// Of the last one that was heard of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    pub(crate) at_ns: u64,
    /// From the kernel's record to here.
    pub(crate) took: Duration,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Cgroup(#[from] paddock_cgroups::Error),
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    #[error("cannot run the process that plays it")]
    Process(#[source] io::Error),
    #[error("the process that plays it ended with {0}")]
    Ended(std::process::ExitStatus),
}

impl Canary {
    /// Whether a record is its own; it is not told then.
    pub(crate) fn hears(&self, record: &Record, boot_ns: u64) -> bool {
        if record.slot == Slot(0) || u64::from(record.slot.0) != self.slot.load(Ordering::Acquire) {
            return false;
        }
        if matches!(record.body, Body::Exit { .. }) {
            self.heard.send_modify(|heard| heard.end = true);
        }
        if matches!(record.body, Body::NsCall { .. }) {
            let at_ns = clock::now_ns();
            let took = at_ns.saturating_sub(boot_ns + record.time_ns);
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Last {
                at_ns,
                took: Duration::from_nanos(took),
            });
            self.heard.send_modify(|heard| heard.act = true);
        }
        true
    }

    pub(crate) fn plays(&self) -> bool {
        self.since() != 0
    }

    pub(crate) fn since(&self) -> u64 {
        self.since_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn last(&self) -> Option<Last> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many ended how.
    pub(crate) fn outcomes(&self) -> [(&'static str, u64); 3] {
        [
            ("seen", &self.seen),
            ("missed", &self.missed),
            ("failed", &self.failed),
        ]
        .map(|(word, count)| (word, count.load(Ordering::Relaxed)))
    }
}

/// Plays until the agent ends.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let Some(every) = shared.options.canary else {
        return;
    };
    if let Some(reason) = shared
        .kernel
        .why_not("setns")
        .filter(|_| !shared.kernel.serves("setns"))
    {
        tracing::warn!("no canary: setns is not watched: {reason}");
        return;
    }
    // What comes out of a container's cgroup stays the container's: it would be told to have
    // escaped each time.
    if found::agent_is_within(&shared) {
        tracing::info!("no canary: the agent is in a container, whose escape it would be");
        return;
    }
    shared
        .canary
        .since_ns
        .store(clock::now_ns(), Ordering::Relaxed);
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = shutdown.wait_for(|down| *down) => return,
        }
        let canary = &shared.canary;
        match play(&shared, &mut shutdown).await {
            Ok(None) => return,
            Ok(Some(true)) => canary.seen.fetch_add(1, Ordering::Relaxed),
            Ok(Some(false)) => {
                tracing::error!("canary: an escape was played and nothing was heard of it");
                canary.missed.fetch_add(1, Ordering::Relaxed)
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!("canary: cannot play an escape: {}", chain(&error));
                }
                canary.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// Whether it was heard of; nothing when the agent ends meanwhile, and its reader with it.
async fn play(
    shared: &Arc<Shared>,
    shutdown: &mut watch::Receiver<bool>,
) -> Result<Option<bool>, Error> {
    let stage = {
        let shared = Arc::clone(shared);
        tokio::task::spawn_blocking(move || Stage::set(&shared)).await
    };
    let stage = stage.map_err(|error| Error::Process(io::Error::other(error)))??;
    let mut records = shared.canary.heard.subscribe();
    let performance = tokio::task::spawn_blocking(move || {
        let played = stage.perform();
        (stage, played)
    });
    let (stage, played) = performance
        .await
        .map_err(|error| Error::Process(io::Error::other(error)))?;
    let outcome = match played {
        Ok(()) => Ok(tokio::select! {
            seen = heard_of(&mut records) => Some(seen),
            _ = shutdown.wait_for(|down| *down) => None,
        }),
        Err(error) => Err(error),
    };
    // Files are removed, maps written.
    let _ = tokio::task::spawn_blocking(move || drop(stage)).await;
    outcome
}

async fn heard_of(records: &mut watch::Receiver<Heard>) -> bool {
    let act = timeout(PATIENCE, records.wait_for(|heard| heard.act))
        .await
        .map(drop);
    // What is told of it later would be somebody else's.
    let _ = timeout(CURTAIN, records.wait_for(|heard| heard.end))
        .await
        .map(drop);
    act.is_ok()
}

/// A cgroup with a slot; taken down when dropped.
struct Stage {
    shared: Arc<Shared>,
    cgroup: Cgroup,
    slot: Option<Slot>,
}

impl Stage {
    fn set(shared: &Arc<Shared>) -> Result<Self, Error> {
        let path = shared.instance.cgroup_of(NAME);
        let mut stage = Self {
            cgroup: Cgroup::create_or_adopt(&shared.hierarchies, &path)?,
            shared: Arc::clone(shared),
            slot: None,
        };
        stage.slot = shared
            .kernel
            .enrol(&stage.cgroup.ids()?, &Shares::default(), 0)?;
        shared.canary.heard.send_replace(Heard::default());
        let slot = stage.slot.map_or(0, |slot| u64::from(slot.0));
        shared.canary.slot.store(slot, Ordering::Release);
        Ok(stage)
    }

    fn perform(&self) -> Result<(), Error> {
        let mut player = Command::new("/proc/self/exe")
            .arg0(ARGV0)
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::Process)?;
        let on_stage = self.cgroup.attach(player.id().cast_signed());
        let cue = player.stdin.take().map(|mut stdin| match &on_stage {
            Ok(()) => stdin.write_all(b"!"),
            // It ends at the end of its input.
            Err(_) => Ok(()),
        });
        let ended = player.wait().map_err(Error::Process)?;
        on_stage?;
        cue.transpose().map_err(Error::Process)?;
        if ended.success() {
            Ok(())
        } else {
            Err(Error::Ended(ended))
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shared.canary.slot.store(0, Ordering::Release);
        if let Some(slot) = self.slot
            && let Err(error) = self.shared.kernel.release(slot)
        {
            tracing::warn!("canary: {}", chain(&error));
        }
        if let Err(error) = self.cgroup.remove_alone() {
            tracing::warn!("canary: {}", chain(&error));
        }
    }
}

/// The process. It leaves the host's UTS namespace, comes into the stage's cgroup, begins anew
/// there, and joins the host's again. A refusal is heard of like the act itself. Whether it could
/// be played.
pub fn perform(mut words: impl Iterator<Item = OsString>) -> bool {
    let next = match words.next().as_ref().and_then(|word| word.to_str()) {
        // Who was put into a cgroup from outside is in set-up until it executes something; a
        // runtime may execute itself once.
        None if prepare() => "again",
        Some("again") => "act",
        Some("act") => {
            let _ = setns(io::stdin(), CloneFlags::CLONE_NEWUTS);
            return true;
        }
        _ => return false,
    };
    let _failed = Command::new("/proc/self/exe").arg0(ARGV0).arg(next).exec();
    false
}

/// The way back is standard input, once the cue came by it.
fn prepare() -> bool {
    let Ok(host) = File::open("/proc/self/ns/uts") else {
        return false;
    };
    let left = unshare(CloneFlags::CLONE_NEWUTS).is_ok();
    let mut cue = [0];
    left && matches!(io::stdin().read(&mut cue), Ok(1)) && dup2_stdin(host).is_ok()
}
