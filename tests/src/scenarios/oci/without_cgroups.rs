//! `--cgroup-manager disabled`: a container in its caller's cgroup, which stays as it is.
//!
//! The caller is in a cgroup made here, in every hierarchy, with a bystander whose life, whose
//! cgroup's limits and whose freezer are looked at after each step.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{Bundle, config};
use crate::{
    bundle::busybox,
    context::{Context, Output, cgroup_mounts, eventually, finish, pure_v2},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("oci::without_cgroups", without_cgroups),
    Scenario::new("oci::without_cgroups_ends", ends),
    Scenario::new("oci::without_cgroups_nor_pid_namespace", nor_pid_namespace),
    Scenario::new("oci::without_cgroups_mounts", mounts),
];

const DISABLED: [&str; 2] = ["--cgroup-manager", "disabled"];
const TREE: [&str; 3] = ["sh", "-c", "sleep 301 & exec sleep 300"];

/// What a runtime would write to limit or stop a cgroup.
const FILES: [&str; 9] = [
    "memory.max",
    "memory.limit_in_bytes",
    "pids.max",
    "cpu.max",
    "cpu.shares",
    "cpuset.cpus",
    "devices.list",
    "freezer.state",
    "cgroup.freeze",
];

/// The caller's cgroup, and who else is in it.
struct Home {
    directories: Vec<PathBuf>,
    bystander: Child,
    files: Vec<(PathBuf, String)>,
}

impl Home {
    fn new() -> Result<Self> {
        let name = format!("paddock-home-{}", std::process::id());
        let mut directories = Vec::new();
        for (_, mount) in cgroup_mounts()? {
            let directory = mount.join(&name);
            fs::create_dir_all(&directory)?;
            // v1 lets nobody in before these are set.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if !pure_v2() && directory.join(file).exists() {
                    fs::write(directory.join(file), fs::read(mount.join(file))?)?;
                }
            }
            directories.push(directory);
        }
        let mut sleep = Command::new("sleep");
        let bystander = within(&directories, sleep.arg("1000")).spawn()?;
        let mut home = Self {
            directories,
            bystander,
            files: Vec::new(),
        };
        let pid = home.bystander.id();
        eventually("the bystander is there", || {
            Ok(fs::read_to_string(format!("/proc/{pid}/comm"))? == "sleep\n")
        })?;
        home.files = home.read();
        Ok(home)
    }

    fn read(&self) -> Vec<(PathBuf, String)> {
        let files = FILES.iter();
        let all = files.flat_map(|file| self.directories.iter().map(move |at| at.join(file)));
        all.filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?)))
            .collect()
    }

    fn cgroups(&self) -> Result<String> {
        cgroups_of(self.bystander.id().into())
    }

    /// Nothing was done to it, and nothing was made in it or for it.
    fn is_as_it_was(&mut self, before: &BTreeSet<PathBuf>) -> Result<()> {
        ensure!(self.bystander.try_wait()?.is_none(), "the bystander ended");
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.bystander.id()))?;
        ensure!(stat.contains(") S "), "the bystander: {stat}");
        let now = self.read();
        ensure!(now == self.files, "{now:?}, was {:?}", self.files);
        let new: Vec<_> = directories()?.difference(before).cloned().collect();
        ensure!(new.is_empty(), "new cgroups: {new:?}");
        Ok(())
    }

    /// A runtime's call by somebody in here.
    fn command(&self, bundle: &Bundle<'_>, args: &[&str]) -> Command {
        within(&self.directories, &bundle.command(args))
    }

    fn oci(&self, bundle: &Bundle<'_>, args: &[&str]) -> Result<Output> {
        finish(&mut self.command(bundle, &[&DISABLED, args].concat()))
    }

    /// Created from here, started from elsewhere by who knows nothing of the option.
    fn start(&self, bundle: &Bundle<'_>, id: &str) -> Result<i64> {
        let status = self
            .command(bundle, &[&DISABLED[..], &["create", id]].concat())
            .stdout(File::create(bundle.path.join("out"))?)
            .stderr(File::create(bundle.path.join("err"))?)
            .status()?;
        ensure!(status.success(), "create: {}", bundle.read("err")?);
        let pid = bundle.pid(id)?;
        ensure!(cgroups_of(pid)? == self.cgroups()?, "{}", cgroups_of(pid)?);
        bundle.ok(&["start", id])?;
        Ok(pid)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.bystander.kill();
        let _ = self.bystander.wait();
        for directory in &self.directories {
            let _ = fs::remove_dir(directory);
        }
    }
}

