//! What a scenario must not leave: cgroups, mounts, processes, pins.
//!
//! Runs of several checkouts at the same time must not see each other, so only what carries
//! this scenario's names or descends from this process counts. The runner is a child
//! subreaper: whatever a scenario orphans becomes its child, wherever it hid.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use paddock_cgroups::{Cgroup, Hierarchies};

use crate::Ctx;

/// An agent without clients and containers ends by itself within this.
const GRACE: Duration = Duration::from_secs(20);
const PINS: &str = "/sys/fs/bpf";

/// The state before a scenario.
#[derive(Debug)]
pub struct Before {
    pins: BTreeSet<PathBuf>,
    /// The runner's children from before: none of a scenario's doing.
    children: BTreeSet<i32>,
}

impl Before {
    pub fn take() -> Self {
        Self {
            pins: pins(),
            children: children(),
        }
    }

    /// What is left, a line each; waits a while for what ends by itself, then removes the rest.
    pub fn compare(&self, ctx: &Ctx) -> Vec<String> {
        let deadline = Instant::now() + GRACE;
        loop {
            self.reap();
            let left = self.left(ctx);
            if left.is_empty() {
                return left;
            }
            if Instant::now() > deadline {
                self.sweep(ctx);
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn left(&self, ctx: &Ctx) -> Vec<String> {
        let mut left = Vec::new();
        for pid in children().difference(&self.children) {
            let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&text).replace('\0', " ");
            left.push(format!("process {pid}: {}", line.trim_end()));
        }
        left.extend(cgroups(ctx).map(|path| format!("cgroup {path}")));
        left.extend(
            mounts(&ctx.dir)
                .iter()
                .map(|path| format!("mount {}", path.display())),
        );
        left.extend(
            pins()
                .difference(&self.pins)
                .map(|path| format!("pin {}", path.display())),
        );
        left
    }

    fn reap(&self) {
        for pid in children().difference(&self.children) {
            // Only the ended ones are taken; another's exit code is nobody's business by now.
            while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
                waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG))
            {}
        }
    }

    /// So that one scenario's leak is not the next one's too.
    fn sweep(&self, ctx: &Ctx) {
        for pid in children().difference(&self.children) {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            let _ = waitpid(Pid::from_raw(*pid), None);
        }
        if let Ok(hierarchies) = Hierarchies::discover() {
            for path in cgroups(ctx) {
                if let Ok(cgroup) = Cgroup::open(&hierarchies, &path) {
                    drop(cgroup.kill().and_then(|()| cgroup.remove()));
                }
            }
        }
        for path in mounts(&ctx.dir).iter().rev() {
            let _ = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

fn children() -> BTreeSet<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let Ok(processes) = procfs::process::all_processes() else {
        return BTreeSet::new();
    };
    processes
        .filter_map(|process| process.ok()?.stat().ok())
        .filter(|stat| stat.ppid == own)
        .map(|stat| stat.pid)
        .collect()
}

/// This scenario's instance, and what a scenario made itself below its tag, in any hierarchy.
fn cgroups(ctx: &Ctx) -> impl Iterator<Item = String> + use<> {
    let names = [instance(&ctx.state_dir), ctx.tag.clone()];
    let hierarchies = Hierarchies::discover().ok();
    names.into_iter().filter_map(move |name| {
        let path = format!("paddock/{name}");
        Cgroup::open(hierarchies.as_ref()?, &path)
            .is_ok()
            .then_some(path)
    })
}

/// As the agent names a state directory: FNV-1a 64 of its canonical path, the first 8 digits.
pub fn instance(state_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let path = state_dir
        .canonicalize()
        .unwrap_or_else(|_| state_dir.to_owned());
    let hash = path
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")[..8].to_owned()
}

fn mounts(below: &Path) -> Vec<PathBuf> {
    let Ok(mounts) = procfs::process::Process::myself().and_then(|own| own.mountinfo()) else {
        return Vec::new();
    };
    mounts
        .into_iter()
        .map(|mount| mount.mount_point)
        .filter(|path| path.starts_with(below))
        .collect()
}

fn pins() -> BTreeSet<PathBuf> {
    fs::read_dir(PINS)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().contains("paddock"))
        .collect()
}
