//! The demo behind `cargo xtask run`: five acts through the public command line, each shown
//! as it happens and then checked by a second witness.
//!
//! Runs as root on v1, hybrid and v2 hosts. Any failed check makes the exit code 1; whatever
//! happens, the agent is ended and what the acts made is removed and looked for.

pub mod acts;
pub mod byhand;
pub mod observed;
pub mod stage;

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;

use self::stage::Stage;

type Act = (&'static str, fn(&mut Stage) -> Result<()>);

/// Plays all acts; `Ok(true)` when every check held.
///
/// # Errors
/// What could not even be started: no binary, no agent.
pub fn play(bin: PathBuf, once: bool) -> Result<bool> {
    let interrupt = Arc::new(stage::Interrupt::install()?);
    let mut stage = Stage::open(bin, Arc::clone(&interrupt))?;
    let acts: [Act; 5] = [
        ("greedy: 64 MiB, and it wants more", acts::greedy),
        (
            "busy: a tenth of a processor, and it spins for 5 s",
            acts::busy,
        ),
        ("quiet: seven namespaces of its own", acts::quiet),
        (
            "tunneler: unshares, then joins a namespace of the host",
            acts::tunneler,
        ),
        (
            "byhand: made with unshare and a cgroup, not by paddock",
            byhand::byhand,
        ),
    ];
    let mut result = Ok(());
    for (title, act) in acts {
        stage.title(title);
        result = act(&mut stage);
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = stage.epilogue(once);
    }
    let left = stage.close();
    if interrupt.seen() && !interrupt.expected() {
        anyhow::bail!(
            "interrupted; {}",
            if left.is_empty() {
                "nothing is left"
            } else {
                "something is left"
            }
        );
    }
    result?;
    Ok(left.is_empty() && stage.failed() == 0)
}
