//! What of paddock's is on the machine: cgroups, mounts, processes, kernel programs.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// Everything that could be left behind, as lines a person can act on.
#[derive(Debug)]
pub struct Snapshot {
    seen: BTreeSet<String>,
}

impl Snapshot {
    pub fn take() -> Result<Self> {
        let mut seen = BTreeSet::new();
        for (_, root) in crate::context::cgroup_mounts()? {
            walk(&root.join("paddock"), &mut seen);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
        seen.extend(
            mounts
                .lines()
                .filter(|line| line.contains("paddock"))
                .map(|line| format!("mount {line}")),
        );
        seen.extend(processes());
        let files = fs::read_dir(std::env::temp_dir()).context("list the temporary directory")?;
        seen.extend(
            files
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("paddock-"))
                .map(|entry| format!("file {}", entry.path().display())),
        );
        seen.extend(programs()?);
        Ok(Self { seen })
    }

    /// Empty when all is as before. The kernel frees programs after a grace period, so this
    /// looks again for a while.
    pub fn what_is_new(&self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let new: Vec<_> = match Self::take() {
                Ok(now) => now.seen.difference(&self.seen).cloned().collect(),
                Err(error) => vec![format!("{error:#}")],
            };
            if new.is_empty() || Instant::now() > deadline {
                return new;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn walk(dir: &Path, seen: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    seen.insert(format!("cgroup {}", dir.display()));
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), seen);
        }
    }
}

/// The binary in any of its roles: command, agent, zygote, monitor.
fn processes() -> Vec<String> {
    let Ok(all) = procfs::process::all_processes() else {
        return Vec::new();
    };
    all.flatten()
        .filter(|process| process.pid.cast_unsigned() != std::process::id())
        .filter_map(|process| {
            let stat = process.stat().ok()?;
            // An ended one waits for the host's first process, which is nobody's here.
            let ours = stat.comm.starts_with("paddock")
                && !stat.comm.starts_with("paddock-scen")
                && stat.state != 'Z';
            let line = process.cmdline().unwrap_or_default().join(" ");
            ours.then(|| {
                format!(
                    "process {} {} ({}) {line}",
                    process.pid, stat.comm, stat.state
                )
            })
        })
        .collect()
}

/// JITed kernel programs by tag and name. Their addresses move; tags and counts do not.
fn programs() -> Result<BTreeSet<String>> {
    let text = fs::read("/proc/kallsyms").context("read kallsyms")?;
    let text = String::from_utf8_lossy(&text);
    Ok(text
        .lines()
        .filter(|line| line.contains("bpf_prog_") && line.ends_with("[bpf]"))
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter(|symbol| {
            symbol
                .splitn(4, '_')
                .nth(3)
                .is_some_and(|name| !name.is_empty() && !name.starts_with("sd_"))
        })
        .map(|symbol| format!("kernel program {symbol}"))
        .collect())
}
