//! What cases are played with: made on the host for one case, and gone after it.

use std::{
    fs::{self, File},
    io::IoSlice,
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::{
    context::{Context, eventually, finish, pure_v2},
    metrics::Metrics,
};

/// Namespaces' names, for `{host.uts}` and `{peer.uts}`.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// What is asked of this machine in `on`.
#[derive(Debug)]
pub(super) struct Facts {
    metrics: Metrics,
}

impl Facts {
    pub(super) fn of(context: &Context) -> Result<Self> {
        Ok(Self {
            metrics: context.metrics()?,
        })
    }

    /// Whether the kernel asks its security modules before an act.
    pub(super) fn asks(&self) -> bool {
        let labels = [("capability", "enforce"), ("rung", "lsm")];
        self.metrics.value("paddock_probe_attached", &labels) == Some(1.0)
    }

    /// - `tracepoints`: system calls are seen by their tracepoints, the last rung;
    /// - `hybrid`: controllers are on cgroup v1;
    /// - `with X`, `without X`: a path, or a program's name;
    /// - `before 6.6`, `from 6.6`: the kernel.
    pub(super) fn hold(&self, on: &str) -> Result<bool> {
        let (word, rest) = on.split_once(' ').unwrap_or((on, ""));
        Ok(match word {
            "tracepoints" => {
                let labels = [("capability", "setns"), ("rung", "tracepoint")];
                self.metrics.value("paddock_probe_attached", &labels) == Some(1.0)
            }
            "hybrid" => !pure_v2(),
            "with" => exists(rest),
            "without" => !exists(rest),
            "before" => kernel()? < version(rest)?,
            "from" => kernel()? >= version(rest)?,
            _ => bail!("no such fact"),
        })
    }
}

fn exists(name: &str) -> bool {
    if name.starts_with('/') {
        return Path::new(name).exists();
    }
    find(name).is_some()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&path).map(|dir| dir.join(program));
    files.find(|file| file.is_file())
}

fn kernel() -> Result<(u32, u32)> {
    version(&fs::read_to_string("/proc/sys/kernel/osrelease")?)
}

fn version(text: &str) -> Result<(u32, u32)> {
    let mut numbers = text.split(|one: char| !one.is_ascii_digit());
    let mut next = || -> Result<u32> { Ok(numbers.next().context("no version")?.parse()?) };
    Ok((next()?, next()?))
}

/// What one case's placeholders stand for.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) dir: PathBuf,
    words: Vec<(String, String)>,
    victim: Option<Child>,
    cgroups: Vec<PathBuf>,
    device: Option<String>,
}

impl Stage {
    /// Makes what occurs in `texts`.
    pub(super) fn set(context: &Context, texts: &str) -> Result<Self> {
        let mut stage = Self {
            dir: context.state.with_extension("corpus"),
            words: Vec::new(),
            victim: None,
            cgroups: Vec::new(),
            device: None,
        };
        fs::create_dir(&stage.dir).with_context(|| stage.dir.display().to_string())?;
        match stage.fill(context, texts) {
            Ok(()) => Ok(stage),
            Err(error) => {
                stage.strike()?;
                Err(error)
            }
        }
    }

    fn fill(&mut self, context: &Context, texts: &str) -> Result<()> {
        let wants = |word: &str| texts.contains(&format!("{{{word}"));
        let this = std::process::id().to_string();
        self.name("dir", self.dir.display().to_string());
        self.name("bin", context.bin.display().to_string());
        self.name("state", context.state.display().to_string());
        self.namespaces("host", &this)?;
        self.name("test", this);
        let hierarchies = fs::read_to_string("/proc/self/cgroup")?.lines().count();
        self.name("hierarchies", hierarchies.to_string());
        if wants("runc") {
            let runc = find("runc").context("no runc: cargo xtask setup")?;
            self.name("runc", runc.display().to_string());
        }
        if wants("nspawn") {
            // One that is not there is no file.
            let nspawn = find("systemd-nspawn").unwrap_or_else(|| "/dev/null".into());
            self.name("nspawn", nspawn.display().to_string());
        }
        if wants("victim") {
            self.victim(context)?;
        }
        if wants("peer") {
            self.peer(context)?;
        }
        if wants("cgroup") || wants("limits") {
            self.cgroups()?;
        }
        if wants("loop") {
            self.device()?;
        }
        if wants("gift") {
            self.gift()?;
        }
        Ok(())
    }

    pub(super) fn name(&mut self, word: &str, value: String) {
        self.words.push((format!("{{{word}}}"), value));
    }

    pub(super) fn play(&self, text: &str) -> String {
        let replaced = |text: String, (word, value): &(String, String)| text.replace(word, value);
        self.words.iter().fold(text.to_owned(), replaced)
    }

    /// `{host.uts}` as readlink has it.
    fn namespaces(&mut self, whose: &str, pid: &str) -> Result<()> {
        for namespace in NAMESPACES {
            let link = fs::read_link(format!("/proc/{pid}/ns/{namespace}"))?;
            self.name(&format!("{whose}.{namespace}"), link.display().to_string());
        }
        Ok(())
    }

