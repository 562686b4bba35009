//! PID 1 of a test guest: mounts what a systemd host mounts, runs one command, powers off.
//!
//! The initramfs becomes a mount below the kernel's own root, since `pivot_root(2)` refuses
//! that one; containers need it. Output goes to the second serial port, so the kernel's log
//! on the first never mixes with it. The harness learns the result by [`MARKER`]; a guest
//! that fails before the command says why on the same port and reports 125.

#![forbid(unsafe_code)]

use std::{
    fs,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        termios::{OutputFlags, SetArg, tcdrain, tcgetattr, tcsetattr},
        wait::{WaitStatus, wait},
    },
    unistd::{Pid, chdir, chroot, sethostname},
};

/// A line `MARKER N`: the command's exit code.
const MARKER: &str = "@paddock-guest-exit";
const CONSOLE: &str = "/dev/ttyS1";
/// Put there by the harness; a shell script.
const COMMAND: &str = "/etc/paddock-guest/command";
/// Put there where systemd is to be the first process.
const SYSTEMD: &str = "/etc/paddock-guest/systemd";
/// Module files, in the order they depend on each other.
const MODULES: &str = "/etc/paddock-guest/modules";

/// Source, target, type, options; the flags are those of a systemd host.
const MOUNTS: &[(&str, &str, &str, &str)] = &[
    ("proc", "/proc", "proc", ""),
    ("sysfs", "/sys", "sysfs", ""),
    ("devtmpfs", "/dev", "devtmpfs", "mode=755"),
    (
        "devpts",
        "/dev/pts",
        "devpts",
        "gid=5,mode=620,ptmxmode=000",
    ),
    ("tmpfs", "/dev/shm", "tmpfs", "mode=1777"),
    ("mqueue", "/dev/mqueue", "mqueue", ""),
    ("tmpfs", "/run", "tmpfs", "mode=755"),
    ("tmpfs", "/tmp", "tmpfs", "mode=1777"),
    (
        "cgroup2",
        "/sys/fs/cgroup",
        "cgroup2",
        "nsdelegate,memory_recursiveprot",
    ),
    ("bpf", "/sys/fs/bpf", "bpf", "mode=700"),
    ("securityfs", "/sys/kernel/security", "securityfs", ""),
    ("debugfs", "/sys/kernel/debug", "debugfs", ""),
    ("tracefs", "/sys/kernel/tracing", "tracefs", ""),
];

fn main() {
    if std::process::id() != 1 {
        eprintln!("paddock-guest-init: is the first process of a test guest, nothing else");
        return;
    }
    if Path::new(SYSTEMD).exists() {
        let failed = become_systemd();
        say(&format!("paddock-guest-init: {failed:#}"));
        return;
    }
    let code = match prepare().and_then(|()| command()) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("paddock-guest-init: {error:#}"));
            125
        }
    };
    say(&format!("\n{MARKER} {code}"));
    if let Ok(console) = open_console() {
        // A lost tail would only look like a failure.
        let _ = tcdrain(&console);
    }
    nix::unistd::sync();
    let never = reboot(RebootMode::RB_POWER_OFF);
    say(&format!("paddock-guest-init: power off: {never:?}"));
}

fn prepare() -> Result<()> {
    leave_rootfs().context("leave the kernel's root")?;
    for (source, target, kind, options) in MOUNTS {
        fs::create_dir_all(target).with_context(|| format!("create {target}"))?;
        let flags = match *kind {
            "tmpfs" | "devtmpfs" | "devpts" => MsFlags::MS_NOSUID,
            _ => MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        };
        mount(Some(*source), *target, Some(*kind), flags, Some(*options))
            .with_context(|| format!("mount {kind} on {target}"))?;
    }
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_SHARED | MsFlags::MS_REC,
        None::<&str>,
    )
    .context("share the mounts")?;
    let console = open_console()?;
    let mut mode = tcgetattr(&console).context("terminal mode")?;
    mode.output_flags.remove(OutputFlags::OPOST);
    tcsetattr(&console, SetArg::TCSANOW, &mode).context("terminal mode")?;
    sethostname("paddock-guest").context("hostname")?;
    insert_modules()?;
    let up = Command::new("/bin/busybox")
        .args(["ip", "link", "set", "lo", "up"])
        .spawn()
        .context("run busybox ip")?;
    match wait_for(&up)? {
        0 => Ok(()),
        code => bail!("ip link set lo up: exit code {code}"),
    }
}

/// Returns only what went wrong: everything but the modules is systemd's to prepare.
fn become_systemd() -> anyhow::Error {
    let prepared = leave_rootfs().context("leave the kernel's root");
    match prepared.and_then(|()| insert_modules()) {
        Ok(()) => Command::new("/usr/lib/systemd/systemd").exec().into(),
        Err(error) => error,
    }
}

fn insert_modules() -> Result<()> {
    for line in fs::read_to_string(MODULES).unwrap_or_default().lines() {
        let file = fs::File::open(line).with_context(|| format!("open {line}"))?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("insert {line}"))?;
    }
    Ok(())
}

/// Binds the root below itself and moves that on top of it.
fn leave_rootfs() -> Result<()> {
    let none = None::<&str>;
    fs::create_dir_all("/newroot").context("create /newroot")?;
    mount(Some("/"), "/newroot", none, MsFlags::MS_BIND, none).context("bind")?;
    chdir("/newroot").context("chdir")?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).context("move")?;
    chroot(".").context("chroot")?;
    chdir("/").context("chdir")?;
    fs::remove_dir("/newroot").context("remove /newroot")
}

fn command() -> Result<i32> {
    let interactive = !Path::new(COMMAND).exists();
    let mut shell = if interactive {
        // A session with the serial port as its terminal, so that job control works.
        let mut command = Command::new("/bin/busybox");
        command.args(["setsid", "-c", "sh", "-l"]);
        let console = open_console()?;
        let mut mode = tcgetattr(&console).context("terminal mode")?;
        mode.output_flags.insert(OutputFlags::OPOST);
        tcsetattr(&console, SetArg::TCSANOW, &mode).context("terminal mode")?;
        command.stdin(open_console()?);
        command
    } else {
        let mut command = Command::new("/bin/sh");
        command.arg(COMMAND).stdin(Stdio::null()).process_group(0);
        command
    };
    let child = shell
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("TERM", "vt100")
        .stdout(open_console()?)
        .stderr(open_console()?)
        .spawn()
        .context("run /bin/sh")?;
    wait_for(&child)
}

/// Reaps whatever ends until the child does.
fn wait_for(child: &Child) -> Result<i32> {
    let child = Pid::from_raw(i32::try_from(child.id()).context("child's id")?);
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return Ok(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                return Ok(128 + signal as i32);
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait"),
        }
    }
}

fn open_console() -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).open(CONSOLE)
}

/// Also before /dev is there, and to the kernel's console then.
fn say(line: &str) {
    let told = open_console().and_then(|mut console| writeln!(console, "{line}"));
    if told.is_err() {
        eprintln!("{line}");
    }
}
