//! A container that paddock did not start: a cgroup, `unshare`, and a shell.
//!
//! On hybrid and v1 hosts the memory limit sits in the v1 hierarchy and the identity in the
//! v2 one, so the directory is made in both.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::stage::Stage;

/// Unique, so that two demos run side by side.
pub fn cgroup_name() -> String {
    format!("byhand-{}", std::process::id())
}

/// Its own namespaces are no alarm, the host's are, and the kernel's kill is counted.
pub fn byhand(stage: &mut Stage) -> Result<()> {
    let dirs = make_cgroup()?;
    let joins: Vec<_> = dirs
        .iter()
        .map(|dir| format!("echo $$ >{}/cgroup.procs; ", dir.display()))
        .collect();
    let joins = joins.concat();
    // The descriptor is the way to the host's namespace that it was given.
    let inside = "unshare --uts true; nsenter --uts=/proc/self/fd/9 hostname; tail /dev/zero";
    let script = format!(
        "{joins}exec 9</proc/self/ns/uts; unshare --mount --pid --net --ipc --uts --fork --mount-proc sh -c '{inside}'"
    );
    println!("$ sh -c \"{script}\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    let shown = stage.show(command);
    let result = shown.and_then(|shown| {
        stage.check("the shell says 137", shown.code == Some(137), format!("{:?}", shown.code));
        let name = stage.ask(&["ps", "-a", "--format", "json"])?;
        let name = found_name(&name).context("paddock ps does not list it as found")?;
        stage.check("found, under the name", true, &name);
        stage.check_event("the escape was told", &[&name, "setns", "uts", "escape"]);
        stage.check_metric(
            &format!(
                r#"paddock_container_escapes_total{{container="{name}",kind="host_namespace",outcome="allowed"}}"#
            ),
            1.0,
        )?;
        stage.check_metric(
            &format!(r#"paddock_container_oom_kills_total{{constraint="memcg",container="{name}",level="own"}}"#),
            1.0,
        )
    });
    remove_cgroup(&dirs);
    result
}

/// What is left of it after the demo: nothing.
pub fn leftovers() -> Vec<String> {
    places()
        .into_iter()
        .filter(|dir| dir.exists())
        .map(|dir| dir.display().to_string())
        .collect()
}

/// The v2 directory and, where memory is not there, the v1 one.
fn places() -> Vec<PathBuf> {
    [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/memory",
    ]
    .iter()
    .map(Path::new)
    .filter(|root| root.join("cgroup.procs").exists())
    .map(|root| root.join(cgroup_name()))
    .collect()
}

fn make_cgroup() -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup/cgroup.subtree_control");
    if root.exists() {
        fs::write(root, "+memory").context("enable the memory controller")?;
    }
    let dirs = places();
    for dir in &dirs {
        fs::create_dir(dir).with_context(|| format!("make {}", dir.display()))?;
        for limit in ["memory.max", "memory.limit_in_bytes"] {
            if dir.join(limit).exists() {
                fs::write(dir.join(limit), "67108864")
                    .with_context(|| format!("limit {}", dir.display()))?;
            }
        }
    }
    // The agent hears of the directory from the kernel; nothing has to run in it yet.
    thread::sleep(Duration::from_millis(300));
    Ok(dirs)
}

fn remove_cgroup(dirs: &[PathBuf]) {
    for dir in dirs {
        for _ in 0..100 {
            match fs::remove_dir(dir) {
                // Its last process may still be on its way out.
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                    thread::sleep(Duration::from_millis(20));
                }
                _ => break,
            }
        }
    }
}

/// Name of the found container in `ps --format json`.
fn found_name(json: &str) -> Option<String> {
    let list: serde_json::Value = serde_json::from_str(json).ok()?;
    let found = list
        .as_array()?
        .iter()
        .find(|entry| entry["origin"] == "found")?;
    Some(found["name"].as_str()?.to_owned())
}
