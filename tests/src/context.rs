//! What a scenario gets: the binary, a state directory, an agent when it asks for one.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::metrics::Metrics;

/// No command of a scenario may take longer, in a guest without hardware help either.
pub const TIMEOUT: Duration = Duration::from_mins(3);
/// What is waited for comes in milliseconds; emulated, beside another guest, in many seconds.
const EVENTUALLY: Duration = Duration::from_mins(1);
/// How nearly every scenario wants its agent: what it attached goes when it ends.
const USUAL: [&str; 1] = ["--detach-on-exit"];

#[derive(Debug)]
pub struct Context {
    /// The `paddock` under test.
    pub bin: PathBuf,
    /// `paddock-workload`, for `-v WORKLOAD:/run/workload:ro`.
    pub workload: PathBuf,
    pub state: PathBuf,
    /// Where images are; made by what needs it.
    pub data: PathBuf,
    agent: Mutex<Option<Child>>,
    /// Somebody else's agent, which stays when this is closed.
    resident: Option<Resident>,
}

#[derive(Clone, Copy, Debug)]
struct Resident {
    pid: i32,
    /// How much it had logged before.
    logged: u64,
    /// What it had told before is older.
    since: SystemTime,
}

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Context {
    pub fn new() -> Result<Self> {
        let state = nix::unistd::mkdtemp(&std::env::temp_dir().join("paddock-test-XXXXXX"))?;
        Ok(Self {
            bin: from_env("PADDOCK_BIN")?,
            workload: from_env("PADDOCK_WORKLOAD")?,
            data: state.with_extension("data"),
            state,
            agent: Mutex::new(None),
            resident: None,
        })
    }

    /// One with a running agent, for [`beside`](Self::beside).
    pub fn with_agent() -> Result<Self> {
        let context = Self::new()?;
        context.start_agent(&USUAL)?;
        // It keeps the parents of containers' cgroups until it ends; they are no leak.
        context.ok(&["run", "--rm", "host", "true"])?;
        context.load_all()?;
        Ok(context)
    }

    /// It keeps the programs that it loads when the first policy of paths is in force, where the
    /// kernel takes any.
    fn load_all(&self) -> Result<()> {
        let file = self.state.with_extension("policy");
        fs::write(
            &file,
            "name = \"first\"\n[[rule]]\nname = \"one\"\nfile = { path = \"/none\", operation = \"read\" }\n",
        )?;
        let name = file.display().to_string();
        let applied = self.paddock(&["policy", "apply", &name]);
        fs::remove_file(&file)?;
        if applied?.code == Some(0) {
            self.ok(&["policy", "rm", "first"])?;
        }
        Ok(())
    }

    /// A scenario's own view of a running agent and of its directories.
    pub fn beside(host: &Self) -> Result<Self> {
        Ok(Self {
            bin: host.bin.clone(),
            workload: host.workload.clone(),
            state: host.state.clone(),
            data: host.data.clone(),
            agent: Mutex::new(None),
            resident: Some(Resident {
                pid: host.agent_pid()?,
                logged: fs::metadata(host.log_path())?.len(),
                since: SystemTime::now(),
            }),
        })
    }

    /// `paddock --state-dir STATE ARGS`, run to its end.
    pub fn paddock<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<Output> {
        finish(self.command(args).stdin(Stdio::null()))
    }

    /// The same, and its exit code must be 0; returns stdout.
    pub fn ok<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<String> {
        let output = self.paddock(args)?;
        let line: Vec<_> = args
            .iter()
            .map(|arg| arg.as_ref().to_string_lossy())
            .collect();
        ensure!(
            output.code == Some(0),
            "paddock {}: {output:?}",
            line.join(" ")
        );
        Ok(output.stdout)
    }

    /// The same, stdout as JSON.
    pub fn json<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<Value> {
        let text = self.ok(args)?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// `events --format json`: what was told since the scenario began.
    pub fn events(&self) -> Result<String> {
        let all = self.ok(&["events", "--format", "json"])?;
        let Some(resident) = self.resident else {
            return Ok(all);
        };
        let since = resident.since.duration_since(UNIX_EPOCH)?.as_nanos();
        let mut own = String::new();
        for line in all.lines() {
            let event: Value = serde_json::from_str(line)?;
            let time = event["time_ns"].as_u64().context("no time")?;
            if u128::from(time) >= since {
                own.push_str(line);
                own.push('\n');
            }
        }
        Ok(own)
    }

    pub fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(&self.bin);
        command.arg("--state-dir").arg(&self.state).args(args);
        command.env("PADDOCK_DATA_DIR", &self.data);
        // What this machine's operator configured is not tested here.
        command.env("PADDOCK_CONFIG", "none");
        // It comes and goes, and is counted: a scenario of its own asks for it.
        command.env("PADDOCK_CANARY_INTERVAL", "0");
        command
    }

    /// `inspect NAME`, the one object.
    pub fn inspect(&self, name: &str) -> Result<Value> {
        let value = self.json(&["inspect", name])?;
        Ok(value.get(0).cloned().unwrap_or(value))
    }

    /// The process that watches over the container NAME.
    pub fn monitor_of(&self, name: &str) -> Result<Pid> {
        let detail = self.inspect(name)?;
        let id = detail["id"].as_str().context("no id")?;
        let path = self.state.join("containers").join(id).join("started.json");
        let started: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
        let pid = started["monitor_pid"].as_i64().context("no monitor")?;
        Ok(Pid::from_raw(i32::try_from(pid)?))
    }

    /// `-v` argument that puts the workload at /run/workload.
    pub fn workload_volume(&self) -> String {
        format!("{}:/run/workload:ro", self.workload.display())
    }

    /// Starts `paddock agent` on a free port and waits until it answers; or gives the one that
    /// this scenario shares with others.
    pub fn start_agent(&self, args: &[&str]) -> Result<i32> {
        if let Some(resident) = self.resident {
            ensure!(args == USUAL, "such an agent needs `Scenario::alone`");
            return Ok(resident.pid);
        }
        self.start_agent_by(&[], args)
    }

    /// The same by a program that becomes the agent.
    pub fn start_agent_by(&self, program: &[&str], args: &[&str]) -> Result<i32> {
        ensure!(
            self.resident.is_none(),
            "such an agent needs `Scenario::alone`"
        );
        // An ephemeral agent of an earlier command takes its moment to end.
        eventually("no agent is left", || {
            Ok(UnixStream::connect(self.state.join("paddock.sock")).is_err())
        })?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        // A killed predecessor's file would answer for the new one.
        let _ = fs::remove_file(self.state.join("agent.json"));
        let agent = self.command(&["agent", "--web.listen-address", "127.0.0.1:0"]);
        let mut words = program.iter().map(OsStr::new);
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(agent.get_program());
                command.args(agent.get_args());
                command.env("PADDOCK_DATA_DIR", &self.data);
                command.envs([("PADDOCK_CONFIG", "none"), ("PADDOCK_CANARY_INTERVAL", "0")]);
                command
            }
            None => agent,
        };
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let pid = child.id().cast_signed();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let listens = UnixStream::connect(self.state.join("paddock.sock")).is_ok();
            if listens && self.agent_info().is_ok() && self.paddock(&["ps"])?.code == Some(0) {
                break;
            }
            if let Some(status) = child.try_wait()? {
                bail!("the agent ended at once: {status}: {}", self.agent_log());
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                bail!("the agent did not get ready: {}", self.agent_log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.agent().replace(child);
        Ok(pid)
    }

    /// Kills the agent as the kernel would: no clean-up of its own.
    pub fn kill_agent(&self) -> Result<()> {
        let mut child = self.agent().take().context("no agent runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Ends it by SIGTERM; its exit code.
    pub fn stop_agent(&self) -> Result<Option<i32>> {
        let mut child = self.agent().take().context("no agent runs")?;
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
        Ok(wait_within(&mut child, TIMEOUT)?.0)
    }

    fn agent(&self) -> MutexGuard<'_, Option<Child>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the agent that this context started.
    pub fn agent_pid(&self) -> Result<i32> {
        let agent = self.agent();
        let child = agent.as_ref().context("no agent runs")?;
        Ok(child.id().cast_signed())
    }

    fn agent_info(&self) -> Result<Value> {
        Ok(serde_json::from_str(&fs::read_to_string(
            self.state.join("agent.json"),
        )?)?)
    }

    /// Where the agent serves metrics.
    pub fn address(&self) -> Result<String> {
        let info = self.agent_info()?;
        Ok(info["metrics_address"]
            .as_str()
            .context("no metrics address")?
            .to_owned())
    }

    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(&self.address()?)
    }

    fn log_path(&self) -> PathBuf {
        self.state.with_extension("log")
    }

    pub fn agent_log(&self) -> String {
        let before = self.resident.map_or(0, |resident| resident.logged);
        let log = fs::read(self.log_path()).unwrap_or_default();
        let before = usize::try_from(before).unwrap_or(0).min(log.len());
        String::from_utf8_lossy(&log[before..]).into_owned()
    }

    /// Ends what the scenario started; an error when something could not be removed.
    pub fn close(self) -> Result<()> {
        let any = self.state.join("paddock.sock").exists();
        if any {
            let names = self.paddock(&["ps", "-a", "-q", "--no-trunc"])?.stdout;
            for name in names.lines() {
                self.paddock(&["rm", "-f", name])?;
            }
        }
        if self.resident.is_some() {
            self.lift_policies()?;
            return self.is_as_before();
        }
        if self.agent().is_some() {
            self.stop_agent()?;
        }
        if any || self.state.join("bpf").exists() {
            self.paddock(&["unload"])?;
        }
        // An ephemeral agent takes its moment to see that nobody needs it, and to clean up.
        let deadline = Instant::now() + EVENTUALLY;
        let left = loop {
            let left: Vec<_> = fs::read_dir(&self.state)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path().display().to_string())
                .collect();
            if left.is_empty() || Instant::now() > deadline {
                break left;
            }
            thread::sleep(Duration::from_millis(50));
        };
        let written = self.data.join("containers").exists();
        let _ = fs::remove_file(self.log_path());
        let _ = fs::remove_dir_all(&self.state);
        let _ = fs::remove_dir_all(&self.data);
        ensure!(
            left.is_empty(),
            "left in the state directory: {}",
            left.join(" ")
        );
        ensure!(!written, "left in the data directory: containers");
        Ok(())
    }
}

