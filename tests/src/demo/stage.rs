//! The stage: an agent of its own on loopback, lines shown as they happen, checks counted.

use std::{
    fmt::Display,
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    net::TcpStream,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

/// Everything here takes milliseconds, and on an emulated CPU beside another guest half a minute.
const PATIENCE: Duration = Duration::from_mins(2);

/// Ctrl-C, noticed between and during commands: the running one is told to end.
#[derive(Debug)]
pub struct Interrupt {
    seen: Arc<AtomicBool>,
    expected: Arc<AtomicBool>,
    running: Arc<AtomicI32>,
}

impl Interrupt {
    /// By handlers, not by a blocked mask: that one the commands would inherit.
    pub fn install() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the signal thread's runtime")?;
        let (mut int, mut term) = {
            let _guard = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        let interrupt = Self {
            seen: Arc::default(),
            expected: Arc::default(),
            running: Arc::default(),
        };
        let (seen, running) = (Arc::clone(&interrupt.seen), Arc::clone(&interrupt.running));
        thread::spawn(move || {
            loop {
                runtime.block_on(async {
                    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
                });
                seen.store(true, Ordering::SeqCst);
                let pid = running.load(Ordering::SeqCst);
                if pid > 0 {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                }
            }
        });
        Ok(interrupt)
    }

    pub fn seen(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }

    /// The demo was waiting for it.
    pub fn expected(&self) -> bool {
        self.expected.load(Ordering::SeqCst)
    }
}

/// What a shown command did.
#[derive(Debug)]
pub struct Shown {
    pub code: Option<i32>,
    pub stdout: String,
}

#[derive(Debug)]
pub struct Stage {
    bin: PathBuf,
    state: PathBuf,
    address: String,
    agent: Child,
    events: Child,
    told: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    interrupt: Arc<Interrupt>,
    passed: u32,
    failed: u32,
}

impl Stage {
    pub fn open(bin: PathBuf, interrupt: Arc<Interrupt>) -> Result<Self> {
        let state = nix::unistd::mkdtemp(&std::env::temp_dir().join("paddock-run-XXXXXX"))
            .context("make a state directory")?;
        println!(
            "$ paddock agent --state-dir {} --web.listen-address 127.0.0.1:0",
            state.display()
        );
        let mut agent = Command::new(&bin)
            .arg("--state-dir")
            .arg(&state)
            .args([
                "agent",
                "--detach-on-exit",
                "--web.listen-address",
                "127.0.0.1:0",
                "--track",
            ])
            .arg(format!("/{}", super::byhand::cgroup_name()))
            .stdin(Stdio::null())
            // Its own group: Ctrl-C on the terminal is the demo's to handle, in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", bin.display()))?;
        let address = match wait_for_agent(&state, &mut agent) {
            Ok(address) => address,
            Err(error) => {
                let _ = agent.kill();
                let _ = agent.wait();
                let _ = fs::remove_dir_all(&state);
                return Err(error);
            }
        };
        let mut events = Command::new(&bin)
            .arg("--state-dir")
            .arg(&state)
            .args(["events", "--follow"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("follow events")?;
        let told = Arc::new(Mutex::new(Vec::new()));
        let out = events.stdout.take().context("events have no stdout")?;
        let sink = Arc::clone(&told);
        let reader = thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                println!("  event  {line}");
                if let Ok(mut lines) = sink.lock() {
                    lines.push(line);
                }
            }
        });
        Ok(Self {
            bin,
            state,
            address,
            agent,
            events,
            told,
            reader: Some(reader),
            interrupt,
            passed: 0,
            failed: 0,
        })
    }

    pub fn title(&self, text: &str) {
        println!("\n== {text}");
    }

    /// Runs `paddock ARGS`, shown as a person would type it, its output as it comes.
    pub fn paddock(&self, args: &[&str]) -> Result<Shown> {
        println!(
            "$ paddock {}",
            args.iter()
                .map(|arg| quote(arg))
                .collect::<Vec<_>>()
                .join(" ")
        );
        let mut command = Command::new(&self.bin);
        command.arg("--state-dir").arg(&self.state).args(args);
        self.show(command)
    }

    /// Runs any command, its output shown as it comes.
    pub fn show(&self, mut command: Command) -> Result<Shown> {
        if self.interrupt.seen() {
            bail!("interrupted");
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        self.interrupt
            .running
            .store(child.id().cast_signed(), Ordering::SeqCst);
        let stderr = child
            .stderr
            .take()
            .map(|pipe| thread::spawn(move || echo(pipe)));
        let stdout = child.stdout.take().map(echo).unwrap_or_default();
        let status = child.wait().context("wait for the command")?;
        self.interrupt.running.store(0, Ordering::SeqCst);
        if let Some(thread) = stderr {
            let _ = thread.join();
        }
        if self.interrupt.seen() {
            bail!("interrupted");
        }
        Ok(Shown {
            // As a shell has it.
            code: status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal)),
            stdout,
        })
    }

    /// Runs `paddock ARGS` unseen and returns its standard output.
    pub fn ask(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.bin)
            .arg("--state-dir")
            .arg(&self.state)
            .args(args)
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn check(&mut self, what: &str, holds: bool, saw: impl Display) {
        if holds {
            self.passed += 1;
            println!("  ok     {what}: {saw}");
        } else {
            self.failed += 1;
            println!("  FAILED {what}: saw {saw}");
        }
    }

    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Value of the series whose line starts with `series`, scraped now.
    pub fn metric(&self, series: &str) -> Result<Option<f64>> {
        let text = self.scrape()?;
        let value = text.lines().find_map(|line| {
            line.strip_prefix(series)
                .and_then(|rest| rest.trim().parse().ok())
        });
        Ok(value)
    }

    /// A metric that should become `want`: the ring and the monitor need their moment.
    pub fn check_metric(&mut self, series: &str, want: f64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let saw = self.metric(series)?;
            let holds = saw == Some(want);
            if holds || Instant::now() > deadline {
                self.check(
                    series,
                    holds,
                    saw.map_or_else(|| "no such series".to_owned(), |saw| saw.to_string()),
                );
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// An event line that holds all of `words` should come, or have come.
    pub fn check_event(&mut self, what: &str, words: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.told.lock().ok().and_then(|lines| {
                lines
                    .iter()
                    .find(|line| words.iter().all(|word| line.contains(word)))
                    .cloned()
            });
            if found.is_some() || Instant::now() > deadline {
                let holds = found.is_some();
                self.check(what, holds, if holds { "told" } else { "no such event" });
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn scrape(&self) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address)
            .with_context(|| format!("connect {}", self.address))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The metric lines, the address, what to try; then stays until Ctrl-C unless `once`.
    pub fn epilogue(&mut self, once: bool) -> Result<()> {
        self.title("what Prometheus would scrape");
        for line in self.scrape()?.lines() {
            let shown = [
                "_oom_kills_total",
                "_escapes_total",
                "_namespace_calls_total",
                "cpu_usage_seconds_total",
            ];
            let zero = line.ends_with(" 0");
            if line.starts_with("paddock_") && shown.iter().any(|name| line.contains(name)) && !zero
            {
                println!("{line}");
            }
        }
        println!("\nscrape  http://{}/metrics", self.address);
        let paddock = format!(
            "{} --state-dir {}",
            self.bin.display(),
            self.state.display()
        );
        for line in [
            "ps -a",
            "events",
            "inspect tunneler",
            "run --rm -m 64m --cpus 0.5 host sh -c 'id; ps; readlink /proc/self/ns/*'",
        ] {
            println!("try     {paddock} {line}");
        }
        println!("\n{} checks held, {} failed", self.passed, self.failed);
        if !once {
            println!("Ctrl-C ends the agent and removes everything");
            self.interrupt.expected.store(true, Ordering::SeqCst);
            while !self.interrupt.seen() {
                thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    /// Ends everything and returns what is left behind, which should be nothing.
    pub fn close(&mut self) -> Vec<String> {
        for name in self
            .ask(&["ps", "-a", "-q", "--no-trunc"])
            .unwrap_or_default()
            .lines()
        {
            let _ = self.ask(&["rm", "-f", name]);
        }
        end(&mut self.events);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        end(&mut self.agent);
        let mut left = super::byhand::leftovers();
        // The directory goes with the agent; what is still in it would be a leak.
        if let Ok(entries) = fs::read_dir(&self.state) {
            left.extend(
                entries
                    .flatten()
                    .map(|entry| entry.path().display().to_string()),
            );
            let _ = fs::remove_dir(&self.state);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let state = self.state.display().to_string();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&state))
                .map(str::to_owned),
        );
        left.extend(cgroups_with_processes_of(&state));
        for line in &left {
            println!("left behind: {line}");
        }
        left
    }
}

/// Processes that still carry the state directory in their command line.
fn cgroups_with_processes_of(state: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name != own && name.parse::<u32>().is_ok())
        })
        .filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(state)
                .then(|| format!("process {} {line}", entry.file_name().display()))
        })
        .collect()
}

fn end(child: &mut Child) {
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Prints a pipe's lines as they come and returns them.
fn echo(pipe: impl Read) -> String {
    let mut all = String::new();
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        println!("  {}", text.trim_end());
        all.push_str(&text);
        line.clear();
    }
    all
}

fn wait_for_agent(state: &Path, agent: &mut Child) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(text) = fs::read_to_string(state.join("agent.json"))
            && let Ok(json) = serde_json::from_str::<serde_json::Value>(&text)
            && let Some(address) = json["metrics_address"].as_str()
            && state.join("paddock.sock").exists()
        {
            return Ok(address.to_owned());
        }
        if let Some(status) = agent.try_wait()? {
            bail!("the agent ended at once: {status}");
        }
        if Instant::now() > deadline {
            bail!("the agent was not ready within {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// As a shell would need it.
fn quote(arg: &str) -> String {
    let plain = !arg.is_empty()
        && arg
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c));
    if plain {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}