fn within(directories: &[PathBuf], command: &Command) -> Command {
    let joins: Vec<_> = directories
        .iter()
        .map(|directory| format!("echo $$ >'{}/cgroup.procs' && ", directory.display()))
        .collect();
    let join = joins.concat();
    let mut sh = Command::new("sh");
    sh.args(["-c", &format!("{join} exec \"$@\""), "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    if let Some(directory) = command.get_current_dir() {
        sh.current_dir(directory);
    }
    sh
}

fn cgroups_of(pid: i64) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/cgroup"))?)
}

/// All of paddock's and of these bundles', in every hierarchy.
fn directories() -> Result<BTreeSet<PathBuf>> {
    fn walk(directory: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), found);
                found.insert(entry.path());
            }
        }
    }
    let mut found = BTreeSet::new();
    for (_, mount) in cgroup_mounts()? {
        walk(&mount, &mut found);
    }
    found.retain(|path| path.to_string_lossy().contains("paddock"));
    Ok(found)
}

fn children(pid: i64) -> Result<Vec<i64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?)
}

/// An ended one waits for the host's first process.
fn is_gone(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

/// The container has one child, by now.
fn child_of(pid: i64) -> Result<i64> {
    eventually("it has a child", || Ok(children(pid)?.len() == 1))?;
    children(pid)?.first().copied().context("no child")
}

/// With what is a cgroup's: limits that would kill it, rules, a path.
fn limited(args: &[&str]) -> Value {
    let mut wanted = config(args);
    wanted["linux"]["cgroupsPath"] = json!(format!("/paddock-none-{}/deep", std::process::id()));
    wanted["linux"]["resources"] = json!({
        "memory": {"limit": 4096},
        "pids": {"limit": 1},
        "devices": [{"allow": false, "access": "rwm"}],
    });
    wanted
}

fn without_cgroups(context: &Context) -> Result<()> {
    let bundle = Bundle::new(context, &limited(&TREE))?;
    let mut home = Home::new()?;
    let before = directories()?;
    let pid = home.start(&bundle, "bare")?;
    let child = child_of(pid)?;
    ensure!(bundle.is("bare", "running")?);
    for one in [pid, child] {
        ensure!(cgroups_of(one)? == home.cgroups()?, "{}", cgroups_of(one)?);
    }
    home.is_as_it_was(&before)?;
    for args in [
        &["update", "--pids-limit", "7", "bare"][..],
        &["pause", "bare"],
        &["resume", "bare"],
        &["events", "--stats", "bare"],
        &["ps", "bare"],
        &["kill", "--all", "bare", "KILL"],
        &["kill", "--all", "bare", "TERM"],
    ] {
        bundle.refused_in_place(args, "has no cgroup")?;
        bundle.refused_in_place(&[&DISABLED, args].concat(), "has no cgroup")?;
        home.is_as_it_was(&before)?;
    }
    // Whoever calls exec keeps what it makes, in the container's cgroup namespace.
    let inside = home.oci(&bundle, &["exec", "bare", "cat", "/proc/self/cgroup"])?;
    ensure!(
        inside.code == Some(0)
            && inside.stdout.lines().count() == home.cgroups()?.lines().count()
            && inside.stdout.lines().all(|line| line.ends_with(":/")),
        "{inside:?}"
    );
    let other = bundle.path.join("other");
    let path = other.display().to_string();
    let detached = [
        "exec",
        "--detach",
        "--pid-file",
        &path,
        "bare",
        "sleep",
        "302",
    ];
    ensure!(
        bundle
            .command(&detached)
            .stdout(Stdio::null())
            .status()?
            .success()
    );
    let other: i64 = fs::read_to_string(other)?.parse()?;
    ensure!(cgroups_of(other)? == fs::read_to_string("/proc/self/cgroup")?);
    bundle.refused_in_place(&["delete", "bare"], "running")?;
    bundle.ok(&["kill", "bare", "KILL"])?;
    eventually("it has stopped", || bundle.is("bare", "stopped"))?;
    ensure!(is_gone(child) && is_gone(other), "outlived process 1");
    bundle.ok(&["delete", "bare"])?;
    home.is_as_it_was(&before)?;
    bundle.empty()
}

/// Each way to an end takes all processes along, and nothing of the caller's.
fn ends(context: &Context) -> Result<()> {
    let bundle = Bundle::new(context, &limited(&TREE))?;
    let mut home = Home::new()?;
    let before = directories()?;
    let pid = home.start(&bundle, "forced")?;
    let child = child_of(pid)?;
    bundle.ok(&["delete", "--force", "forced"])?;
    ensure!(is_gone(pid) && is_gone(child), "outlived its container");
    home.is_as_it_was(&before)?;
    bundle.empty()?;
    // One that never started, deleted from in here.
    let status = home
        .command(&bundle, &[&DISABLED[..], &["create", "made"]].concat())
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "create: {status}");
    let pid = bundle.pid("made")?;
    let deleted = home.oci(&bundle, &["delete", "made"])?;
    ensure!(deleted.code == Some(0) && is_gone(pid), "{deleted:?}");
    home.is_as_it_was(&before)?;
    bundle.empty()?;
    // Waited for; a path of systemd's is as little looked at as any other.
    let mut wanted = limited(&["sh", "-c", "exit 23"]);
    wanted["linux"]["cgroupsPath"] = json!("slice:prefix:name");
    bundle.write(&wanted)?;
    let output = home.oci(&bundle, &["run", "short"])?;
    ensure!(
        output.code == Some(23) && output.stderr.is_empty(),
        "{output:?}"
    );
    // Launches that fail, before their exec and after.
    let hook = json!([{"path": busybox()?, "args": ["busybox", "false"]}]);
    for (args, hooks) in [
        (&["/nope"][..], json!({})),
        (&TREE, json!({"createRuntime": hook})),
        (&TREE, json!({"poststart": hook})),
    ] {
        let mut wanted = limited(args);
        wanted["hooks"] = hooks;
        bundle.write(&wanted)?;
        let output = home.oci(&bundle, &["run", "failing"])?;
        ensure!(output.code == Some(1), "{output:?}");
        bundle.empty()?;
        home.is_as_it_was(&before)?;
    }
    // Nobody else is left in there.
    let bystander = format!("{}\n", home.bystander.id());
    for directory in &home.directories {
        let inside = fs::read_to_string(directory.join("cgroup.procs"))?;
        ensure!(inside == bystander, "{}: {inside}", directory.display());
    }
    Ok(())
}