impl Context {
    /// What a scenario that failed left in force would meet those after it; the corpus goes on
    /// with its own.
    fn lift_policies(&self) -> Result<()> {
        let files = fs::read_dir(self.state.join("policies"));
        for file in files.into_iter().flatten().flatten() {
            let file = file.file_name().to_string_lossy().into_owned();
            let name = file.strip_suffix(".toml").unwrap_or_default();
            if !name.is_empty() && !name.starts_with("corpus-") {
                self.ok(&["policy", "rm", name])?;
            }
        }
        Ok(())
    }

    /// The agent that others use too is there and has no containers.
    fn is_as_before(&self) -> Result<()> {
        UnixStream::connect(self.state.join("paddock.sock")).context("the agent is gone")?;
        for directory in [&self.state, &self.data] {
            let left: Vec<_> = fs::read_dir(directory.join("containers"))
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path().display().to_string())
                .collect();
            ensure!(left.is_empty(), "left: {}", left.join(" "));
        }
        Ok(())
    }
}

/// Runs a command to its end with a time limit, both outputs kept.
pub fn finish(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let stdout = child
        .stdout
        .take()
        .map(|mut pipe| thread::spawn(move || read(&mut pipe)));
    let stderr = child
        .stderr
        .take()
        .map(|mut pipe| thread::spawn(move || read(&mut pipe)));
    let (code, late) = wait_within(&mut child, TIMEOUT)?;
    let text = |thread: Option<thread::JoinHandle<String>>| {
        thread.and_then(|t| t.join().ok()).unwrap_or_default()
    };
    let output = Output {
        code,
        stdout: text(stdout),
        stderr: text(stderr),
    };
    ensure!(
        !late,
        "{program} did not end within {TIMEOUT:?}: {output:?}"
    );
    Ok(output)
}

