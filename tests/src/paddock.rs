//! The binary under test, driven as a user drives it.

use std::{
    ffi::OsStr,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::{
    context::wait_until,
    process::{Output, Running, run},
};

const TIMEOUT: Duration = Duration::from_secs(60);
/// An emulated guest attaches dozens of programs in this time.
const START: Duration = Duration::from_secs(60);

/// One instance: a binary and a state directory.
#[derive(Clone, Debug)]
pub struct Paddock {
    pub bin: PathBuf,
    pub state_dir: PathBuf,
}

impl Paddock {
    /// `paddock ARGS` on this instance.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.bin);
        command
            .args(args)
            .env("PADDOCK_STATE_DIR", &self.state_dir)
            .env_remove("RUST_LOG");
        command
    }

    /// Runs it to its end, within a minute.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output> {
        run(&mut self.command(args), TIMEOUT)
    }

    /// As [`Self::run`], with 0 expected; stdout without its last newline.
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        Ok(self.run(args)?.ok()?.stdout.trim_end().to_owned())
    }

    /// Starts it and leaves it running.
    pub fn spawn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Running> {
        Running::start(&mut self.command(args))
    }

    /// Starts an agent on a port of its own choice and waits until it answers.
    pub fn agent(&self, args: &[&str]) -> Result<Agent> {
        let mut all = vec!["agent", "--web.listen-address", "127.0.0.1:0"];
        all.extend(args);
        let mut running = self.spawn(all)?;
        let socket = self.state_dir.join("paddock.sock");
        let record = self.state_dir.join("agent.json");
        let pid = running.pid();
        let mut info = None;
        let up = wait_until("the agent's start", START, || {
            if running.has_ended()? {
                bail!("the agent ended: {}", running.stderr().trim_end());
            }
            info = fs::read(&record)
                .ok()
                .and_then(|text| serde_json::from_slice::<Record>(&text).ok())
                .filter(|record| record.pid == pid);
            Ok(info.is_some() && UnixStream::connect(&socket).is_ok())
        });
        up.with_context(|| format!("stderr: {}", running.stderr().trim_end()))?;
        let info = info.context("agent.json")?;
        Ok(Agent {
            running,
            metrics_address: info.metrics_address,
        })
    }
}

/// `agent.json`, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Record {
    pid: i32,
    metrics_address: String,
}

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    running: Running,
    pub metrics_address: String,
}

impl Agent {
    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    pub fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// SIGTERM, as systemd does; it must end with 0.
    pub fn stop(self) -> Result<Output> {
        self.running.signal(Signal::SIGTERM)?;
        self.running.wait(TIMEOUT)?.ok().context("stop the agent")
    }

    /// SIGKILL: nothing in it gets a chance to tidy up.
    pub fn kill(self) -> Result<()> {
        self.running.signal(Signal::SIGKILL)?;
        self.running.wait(TIMEOUT).map(drop)
    }

    /// The body at `/metrics`.
    pub fn metrics(&self) -> Result<String> {
        self.get("/metrics")
    }

    /// One value of the exposition, by its whole series name with labels as written.
    pub fn metric(&self, series: &str) -> Result<Option<f64>> {
        Ok(self.metrics()?.lines().find_map(|line| {
            let value = line.strip_prefix(series)?.strip_prefix(' ')?;
            value.trim().parse().ok()
        }))
    }

    /// The body of a 200 on the metrics address.
    pub fn get(&self, path: &str) -> Result<String> {
        let address = &self.metrics_address;
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream
            .set_read_timeout(Some(TIMEOUT))
            .context("set a timeout")?;
        // HTTP/1.0: the body ends with the connection, and nothing is chunked.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")
            .with_context(|| format!("ask {address}{path}"))?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .with_context(|| format!("read {address}{path}"))?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .with_context(|| format!("no HTTP answer from {address}{path}: {answer:?}"))?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("{address}{path}: {}", head.lines().next().unwrap_or(""));
        }
        Ok(body.to_owned())
    }
}
