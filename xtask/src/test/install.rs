//! The Debian package in a guest with systemd: installed, upgraded, removed, purged.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use super::{count::Count, show_log};
use crate::{
    dist::{self, deb},
    tree::Tree,
    vm::{self, initramfs::Contents, qemu::Machine},
};

/// A release, and a kernel of it.
pub(super) const MATRIX: [(&str, &str); 1] = [("trixie", "6.12")];
const TIMEOUT: Duration = Duration::from_mins(15);
/// Newer than what is built: Debian's `+` sorts after nothing.
const NEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "+next");

/// The unit that runs the steps once everything is up, tells how they ended, and powers off.
const UNIT: &str = "[Unit]
After=multi-user.target
[Service]
Type=oneshot
Environment=PADDOCK_THROWN_AWAY=1 HOME=/root
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
ExecStart=/bin/sh -c 'stty -F /dev/ttyS1 -opost; /usr/lib/paddock-guest/paddock-install-test; printf \"\\\\n@paddock-guest-exit %%s\\\\n\" $?'
ExecStopPost=/bin/systemctl poweroff --force --force
";
const UNIT_DIR: &str = "/etc/systemd/system";

pub(super) fn run(tree: &Tree, suite: &str, series: &str) -> Result<Count> {
    let dir = tree
        .target
        .join(format!("install-{suite}-{}", std::process::id()));
    let packed = packages(tree, &dir).and_then(|files| boot(tree, suite, series, files));
    drop(fs::remove_dir_all(&dir));
    packed
}

/// What is put into the guest: this build's package, and one that upgrades it.
fn packages(tree: &Tree, dir: &PathBuf) -> Result<Vec<(PathBuf, String)>> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let binary = dir.join("paddock");
    dist::stripped(tree, &binary)?;
    let first = deb::write(tree, &binary, dir)?;
    let next = deb::package(tree, &binary, dir, NEXT)?;
    let unit = dir.join("unit");
    fs::write(&unit, UNIT).context("write the guest's unit")?;
    let wanted = dir.join("wanted");
    fs::write(&wanted, "[Unit]\nWants=paddock-guest.service\n").context("write a drop-in")?;
    // Anything: an empty one makes systemd ask for names on the console.
    let id = dir.join("machine-id");
    fs::write(&id, "0123456789abcdef0123456789abcdef\n").context("write the machine's id")?;
    let name = |deb: &PathBuf| {
        deb.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    Ok(vec![
        (first.clone(), format!("/root/{}", name(&first))),
        (next.clone(), format!("/root/next/{}", name(&next))),
        (
            tree.binary("paddock-install-test"),
            "/usr/lib/paddock-guest/paddock-install-test".to_owned(),
        ),
        (
            tree.root.join("docs/quickstart.md"),
            "/etc/paddock-guest/quickstart.md".to_owned(),
        ),
        (id, "/etc/machine-id".to_owned()),
        (unit, format!("{UNIT_DIR}/paddock-guest.service")),
        (
            wanted,
            format!("{UNIT_DIR}/multi-user.target.d/10-paddock-guest.conf"),
        ),
    ])
}

fn boot(tree: &Tree, suite: &str, series: &str, files: Vec<(PathBuf, String)>) -> Result<Count> {
    let contents = Contents {
        debian: Some(suite.to_owned()),
        files,
        ..Contents::default()
    };
    let machine = Machine {
        timeout: TIMEOUT,
        memory_mib: 2048,
        deterministic: false,
        interactive: false,
        quiet: false,
        label: format!("[{suite}] "),
    };
    let ended = vm::boot(tree, series, &contents, &machine)?;
    let mut count = Count::of(&ended.output);
    if ended.code != Some(0) {
        println!("{}", ended.problem.unwrap_or_default());
        show_log(&ended.log);
        count.failed += u64::from(count.failed == 0);
    }
    Ok(count)
}