fn read(pipe: &mut impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Exit code, and whether it had to be killed.
fn wait_within(child: &mut Child, limit: Duration) -> Result<(Option<i32>, bool)> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status.code(), false));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok((None, true));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Tries until `probe` says yes or the time is over.
pub fn eventually(what: &str, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + EVENTUALLY;
    loop {
        if probe()? {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(30));
    }
}

/// Every cgroup mount: controllers (`None` for v2) and mount point.
pub fn cgroup_mounts() -> Result<Vec<(Option<String>, PathBuf)>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
    Ok(mounts
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = PathBuf::from(left.split(' ').nth(4)?);
            let mut right = right.split(' ');
            match right.next()? {
                "cgroup2" => Some((None, point)),
                "cgroup" => Some((Some(right.nth(1)?.to_owned()), point)),
                _ => None,
            }
        })
        .collect())
}

/// Pure v2, as the guests are; else v1 controllers, as on a hybrid host.
pub fn pure_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The file of the kernel that holds a container's limit, by its v2 and its v1 name.
pub fn cgroup_file(cgroup: &str, v2: &str, v1: (&str, &str)) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    if pure_v2() {
        root.join(cgroup).join(v2)
    } else {
        root.join(v1.0).join(cgroup).join(v1.1)
    }
}

fn from_env(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os(name)
        .with_context(|| format!("{name} is not set: use `cargo xtask test`"))?;
    Ok(PathBuf::from(path))
}
