//! The steps.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};

use super::host::{blocks, eventually, fails, named, programs, property, running, sh};

const QUICK_START: &str = "/etc/paddock-guest/quickstart.md";
/// Where the packages are, and where the quick start is read.
const PACKAGES: &str = "/root";
const CONFIG: &str = "/etc/paddock/config.toml";
/// What the attacker wrote: a line each time it came through.
const HITS: &str = "/root/hits";
/// A minute and a half less on real hardware; this processor is emulated.
const TWO_MINUTES: u64 = 120;

/// The page's own commands, by the page's own order.
pub(super) fn quick_start() -> Result<()> {
    let page = fs::read_to_string(QUICK_START).context("the quick start")?;
    let blocks = blocks(&page);
    ensure!(blocks.len() == 3, "{} blocks", blocks.len());
    let begun = Instant::now();
    let said = sh(&format!("cd {PACKAGES}\n{}", blocks[0]))?;
    let took = begun.elapsed().as_secs();
    println!("{said}\nfrom the package to the first OOM kill: {took} s");
    ensure!(took < TWO_MINUTES, "{took} s");
    ensure!(said.contains("OOM (137)"), "ps does not tell of it");
    ensure!(
        said.lines()
            .any(|line| line.contains("oom") && line.contains("tail[")),
        "no event"
    );
    let log = sh("dmesg")?;
    ensure!(
        log.contains("Memory cgroup out of memory: Killed process"),
        "the kernel killed nobody"
    );
    let said = sh(&blocks[1])?;
    ensure!(
        said.lines()
            .any(|line| line.contains("climber") && line.contains("escape")),
        "{said}"
    );
    let said = sh(&blocks[2])?;
    println!("{said}");
    ensure!(said.contains("namespace-escape"), "{said}");
    sh("paddock rm greedy; paddock policy rm escape; rm /etc/paddock/policy.d/escape.toml")
        .map(drop)
}

pub(super) fn unit() -> Result<()> {
    sh("bash -n /usr/share/bash-completion/completions/paddock")?;
    sh("grep -q '/usr/bin/paddock' /usr/share/zsh/vendor-completions/_paddock")?;
    sh("zcat /usr/share/man/man1/paddock-run.1.gz | grep -q '^.SH SYNOPSIS'")?;
    for (name, value) in [
        ("ActiveState", "active"),
        ("Type", "notify"),
        // The quick start had it read its files again.
        ("StatusText", "reloaded"),
        ("UnitFileState", "enabled"),
        ("WatchdogUSec", "1min"),
    ] {
        let said = property(name)?;
        ensure!(said == value, "{name}={said}");
    }
    let verified = sh("systemd-analyze verify paddock.service 2>&1")?;
    ensure!(!verified.contains("paddock"), "{verified}");
    sh("paddock run -d --name where host sleep 600")?;
    let pid =
        sh("paddock inspect where | sed -n 's/^    \"pid\": \\([0-9]*\\),*/\\1/p' | head -1")?;
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim()))?;
    for (who, score) in [(pid.trim(), "0"), (property("MainPID")?.trim(), "-500")] {
        let said = fs::read_to_string(format!("/proc/{who}/oom_score_adj"))?;
        ensure!(said.trim() == score, "OOM score of {who}: {said}");
    }
    let version = sh("systemctl --version")?;
    let version = version.split_whitespace().nth(1).unwrap_or_default();
    // A generator takes delegation back where systemd could not start the unit again.
    let below = if version.parse::<u32>()? >= 254 {
        "0::/system.slice/paddock.service/paddock/default/"
    } else {
        "0::/paddock/default/"
    };
    ensure!(cgroup.contains(below), "{cgroup}");
    sh("paddock rm -f where").map(drop)
}

pub(super) fn reload() -> Result<()> {
    let mode = fails(&format!(
        "echo '[agent]\nlgo = 1' >{CONFIG}.bad; paddock config check {CONFIG}.bad"
    ))?;
    ensure!(
        mode.contains("config.toml.bad:2:1: unknown key 'lgo' in [agent]; did you mean 'log'?"),
        "{mode}"
    );
    sh(&format!(
        "rm {CONFIG}.bad; mkdir -p {CONFIG}.d; echo '[agent]\ntrack = [\"/byhand*\"]' >{CONFIG}.d/10-track.toml"
    ))?;
    sh("paddock config check && systemctl reload paddock && mkdir /sys/fs/cgroup/byhand-1")?;
    eventually("a cgroup is found by the new pattern", || {
        Ok(sh("paddock ps")?.contains("byhand-1"))
    })?;
    sh("rmdir /sys/fs/cgroup/byhand-1").map(drop)
}