/// Nobody knows of any process but the first: that one ends, as with crun.
fn nor_pid_namespace(context: &Context) -> Result<()> {
    let mut wanted = limited(&TREE);
    let namespaces = wanted["linux"]["namespaces"].as_array_mut();
    namespaces
        .context("namespaces")?
        .retain(|one| one["type"] != "pid");
    let bundle = Bundle::new(context, &wanted)?;
    let mut home = Home::new()?;
    let before = directories()?;
    for verb in [
        &["kill", "open", "KILL"][..],
        &["delete", "--force", "open"],
    ] {
        let pid = home.start(&bundle, "open")?;
        let child = child_of(pid)?;
        bundle.ok(verb)?;
        eventually("the first has ended", || Ok(is_gone(pid)))?;
        let lives = !is_gone(child);
        kill(Pid::from_raw(i32::try_from(child)?), Signal::SIGKILL)?;
        ensure!(lives, "{verb:?}: the second was found");
        eventually("the second has ended", || Ok(is_gone(child)))?;
        bundle.ok(&["delete", "--force", "open"])?;
        home.is_as_it_was(&before)?;
        bundle.empty()?;
    }
    Ok(())
}

/// With a cgroup namespace and without, a mount of cgroups shows the caller's, read-only.
fn mounts(context: &Context) -> Result<()> {
    let (inside, home_of) = if pure_v2() {
        ("/sys/fs/cgroup", "/sys/fs/cgroup")
    } else {
        ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory")
    };
    let script = format!(
        "stat -c %i {inside}; cd {inside}; echo 0 >cgroup.procs; busybox mkdir in; \
         echo 1 >cgroup.freeze; echo 1 >cgroup.kill; exit 0"
    );
    let mut wanted = config(&["sh", "-c", &script]);
    for mount in wanted["mounts"].as_array_mut().context("mounts")? {
        if mount["type"] == "cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
        }
    }
    let bundle = Bundle::new(context, &wanted)?;
    let mut home = Home::new()?;
    let before = directories()?;
    let own = home
        .directories
        .iter()
        .find(|directory| directory.parent() == Some(Path::new(home_of)))
        .with_context(|| format!("nothing in {home_of}"))?;
    let inode = format!("{}\n", fs::metadata(own)?.ino());
    for with_namespace in [true, false] {
        if !with_namespace {
            let namespaces = wanted["linux"]["namespaces"].as_array_mut();
            namespaces
                .context("namespaces")?
                .retain(|one| one["type"] != "cgroup");
            bundle.write(&wanted)?;
        }
        let output = home.oci(&bundle, &["run", "looking"])?;
        ensure!(
            output.code == Some(0) && output.stdout == inode,
            "{with_namespace}: {output:?}, not {inode}"
        );
        ensure!(
            output.stderr.matches("Read-only file system").count() >= 2,
            "{output:?}"
        );
        home.is_as_it_was(&before)?;
    }
    bundle.empty()
}
