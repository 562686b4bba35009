//! One plugin, run once: parameters by environment, configuration on stdin, result on stdout.
//!
//! Of the caller's environment nothing reaches it. Its configuration is a memfd, so that a
//! plugin that does not read cannot stall anybody. One that takes too long or prints too much
//! is killed with its process group. Linux 5.3, for a process as a descriptor.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};
use serde_json::{Map, Value};

use crate::{Error, error::line};

/// What portmap and others find iptables by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A result has a few hundred bytes.
const LARGEST: usize = 1 << 20;

/// Where plugins are and how long each may take.
#[derive(Clone, Debug)]
pub struct Plugins {
    /// Absolute; the first that has a plugin counts.
    pub dirs: Vec<PathBuf>,
    pub timeout: Duration,
}

impl Plugins {
    /// Runs `name` with `environment`; what it printed, if it succeeded.
    pub(crate) fn run(
        &self,
        name: &str,
        command: &'static str,
        environment: &[(&str, String)],
        config: &Map<String, Value>,
    ) -> Result<Vec<u8>, Error> {
        let path = self.locate(name)?;
        let stdin = stdin(config).map_err(Error::io("write the configuration for", &path))?;
        let mut child = Command::new(&path)
            .env_clear()
            .env("PATH", PATH)
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", self.joined())
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .current_dir("/")
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::io("run", &path))?;
        let outcome = collect(&mut child, Instant::now() + self.timeout);
        if !matches!(outcome, Ok(Outcome::Ended { .. })) {
            kill_group(&child);
        }
        let status = child.wait().map_err(Error::io("wait for", &path))?;
        let broken = |reason: String| Error::Broken {
            plugin: name.to_owned(),
            command,
            reason,
        };
        match outcome.map_err(Error::io("hear", &path))? {
            Outcome::Ended { stdout, .. } if status.success() => Ok(stdout),
            Outcome::Ended { stdout, stderr } => {
                let words = if stderr.is_empty() { &stdout } else { &stderr };
                let words = line(&String::from_utf8_lossy(words));
                let Some((code, message)) = refusal(&stdout) else {
                    return Err(broken(format!("{status}: {words}")));
                };
                Err(Error::Plugin {
                    plugin: name.to_owned(),
                    command,
                    code,
                    message,
                })
            }
            Outcome::TooMuch => Err(broken(format!("printed more than {LARGEST} bytes"))),
            Outcome::TooLong => Err(broken(format!("not done within {:?}", self.timeout))),
        }
    }

    pub(crate) fn locate(&self, name: &str) -> Result<PathBuf, Error> {
        let runs = |path: &PathBuf| {
            path.metadata()
                .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
        };
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        let dirs = self.dirs.iter().filter(|dir| plain && dir.is_absolute());
        dirs.map(|dir| dir.join(name))
            .find(runs)
            .ok_or_else(|| Error::NoPlugin {
                name: line(name),
                dirs: self.joined(),
            })
    }

    fn joined(&self) -> String {
        let dirs: Vec<_> = self.dirs.iter().map(|dir| dir.to_string_lossy()).collect();
        dirs.join(":")
    }
}

enum Outcome {
    Ended { stdout: Vec<u8>, stderr: Vec<u8> },
    TooMuch,
    TooLong,
}

/// Until the plugin itself has ended: what it left running may hold its pipes for ever.
fn collect(child: &mut Child, deadline: Instant) -> io::Result<Outcome> {
    let gone = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut out = Pipe::new(child.stdout.take().map(OwnedFd::from))?;
    let mut err = Pipe::new(child.stderr.take().map(OwnedFd::from))?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Outcome::TooLong);
        }
        let mut fds = vec![PollFd::new(&gone, PollFlags::IN)];
        for pipe in [&out, &err] {
            fds.extend(
                pipe.file
                    .iter()
                    .map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)),
            );
        }
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let ended = !fds.first().is_none_or(|fd| fd.revents().is_empty());
        out.drain()?;
        err.drain()?;
        if out.text.len().max(err.text.len()) > LARGEST {
            return Ok(Outcome::TooMuch);
        }
        if ended {
            return Ok(Outcome::Ended {
                stdout: out.text,
                stderr: err.text,
            });
        }
    }
}

/// One end of a pipe, read without waiting.
struct Pipe {
    /// None after its end.
    file: Option<File>,
    text: Vec<u8>,
}

impl Pipe {
    fn new(fd: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(fd) = &fd {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        Ok(Self {
            file: fd.map(File::from),
            text: Vec::new(),
        })
    }

    fn drain(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let room = (LARGEST + 1).saturating_sub(self.text.len());
        match file.take(room as u64).read_to_end(&mut self.text) {
            Ok(_) if self.text.len() <= LARGEST => self.file = None,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn stdin(config: &Map<String, Value>) -> io::Result<File> {
    let mut file = File::from(memfd_create("cni", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(config)?)?;
    file.rewind()?;
    Ok(file)
}

fn kill_group(child: &Child) {
    // Not waited for yet, so the id is still its own.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

/// Code and message of the error that the specification has a plugin print.
fn refusal(stdout: &[u8]) -> Option<(u64, String)> {
    let error: Value = serde_json::from_slice(stdout).ok()?;
    let code = error.get("code")?.as_u64()?;
    let text = |key| error.get(key).and_then(Value::as_str).unwrap_or("");
    let message = match text("details") {
        "" => text("msg").to_owned(),
        details => format!("{}: {details}", text("msg")),
    };
    Some((code, line(&message)))
}
