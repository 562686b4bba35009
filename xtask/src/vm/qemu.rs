//! One boot: QEMU without hardware virtualisation, so that every machine does the same.
//!
//! The first serial port is the kernel's log, into a file; the second is the guest's output
//! and streams. The guest's exit code comes as a marker line on it. A guest that does not
//! end in time is killed; then, and whenever it fails, the log's tail is shown.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::vm::kernel::Kernel;

/// As tests/src/bin/guest_init.rs writes it.
const MARKER: &str = "@paddock-guest-exit ";
const TAIL_LINES: usize = 60;
/// Of the security modules Debian's own default and its order, with bpf added and those left out
/// that need a policy nobody loads here. QEMU translates a program anew wherever it lies: always
/// at the same addresses, a container starts in half the time.
const KERNEL_LINE: &str =
    "console=ttyS0 panic=-1 norandmaps lsm=landlock,lockdown,yama,apparmor,bpf";
/// What `nice` ends with where there is no such program.
const NOT_FOUND: i32 = 127;
/// Without "fast" string instructions, which are emulated byte by byte: the kernel copies and
/// clears by words then, which took a third off one scenario's processor time.
const CPU: &str = "max,-erms";

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) timeout: Duration,
    pub(crate) memory_mib: u32,
    /// One guest nanosecond is one instruction: costs repeat digit by digit.
    pub(crate) deterministic: bool,
    /// The caller's terminal is the guest's.
    pub(crate) interactive: bool,
    /// The output is for the caller alone.
    pub(crate) quiet: bool,
    /// Before each line shown, where guests run side by side.
    pub(crate) label: String,
}

/// What became of a boot.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// `None`: it never said; the reason is in `problem`.
    pub(crate) code: Option<i32>,
    pub(crate) problem: Option<String>,
    pub(crate) output: String,
    pub(crate) log: PathBuf,
}

pub(crate) fn boot(
    machine: &Machine,
    kernel: &Kernel,
    initramfs: &Path,
    log: &Path,
) -> Result<Ended> {
    let mut command = command(machine, kernel, initramfs, log);
    let mut child = command.spawn().context("run nice")?;
    if machine.interactive {
        let status = child.wait().context("wait for QEMU")?;
        let problem = (!status.success()).then(|| format!("QEMU: {status}"));
        return Ok(Ended {
            code: problem.is_none().then_some(0),
            problem,
            output: String::new(),
            log: log.to_owned(),
        });
    }
    let mut ended = follow(&mut child, machine, log);
    // Either it has powered off by now or it never will.
    let deadline = Instant::now() + Duration::from_secs(5);
    while ended.code.is_some() && Instant::now() < deadline {
        if child.try_wait().context("wait for QEMU")?.is_some() {
            return Ok(ended);
        }
        thread::sleep(Duration::from_millis(10));
    }
    drop(child.kill());
    let status = child.wait().context("wait for QEMU")?;
    if status.code() == Some(NOT_FOUND) {
        bail!("no qemu-system-x86_64; install it by: apt-get install qemu-system-x86");
    }
    if ended.code.is_none() && ended.problem.is_none() {
        ended.problem = Some(format!("the guest ended without a result (QEMU: {status})"));
    }
    Ok(ended)
}

fn command(machine: &Machine, kernel: &Kernel, initramfs: &Path, log: &Path) -> Command {
    // What a guest computes is in no hurry; whoever waits for something else is.
    let mut command = Command::new("nice");
    command.args(["-n", "19", "qemu-system-x86_64"]);
    if machine.deterministic {
        command.args(["-accel", "tcg,thread=single", "-smp", "1"]);
        command.args(["-icount", "shift=0,sleep=off"]);
    } else {
        // Two CPUs on one thread: emulated side by side, one may run into the int3 with which
        // the other patches the kernel's text after the patch is done, and the kernel panics
        // ("Oops: int3"). Guests run two at a time, so nothing is lost.
        command.args(["-accel", "tcg,thread=single", "-smp", "2"]);
    }
    command
        .args(["-cpu", CPU, "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-m", &format!("{}M", machine.memory_mib)])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .args([
            "-serial",
            if machine.interactive {
                "mon:stdio"
            } else {
                "stdio"
            },
        ])
        .arg("-kernel")
        .arg(&kernel.vmlinuz)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", KERNEL_LINE]);
    if !machine.interactive {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
    }
    command
}

/// Streams the guest's output until the marker, the end or the timeout.
fn follow(child: &mut Child, machine: &Machine, log: &Path) -> Ended {
    let timeout = machine.timeout;
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
    }
    let deadline = Instant::now() + timeout;
    let mut ended = Ended {
        code: None,
        problem: None,
        output: String::new(),
        log: log.to_owned(),
    };
    // The marker's own line starts with a newline, so that it stands alone; that one is not output.
    let mut blank = false;
    loop {
        let line = match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => return ended,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                ended.problem = Some(format!("no result after {} s", timeout.as_secs()));
                return ended;
            }
        };
        if let Some(code) = line.strip_prefix(MARKER) {
            ended.code = code.trim().parse().ok();
            return ended;
        }
        let was_blank = std::mem::replace(&mut blank, line.is_empty());
        for text in was_blank
            .then_some("")
            .into_iter()
            .chain((!blank).then_some(line.as_str()))
        {
            ended.output.push_str(text);
            ended.output.push('\n');
            if !machine.quiet {
                // Nobody listening is no reason to stop the guest.
                let _ = writeln!(io::stdout(), "{}{text}", machine.label);
            }
        }
    }
}

/// The end of the kernel's log, for a person.
pub(crate) fn log_tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

impl Ended {
    /// The guest's exit code; a guest without one is an error with the kernel's log.
    pub(crate) fn code(&self) -> Result<i32> {
        match self.code {
            Some(code) => Ok(code),
            None => bail!(
                "{}\n--- end of the guest's kernel log ({}) ---\n{}",
                self.problem.as_deref().unwrap_or("no exit code"),
                self.log.display(),
                log_tail(&self.log)
            ),
        }
    }
}