/// An attacker that never stops mounts whenever it is let; it is not, whatever becomes of the agent.
pub(super) fn kills() -> Result<()> {
    // Nothing else stands in its way.
    let free = sh("paddock run --rm --name attacker --privileged host \
         sh -c 'mount -t tmpfs none /mnt && grep -c \" /mnt tmpfs \" /proc/mounts'")?;
    ensure!(free.trim() == "1", "without a policy: {free}");
    sh(
        "cat >/etc/paddock/policy.d/mount.toml <<'EOF'\nname = \"no-mounts\"\nmode = \"enforce\"\ndeny = \"mount\"\n[select]\nname = \"attacker\"\nEOF\nsystemctl reload paddock",
    )?;
    sh(&format!(
        "touch {HITS}; paddock run -d --name attacker --privileged -v {HITS}:{HITS} host \
         sh -c 'while :; do mount -t tmpfs none /mnt 2>/dev/null && echo hit >>{HITS}; echo try >>/tmp/tries; sleep 0.2; done'"
    ))?;
    let before = attacker()?;
    for round in 0..2 {
        let agent = property("MainPID")?;
        sh(if round == 0 {
            "kill -9 $(systemctl show paddock.service --property MainPID --value)"
        } else {
            "systemctl restart paddock"
        })?;
        eventually("systemd started it again", || {
            Ok(property("ActiveState")? == "active" && property("MainPID")? != agent)
        })?;
        still(&before)?;
    }
    Ok(())
}

/// The attacker's first process, by procfs: its number and when it began.
fn attacker() -> Result<String> {
    let pid =
        sh("paddock inspect attacker | sed -n 's/^    \"pid\": \\([0-9]*\\),*/\\1/p' | head -1")?;
    let pid = pid.trim();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the attacker")?;
    let begun = stat.rsplit(' ').nth(30).unwrap_or_default();
    Ok(format!("{pid} {begun}"))
}

/// It lives, tries, and never came through.
fn still(before: &str) -> Result<()> {
    ensure!(attacker()? == before, "the container is another one");
    let tries = || sh("paddock exec attacker wc -l /tmp/tries");
    let then = tries()?;
    eventually("it tries on", || Ok(tries()? != then))?;
    let hits = fs::read_to_string(HITS)?;
    ensure!(
        hits.is_empty(),
        "came through {} times",
        hits.lines().count()
    );
    Ok(())
}

pub(super) fn upgrade() -> Result<()> {
    let before = attacker()?;
    let agent = property("MainPID")?;
    sh(&format!(
        "echo '# mine' >>{CONFIG}; cd {PACKAGES}/next && apt-get install -y ./paddock_*.deb"
    ))?;
    ensure!(property("MainPID")? != agent, "the old agent goes on");
    ensure!(property("ActiveState")? == "active");
    still(&before)?;
    let config = fs::read_to_string(CONFIG)?;
    ensure!(
        config.ends_with("# mine\n"),
        "the operator's file was replaced"
    );
    ensure!(sh("paddock policy list")?.contains("no-mounts"));
    Ok(())
}

pub(super) fn remove() -> Result<()> {
    ensure!(programs() > 0, "no program to look for");
    println!("{}", sh("apt-get remove -y paddock 2>&1")?);
    nothing_runs()?;
    for kept in [CONFIG, "/etc/paddock/policy.d/mount.toml"] {
        ensure!(Path::new(kept).exists(), "{kept} went with the package");
    }
    ensure!(!Path::new("/usr/bin/paddock").exists());
    // What was said holds when it comes back.
    sh(&format!(
        "cd {PACKAGES}/next && apt-get install -y ./paddock_*.deb"
    ))?;
    ensure!(
        sh("paddock policy list")?.contains("no-mounts"),
        "no policy from the start on"
    );
    Ok(())
}

pub(super) fn purge() -> Result<()> {
    sh("apt-get purge -y paddock")?;
    nothing_runs()?;
    for gone in [
        "/etc/paddock",
        "/var/lib/paddock",
        "/run/paddock",
        "/etc/systemd/system/multi-user.target.wants/paddock.service",
    ] {
        ensure!(fs::symlink_metadata(gone).is_err(), "{gone} is left");
    }
    let known = sh("dpkg -l paddock 2>/dev/null | grep '^[a-z]' || true")?;
    ensure!(
        !known.starts_with("ii") && !known.starts_with("rc"),
        "{known}"
    );
    Ok(())
}

fn nothing_runs() -> Result<()> {
    let left = running("bin/paddock")?;
    let left: Vec<_> = left
        .into_iter()
        .filter(|path| {
            // This test's own program.
            fs::read_link(format!("{path}/exe"))
                .is_ok_and(|exe| !exe.to_string_lossy().contains("paddock-"))
        })
        .collect();
    ensure!(left.is_empty(), "still running: {}", left.join(" "));
    // The kernel frees them a little later.
    eventually("no program is left in the kernel", || Ok(programs() == 0))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let left: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains("paddock"))
        .collect();
    ensure!(left.is_empty(), "mounts: {}", left.join("\n"));
    let cgroups = named(Path::new("/sys/fs/cgroup"), "paddock");
    let left: Vec<_> = cgroups
        .iter()
        .filter(|path| !path.contains("paddock-guest"))
        .collect();
    ensure!(left.is_empty(), "cgroups: {left:?}");
    Ok(())
}
