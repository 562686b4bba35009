//! Run a program with a time limit, its output collected as it comes.

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    libc,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long the output may stay open after its program's end: whoever holds it longer would
/// hang `$(paddock run …)` in a shell.
const DRAIN: Duration = Duration::from_secs(2);

/// A finished program.
#[derive(Clone, Debug)]
pub struct Output {
    /// As a shell has it: 128 + signal when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Output {
    /// Fails with both outputs unless the code is as expected.
    pub fn expect(self, code: i32) -> Result<Self> {
        if self.code == code {
            return Ok(self);
        }
        bail!(
            "exit code {} instead of {code}\nstdout: {}\nstderr: {}",
            self.code,
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )
    }

    pub fn ok(self) -> Result<Self> {
        self.expect(0)
    }
}

/// A program that runs; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    line: String,
    start: Instant,
    stdout: Pipe,
    stderr: Pipe,
}

impl Running {
    /// Starts it with three pipes.
    pub fn start(command: &mut Command) -> Result<Self> {
        let line = describe(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {line}"))?;
        let stdout = Pipe::read(child.stdout.take());
        let stderr = Pipe::read(child.stderr.take());
        Ok(Self {
            child,
            line,
            start: Instant::now(),
            stdout,
            stderr,
        })
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// Takes the pipe to its stdin; dropping it is end of file.
    pub fn stdin(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().context("its stdin was taken")
    }

    pub fn write_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("its stdin was taken")?;
        writeln!(stdin, "{line}").with_context(|| format!("write to {}", self.line))
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()), signal)
            .with_context(|| format!("{signal} to {}", self.line))
    }

    /// What it has written so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self
            .child
            .try_wait()
            .with_context(|| format!("wait for {}", self.line))?
            .is_some())
    }

    /// Waits for its end; past the time limit it is killed, and that is an error.
    pub fn wait(mut self, timeout: Duration) -> Result<Output> {
        use std::os::unix::process::ExitStatusExt as _;
        drop(self.child.stdin.take());
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_micros(500);
        let status = loop {
            let status = self.child.try_wait();
            if let Some(status) = status.with_context(|| format!("wait for {}", self.line))? {
                break status;
            }
            if Instant::now() > deadline {
                bail!(
                    "{}: no end after {} s\nstdout: {}\nstderr: {}",
                    self.line,
                    timeout.as_secs_f32(),
                    self.stdout().trim_end(),
                    self.stderr().trim_end()
                );
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        let took = self.start.elapsed();
        for pipe in [&self.stdout, &self.stderr] {
            if pipe.closed.recv_timeout(DRAIN) == Err(mpsc::RecvTimeoutError::Timeout) {
                bail!("{}: ended, but its output is still open", self.line);
            }
        }
        Ok(Output {
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: self.stdout(),
            stderr: self.stderr(),
            took,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has been waited for already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs it to its end, with nothing on stdin.
pub fn run(command: &mut Command, timeout: Duration) -> Result<Output> {
    Running::start(command)?.wait(timeout)
}

fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

#[derive(Debug)]
struct Pipe {
    content: Arc<Mutex<Vec<u8>>>,
    /// Disconnected, or a message, at end of file.
    closed: mpsc::Receiver<()>,
}

impl Pipe {
    fn read(source: Option<impl Read + Send + 'static>) -> Self {
        let content = Arc::new(Mutex::new(Vec::new()));
        let (sender, closed) = mpsc::channel();
        if let Some(mut source) = source {
            let content = Arc::clone(&content);
            thread::spawn(move || {
                let mut buffer = [0; 8192];
                loop {
                    match source.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(count) => content
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .extend_from_slice(&buffer[..count]),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(_) => break,
                    }
                }
                drop(sender);
            });
        }
        Self { content, closed }
    }

    fn text(&self) -> String {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&content).into_owned()
    }
}

/// CVE-2019-5736: what `pid` runs cannot be opened for writing, by no name and by nobody. That
/// holds when nothing runs it any more: its file system is read-only, or it is sealed.
pub fn program_is_out_of_reach(pid: &str) -> Result<()> {
    let exe = format!("/proc/{pid}/exe");
    let write = |path: &str| {
        let opened = File::options().write(true).open(path);
        opened.err().and_then(|error| error.raw_os_error())
    };
    let errno = write(&exe);
    ensure!(
        errno == Some(libc::EROFS) || errno == Some(libc::ETXTBSY),
        "opened for writing: {errno:?}"
    );
    let sealed = fs::read_link(&exe)?
        .to_string_lossy()
        .starts_with("/memfd:");
    ensure!(sealed || errno == Some(libc::EROFS), "{exe} is only busy");
    Ok(())
}
