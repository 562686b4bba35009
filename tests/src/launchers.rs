//! The same container by paddock and by its peers, for measurements side by side.
//!
//! All start busybox from one root file system in the same six namespaces under the same
//! limits, with what docker mounts and drops. User namespaces are left out: the peers have
//! none by default.
//! The floor is what no launcher can do without: a program that makes the namespaces and
//! starts the command. crun refuses hybrid hosts, so it runs where v2 is not mounted.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};

use crate::{
    bundle::{busybox, config},
    context::{Context, pure_v2},
};

const MEMORY: u64 = 64 << 20;
const PIDS: u64 = 100;
const HYBRID_V2: &str = "/sys/fs/cgroup/unified";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    Floor,
    Paddock,
    PaddockOci,
    Crun,
    Runc,
}

impl Launcher {
    pub const ALL: [Self; 5] = [
        Self::Floor,
        Self::Paddock,
        Self::PaddockOci,
        Self::Crun,
        Self::Runc,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Paddock => "paddock",
            Self::PaddockOci => "paddock oci",
            Self::Crun => "crun",
            Self::Runc => "runc",
        }
    }
}

/// A bundle whose `rootfs` is also what `paddock run` and the floor start from.
#[derive(Debug)]
pub struct Stage<'a> {
    context: &'a Context,
    path: PathBuf,
    pid_file: PathBuf,
}

impl<'a> Stage<'a> {
    pub fn new(context: &'a Context) -> Result<Self> {
        let path = context.state.with_extension("stage");
        let stage = Self {
            context,
            pid_file: path.join("pid"),
            path,
        };
        let root = stage.root();
        for directory in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::copy(busybox()?, root.join("bin/busybox"))?;
        for applet in ["true", "sleep"] {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        stage.configure(&["/bin/true"], MEMORY)?;
        Ok(stage)
    }

    fn root(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// What the OCI runtimes start next.
    fn configure(&self, args: &[&str], memory: u64) -> Result<()> {
        let text = limited(args, memory).to_string();
        Ok(fs::write(self.path.join("config.json"), text)?)
    }

    /// Runs `true` to its end.
    pub fn run(&self, launcher: Launcher, name: &str) -> Command {
        let mut command = match launcher {
            Launcher::Floor => self.floor(&["bare"]),
            Launcher::Paddock => self.paddock(&["run", "--rm", "--name", name], MEMORY),
            _ => self.runtime(launcher, &["run", name]),
        };
        match launcher {
            Launcher::Floor => command.arg(self.root().join("bin/true")),
            Launcher::Paddock => command.arg(self.root()).arg("/bin/true"),
            _ => &mut command,
        };
        command
    }

    /// The same under another memory limit.
    pub fn run_within(&self, launcher: Launcher, name: &str, memory: u64) -> Result<Command> {
        if launcher == Launcher::Paddock {
            let mut command = self.paddock(&["run", "--rm", "--name", name], memory);
            command.arg(self.root()).arg("/bin/true");
            return Ok(command);
        }
        self.configure(&["/bin/true"], memory)?;
        Ok(self.runtime(launcher, &["run", name]))
    }

    /// Starts one that stays, and gives its first process.
    pub fn start(&self, launcher: Launcher, name: &str) -> Result<i32> {
        self.configure(&["/bin/sleep", "100000"], MEMORY)?;
        let pid_file = self.pid_file.to_str().context("a path in UTF-8")?;
        let mut command = match launcher {
            Launcher::Paddock | Launcher::Floor => {
                let mut command = self.paddock(&["run", "-d", "--name", name], MEMORY);
                command.arg(self.root()).args(["/bin/sleep", "100000"]);
                command
            }
            _ => self.runtime(launcher, &["run", "-d", "--pid-file", pid_file, name]),
        };
        // Detached, the container keeps what it is given.
        let status = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        self.configure(&["/bin/true"], MEMORY)?;
        anyhow::ensure!(status.success(), "{}: {status}", launcher.name());
        if matches!(launcher, Launcher::Paddock | Launcher::Floor) {
            let pid = self.context.inspect(name)?["pid"].as_i64();
            return Ok(i32::try_from(pid.context("no pid")?)?);
        }
        Ok(fs::read_to_string(&self.pid_file)?.trim().parse()?)
    }

    /// Runs `true` in one that was started.
    pub fn exec(&self, launcher: Launcher, name: &str, pid: i32) -> Command {
        match launcher {
            Launcher::Floor => {
                let mut command = self.floor(&["join", &pid.to_string()]);
                command.arg("/bin/true");
                command
            }
            Launcher::Paddock => self.context.command(&["exec", name, "/bin/true"]),
            _ => self.runtime(launcher, &["exec", name, "/bin/true"]),
        }
    }

    pub fn remove(&self, launcher: Launcher, name: &str) -> Result<()> {
        let mut command = match launcher {
            Launcher::Floor | Launcher::Paddock => self.context.command(&["rm", "-f", name]),
            _ => self.runtime(launcher, &["delete", "--force", name]),
        };
        let status = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        anyhow::ensure!(status.success(), "{} {name}: {status}", launcher.name());
        Ok(())
    }

    fn floor(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.context.workload);
        command.args(args);
        command
    }

    fn paddock(&self, args: &[&str], memory: u64) -> Command {
        let mut command = self.context.command(args);
        command.args(["--memory", &memory.to_string()]);
        command.args(["--pids-limit", &PIDS.to_string()]);
        command.args([
            "--cpus",
            "0.5",
            "--read-only",
            "--timens",
            "host",
            "--userns",
            "host",
        ]);
        command
    }

    fn runtime(&self, launcher: Launcher, args: &[&str]) -> Command {
        let mut command = match launcher {
            Launcher::Crun => Command::new("crun"),
            Launcher::Runc => Command::new("runc"),
            _ => {
                let mut command = Command::new(&self.context.bin);
                command.arg("oci");
                command
            }
        };
        let states = self.path.join(launcher.name().replace(' ', "-"));
        command.arg("--root").arg(states).args(args);
        command.current_dir(&self.path);
        command
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Makes the calling thread, and what it starts, see no v2 hierarchy where v1 has the
/// controllers; elsewhere nothing changes.
pub fn hide_v2() -> Result<()> {
    if pure_v2() {
        return Ok(());
    }
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    umount2(HYBRID_V2, MntFlags::MNT_DETACH).context("take the v2 mount away")
}

fn limited(args: &[&str], memory: u64) -> Value {
    let mut config = config(args);
    config["linux"]["resources"] = json!({
        "memory": {"limit": memory},
        "pids": {"limit": PIDS},
        "cpu": {"quota": 50_000, "period": 100_000},
    });
    // paddock has none of its own accord.
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/tmp");
    }
    config
}