    /// A process of the host's, with a secret at descriptor 0; `{victim.memory}` is where
    /// its program begins.
    fn victim(&mut self, context: &Context) -> Result<()> {
        let secret = self.dir.join("secret");
        fs::write(&secret, "the host's own\n")?;
        let mut command = Command::new(&context.workload);
        command.args(["sleep", "600"]).stdin(File::open(secret)?);
        let child = command.stdout(Stdio::null()).spawn()?;
        let pid = child.id();
        self.victim = Some(child);
        self.name("victim", pid.to_string());
        // Before exec it has the mappings of this process.
        let program = context.workload.display().to_string();
        let mut address = String::new();
        eventually("the victim is itself", || {
            let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
            let first = maps.lines().find(|line| line.ends_with(&program));
            let found = first.and_then(|line| line.split('-').next());
            found.unwrap_or_default().clone_into(&mut address);
            Ok(!address.is_empty())
        })?;
        self.name("victim.memory", format!("0x{address}"));
        Ok(())
    }

    /// Another container, in the host's user namespace; `{peer.limits}` is where its limits are.
    fn peer(&mut self, context: &Context) -> Result<()> {
        let run = [
            "run", "-d", "--name", "the-peer", "--userns", "host", "host",
        ];
        context.ok(&[&run[..], &["sleep", "600"]].concat())?;
        let detail = context.inspect("the-peer")?;
        let pid = detail["pid"].as_i64().context("no pid")?.to_string();
        let cgroup = detail["cgroup"].as_str().context("no cgroup")?;
        let limits = controller().join(cgroup);
        self.name("peer.limits", limits.display().to_string());
        self.namespaces("peer", &pid)?;
        self.name("peer.name", "the-peer".to_owned());
        self.name("peer", pid);
        Ok(())
    }

    /// `{cgroup}`, one of v2 outside of all containers, and `{limits}`, where its pids.max is.
    fn cgroups(&mut self) -> Result<()> {
        let name = format!("corpus-{}", std::process::id());
        let root = if pure_v2() { "" } else { "unified" };
        let unified = Path::new("/sys/fs/cgroup").join(root).join(&name);
        let limits = controller().join(&name);
        for dir in [&unified, &limits] {
            if !dir.exists() {
                fs::create_dir(dir).with_context(|| dir.display().to_string())?;
                self.cgroups.push(dir.clone());
            }
        }
        self.name("cgroup", unified.display().to_string());
        self.name("limits", limits.display().to_string());
        Ok(())
    }

    /// A block device over a file; `{loop.number}` is its major and minor as mknod takes them.
    fn device(&mut self) -> Result<()> {
        let disk = self.dir.join("disk");
        fs::write(&disk, "the host's disk\n".repeat(4096))?;
        let losetup = |args: &[&str]| {
            let output = finish(Command::new("losetup").args(args))?;
            ensure!(output.code == Some(0), "losetup {args:?}: {output:?}");
            anyhow::Ok(output.stdout.trim().to_owned())
        };
        let device = losetup(&["-f"])?;
        losetup(&[&device, &disk.display().to_string()])?;
        self.device = Some(device.clone());
        let minor: u32 = device.trim_start_matches("/dev/loop").parse()?;
        self.name("loop.number", ((7 << 8) | minor).to_string());
        self.name("loop", device);
        Ok(())
    }

    /// A socket that hands over a descriptor of the host's root directory.
    fn gift(&mut self) -> Result<()> {
        let path = self.dir.join("gift");
        let listener = UnixListener::bind(&path)?;
        self.name("gift", path.display().to_string());
        thread::spawn(move || {
            let (stream, _) = listener.accept()?;
            hand_over(&stream)
        });
        Ok(())
    }

    /// Removes all of it; the peer goes with the scenario's containers.
    pub(super) fn strike(&mut self) -> Result<()> {
        if let Some(mut victim) = self.victim.take() {
            victim.kill()?;
            victim.wait()?;
        }
        for dir in self.cgroups.drain(..) {
            eventually("the cgroup empties", || Ok(fs::remove_dir(&dir).is_ok()))?;
        }
        if let Some(device) = self.device.take() {
            let output = finish(Command::new("losetup").args(["-d", &device]))?;
            ensure!(output.code == Some(0), "{output:?}");
        }
        fs::remove_dir_all(&self.dir).with_context(|| self.dir.display().to_string())
    }
}

/// Where limits of processes are counted.
fn controller() -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    if pure_v2() {
        root.to_owned()
    } else {
        root.join("pids")
    }
}

fn hand_over(stream: &UnixStream) -> Result<()> {
    let root = File::open("/")?;
    let fds = [root.as_raw_fd()];
    let messages = [ControlMessage::ScmRights(&fds)];
    let data = [IoSlice::new(b"!")];
    let fd = stream.as_raw_fd();
    sendmsg::<()>(fd, &data, &messages, MsgFlags::empty(), None)?;
    Ok(())
}
