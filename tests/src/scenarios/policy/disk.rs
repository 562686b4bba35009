//! Where nothing more can be kept.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use super::{
    Files,
    network::{BAD, Listener, policy},
};
use crate::{
    context::{Context, eventually},
    runner::Scenario,
};

pub const ALL: &[Scenario] =
    &[Scenario::new("policy::a_full_disk_takes_nothing_down", on_a_full_disk).alone()];

/// What is in force stays, for the next agent too, and nothing else
/// comes into force.
fn on_a_full_disk(context: &Context) -> Result<()> {
    let disk = FullDisk::on(&context.state)?;
    let result = no_room(context, &disk);
    // Its pins are below the mount.
    let ended = fs::remove_file(&disk.filler)
        .map_err(Into::into)
        .and_then(|()| context.ok(&["unload"]).map(drop));
    drop(disk);
    result.and(ended)
}

fn no_room(context: &Context, disk: &FullDisk) -> Result<()> {
    context.start_agent(&[])?;
    let (files, listener) = (Files::new()?, Listener::new()?);
    let file = files.write("ways.toml", policy(listener.port, ""))?;
    context.ok(&["policy", "apply", &file])?;
    let (volume, port) = (context.workload_volume(), listener.port.to_string());
    let mut args = vec!["run", "-d", "--name", "tries", "--network", "host", "-v"];
    args.extend([&volume, "host", "/run/workload", "talk", "tcp", BAD, &port]);
    args.push("4000000000");
    context.ok(&args)?;
    disk.fill()?;

    let denied = || -> Result<u64> {
        let listed: Value = context.json(&["policy", "list", "ways", "--format", "json"])?;
        listed["rules"][0]["denied"].as_u64().context("no count")
    };
    let goes_on = |when: &str| {
        let before = denied()?;
        eventually(when, || Ok(denied()? > before + 100))
    };
    goes_on("it is denied on a full disk")?;
    let other = files.write("other.toml", "name = \"other\"\ndeny = [\"sysrq\"]\n")?;
    for args in [
        ["policy", "apply", &other].as_slice(),
        &["policy", "apply", "--mode", "audit", &file],
        &["policy", "mode", "ways", "audit"],
    ] {
        let output = context.paddock(args)?;
        ensure!(
            output.code == Some(1)
                && output.stderr.contains("No space left on device")
                && output.stderr.trim_end().lines().count() == 1,
            "{args:?}: {output:?}"
        );
    }
    let output = context.paddock(&["policy", "apply", &other, &file])?;
    let rest = format!("{other}: not in force, nor what was to follow it ({file}): ");
    ensure!(output.stderr.contains(&rest), "{output:?}");
    context.kill_agent()?;
    // `start_agent` would make room: it removes what the killed one has left.
    let mut next = context
        .command(&["agent", "--web.listen-address", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let served = eventually("it serves", || {
        Ok(context.paddock(&["policy", "list"])?.code == Some(0))
    })
    .and_then(|()| goes_on("it is denied after a restart on a full disk"))
    .and_then(|()| context.json(&["policy", "list", "--format", "json"]))
    .and_then(|listed: Value| {
        let all = listed.as_array().context("no list")?;
        ensure!(
            all.len() == 1 && all[0]["name"] == "ways" && all[0]["mode"] == "enforce",
            "{listed}"
        );
        context.ok(&["rm", "-f", "tries"])
    });
    next.kill()?;
    next.wait()?;
    served?;
    let seen = listener.accepted()?;
    ensure!(seen.is_empty(), "{seen:?}");
    Ok(())
}

/// A small file system, unmounted when this is dropped.
struct FullDisk {
    at: PathBuf,
    filler: PathBuf,
}

impl FullDisk {
    fn on(at: &Path) -> Result<Self> {
        let size = Some("size=4m,mode=700");
        mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), size)?;
        Ok(Self {
            at: at.to_owned(),
            filler: at.join("filler"),
        })
    }

    fn fill(&self) -> Result<()> {
        let mut filler = fs::File::create(&self.filler)?;
        loop {
            match filler.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // The leak check tells of one that stays.
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}
