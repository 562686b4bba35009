//! `paddock-workload`: programs whose effect is known to the digit, for containers under test.

#![forbid(unsafe_code)]

#[path = "workload/file.rs"]
mod file;
#[path = "workload/net.rs"]
mod net;

use std::{
    fs::{self, File},
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::process::CommandExt as _,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    libc::O_PATH,
    sched::{CloneFlags, setns, unshare},
    sys::stat::{Mode, SFlag, makedev, mknod},
    time::{ClockId, clock_gettime},
    unistd::{
        Gid, Uid, chown, chroot, dup2_stdin, getegid, geteuid, getgroups, read, setgid, setgroups,
        sethostname, setuid, unlink,
    },
};

const USAGE: &str = "alloc BYTES | spin SECONDS | setns-loop PATH NSTYPE COUNT | setns-race PATH PATH SECONDS | \
    unshare-loop FLAGS COUNT | unshare-until PATH FLAGS | spawn-between PATH PATH PROGRAM | \
    timed getppid|setns|refused|unshare|open|open-file|open-mounted|connect|packet|spawn COUNT | paced-unshare RATE SECONDS | sleep SECONDS | ids | cat PATH | \
    write PATH TEXT | stat PATH | overwrite-programs SECONDS | exit CODE | \
    talk tcp|udp ADDRESS PORT COUNT | packets BYTES COUNT | hold PATH PATH=TEXT... | hear PATH | ask ADDRESS PORT COUNT | try chroot|hostname|read|write|both|node|create|remove|mkdir|rmdir|symlink|chmod|chown|truncate|exec|memory|tree|filesystem PATH COUNT | \
    try link|rename|exchange|bind PATH:PATH COUNT | within ROOT COMMAND... | look COUNT | serve PORT UID PATH COUNT | \
    bare PROGRAM | join PID PROGRAM | arrive PATH PROGRAM ARGS... | \
    again ARGS...";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("paddock-workload: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<ExitCode> {
    match *args {
        ["alloc", bytes] => alloc(bytes.parse()?),
        ["spin", seconds] => spin(seconds.parse()?),
        ["setns-loop", path, kind, count] => setns_loop(path, flags(kind)?, count.parse()?)?,
        ["setns-race", path, mark, seconds] => setns_race(path, mark, seconds.parse()?)?,
        ["unshare-loop", kinds, count] => unshare_loop(flags(kinds)?, count.parse()?),
        ["unshare-until", end, kinds] => unshare_until(end, flags(kinds)?)?,
        ["spawn-between", start, end, program] => spawn_between(start, end, program)?,
        ["timed", call, count] => timed(call, count.parse()?)?,
        ["paced-unshare", rate, seconds] => paced_unshare(rate.parse()?, seconds.parse()?),
        ["sleep", seconds] => thread::sleep(Duration::from_secs_f64(seconds.parse()?)),
        ["ids"] => ids()?,
        ["cat", path] => print!("{}", fs::read_to_string(path)?),
        ["write", path, text] => fs::write(path, text)?,
        ["talk", protocol, address, port, count] => {
            let peer = SocketAddr::new(address.parse()?, port.parse()?);
            net::talk(protocol, peer, count.parse()?)?;
        }
        ["packets", bytes, count] => net::packets(bytes.parse()?, count.parse()?)?,
        ["hear", end] => net::hear(end)?,
        ["ask", address, port, count] => {
            let peer = SocketAddr::new(address.parse()?, port.parse()?);
            net::ask(peer, count.parse()?)?;
        }
        ["hold", end, ref files @ ..] => file::hold(end, files)?,
        ["try", what, path, count] => attempt(what, path, count.parse()?)?,
        ["within", root, ref args @ ..] => {
            chroot(root)?;
            nix::unistd::chdir("/")?;
            return run(args);
        }
        ["look", count] => look(count.parse()?)?,
        ["serve", port, uid, path, count] => {
            serve(port.parse()?, uid.parse()?, path, count.parse()?)?;
        }
        ["stat", path] => stat(path)?,
        ["overwrite-programs", seconds] => overwrite_programs(seconds.parse()?)?,
        ["bare", program] => return bare(program),
        ["join", pid, program] => return join(pid, program),
        ["arrive", path, program, ref args @ ..] => return arrive(path, program, args),
        ["again", ref args @ ..] => return again(args),
        ["exit", code] => return Ok(ExitCode::from(code.parse::<u8>()?)),
        _ => bail!("usage: {USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}

const CONTAINERS: [(&str, CloneFlags); 6] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// The least that starting a container takes: its namespaces, and a child in them.
fn bare(program: &str) -> Result<ExitCode> {
    unshare(CONTAINERS.iter().map(|(_, flag)| *flag).collect())?;
    child(program)
}

/// The least that entering one takes.
fn join(pid: &str, program: &str) -> Result<ExitCode> {
    for (name, flag) in CONTAINERS {
        setns(File::open(format!("/proc/{pid}/ns/{name}"))?, flag)?;
    }
    child(program)
}

/// As a runtime that enters a container: waits to be put into its cgroup, joins a namespace,
/// makes one, and becomes the program.
fn arrive(path: &str, program: &str, args: &[&str]) -> Result<ExitCode> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    setns(File::open(path)?, CloneFlags::empty())?;
    unshare(CloneFlags::CLONE_NEWIPC)?;
    Err(Command::new(program).args(args).exec()).context("exec")
}

/// As a runtime that starts itself anew from memory on the way.
fn again(args: &[&str]) -> Result<ExitCode> {
    // No more than the line: what follows is for the next.
    let mut byte = [0];
    while read(std::io::stdin(), &mut byte)? == 1 && byte != *b"\n" {}
    let copy = file::in_memory("/proc/self/exe")?;
    let copy = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Err(Command::new(copy).args(args).exec()).context("exec")
}

fn child(program: &str) -> Result<ExitCode> {
    let status = Command::new(program).status()?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1))?))
}

/// User, group and the other groups, as the kernel tells this process.
fn ids() -> Result<()> {
    let groups = getgroups()?;
    let all = [geteuid().as_raw(), getegid().as_raw()]
        .into_iter()
        .chain(groups.into_iter().map(Gid::as_raw));
    let all: Vec<_> = all.map(|id| id.to_string()).collect();
    println!("{}", all.join(" "));
    Ok(())
}

/// Owner, type and mode, device number; links are not followed.
fn stat(path: &str) -> Result<()> {
    let found = fs::symlink_metadata(path)?;
    let (uid, gid, mode) = (found.uid(), found.gid(), found.mode());
    println!("{uid} {gid} {mode:o} {}", found.rdev());
    Ok(())
}

/// Tries to write over the program of every process that comes and goes (CVE-2019-5736).
fn overwrite_programs(seconds: f64) -> Result<()> {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let (mut tried, mut written) = (0_u32, 0_u32);
    while Instant::now() < end {
        for process in fs::read_dir("/proc")?.flatten() {
            let name = process.file_name();
            // Its own first process is this program.
            if name == "1" || !name.to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            // By a descriptor that stays when the process has gone on to another program.
            let Ok(program) = File::options()
                .read(true)
                .custom_flags(O_PATH)
                .open(process.path().join("exe"))
            else {
                continue;
            };
            tried += 1;
            let again = format!("/proc/self/fd/{}", program.as_raw_fd());
            for _ in 0..50 {
                if let Ok(mut file) = File::options().write(true).open(&again) {
                    written += u32::from(file.write_all(b"#!/overwritten\n").is_ok());
                }
            }
        }
    }
    println!("{} {written}", tried.min(1));
    Ok(())
}

/// Touches every page, so that it is charged.
fn alloc(bytes: usize) {
    let mut memory = vec![0_u8; bytes];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    println!(
        "{}",
        memory
            .iter()
            .step_by(4096)
            .map(|byte| u64::from(*byte))
            .sum::<u64>()
    );
}

fn spin(seconds: f64) {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {}
}

/// Joins the namespace behind `path` again and again; a refusal counts as a call, too.
fn setns_loop(path: &str, kind: CloneFlags, count: u32) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {path}"))?;
    let refused = (0..count).filter(|_| setns(&file, kind).is_err()).count();
    println!("{count} calls, {refused} refused");
    Ok(())
}

/// Joins what standard input is while another thread makes it now the own UTS namespace, now the
/// one at `path`; leaves `mark` where it finds itself in that one.
fn setns_race(path: &str, mark: &str, seconds: f64) -> Result<()> {
    const OWN: &str = "/proc/thread-self/ns/uts";
    let (own, other) = (File::open(OWN)?, File::open(path)?);
    let home = fs::read_link(OWN)?;
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let swaps = thread::spawn(move || {
        while Instant::now() < end {
            for file in [&other, &own] {
                if dup2_stdin(file).is_err() {
                    return;
                }
            }
        }
    });
    let (mut calls, mut refused, mut inside) = (0_u32, 0_u32, 0_u32);
    while Instant::now() < end {
        calls += 1;
        refused += u32::from(setns(std::io::stdin(), CloneFlags::CLONE_NEWUTS).is_err());
        if fs::read_link(OWN)? != home {
            fs::write(mark, "")?;
            inside += 1;
        }
    }
    drop(swaps.join());
    println!("{calls} calls, {refused} refused, {inside} times inside");
    Ok(())
}

fn unshare_loop(kinds: CloneFlags, count: u32) {
    let refused = (0..count).filter(|_| unshare(kinds).is_err()).count();
    println!("{count} calls, {refused} refused");
}

/// Never stops calling until there is a file; it looks now and then.
fn unshare_until(end: &str, kinds: CloneFlags) -> Result<()> {
    let (mut calls, mut refused) = (0_u64, 0_u64);
    while !fs::exists(end)? {
        for _ in 0..64 {
            calls += 1;
            refused += u64::from(unshare(kinds).is_err());
        }
    }
    println!("{calls} calls, {refused} refused");
    thread::sleep(Duration::from_mins(10));
    Ok(())
}

/// Runs a program again and again, from one file's coming to another's.
fn spawn_between(start: &str, end: &str, program: &str) -> Result<()> {
    while !fs::exists(start)? {
        thread::sleep(Duration::from_millis(10));
    }
    let mut calls = 0_u64;
    while !fs::exists(end)? {
        Command::new(program).status()?;
        calls += 1;
    }
    println!("{calls} calls, 0 refused");
    thread::sleep(Duration::from_mins(10));
    Ok(())
}

/// Nanoseconds a call, the best of five rounds: noise only ever adds.
fn timed(call: &str, count: u32) -> Result<()> {
    let own = File::open("/proc/self/ns/uts")?;
    let host = File::open("/run/ns").ok();
    let program = std::env::current_exe()?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let own_port = socket.local_addr()?.port();
    let act: &dyn Fn() -> Result<()> = match call {
        "getppid" => &|| {
            std::hint::black_box(nix::unistd::getppid());
            Ok(())
        },
        "setns" => &|| Ok(setns(&own, CloneFlags::CLONE_NEWUTS)?),
        "refused" => &|| match setns(
            host.as_ref().context("no /run/ns")?,
            CloneFlags::CLONE_NEWUTS,
        ) {
            Err(Errno::EPERM) => Ok(()),
            other => bail!("{other:?}"),
        },
        "unshare" => &|| Ok(unshare(CloneFlags::CLONE_NEWUTS)?),
        "open" => &|| {
            File::open("/proc/self/status")?;
            Ok(())
        },
        "open-file" => &|| {
            File::open("/bin/sh")?;
            Ok(())
        },
        "open-mounted" => &|| {
            File::open(&program)?;
            Ok(())
        },
        "connect" => &|| Ok(socket.connect((Ipv4Addr::LOCALHOST, 9))?),
        "packet" => &|| {
            let mut byte = [0];
            socket.send_to(&byte, (Ipv4Addr::LOCALHOST, own_port))?;
            socket.recv(&mut byte)?;
            Ok(())
        },
        "spawn" => &|| {
            Command::new("/proc/self/exe")
                .args(["exit", "0"])
                .status()?;
            Ok(())
        },
        _ => bail!("usage: {USAGE}"),
    };
    let clock = clock_of(call)?;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Duration::from(clock_gettime(clock)?);
        for _ in 0..count {
            act()?;
        }
        let took = Duration::from(clock_gettime(clock)?).saturating_sub(start);
        best = best.min(took.as_secs_f64() * 1e9 / f64::from(count));
    }
    println!("{best:.1}");
    Ok(())
}

/// The clock's; on a machine with one processor the thread's own, since that reads for the agent,
/// too, what the calls told it. Of programs that it waits for always the clock's.
fn clock_of(call: &str) -> Result<ClockId> {
    let shared = thread::available_parallelism()?.get() == 1;
    Ok(if shared && call != "spawn" {
        ClockId::CLOCK_THREAD_CPUTIME_ID
    } else {
        ClockId::CLOCK_MONOTONIC
    })
}

/// Does it so often, and says how often it was refused; any other error ends it.
fn attempt(what: &str, path: &str, count: u32) -> Result<()> {
    let once = || match what {
        "chroot" => chroot(path),
        "hostname" => sethostname(path),
        "read" => opened(File::options().read(true).open(path)),
        "write" => opened(File::options().write(true).open(path)),
        "both" => opened(File::options().read(true).write(true).open(path)),
        "node" => node(path),
        "exec" => Command::new(path)
            .args(["exit", "0"])
            .status()
            .map(drop)
            .map_err(errno),
        _ => file::attempt(what, path),
    };
    let mut refused = 0;
    for _ in 0..count {
        match once() {
            Ok(()) => {}
            Err(Errno::EPERM) => refused += 1,
            Err(errno) => return Err(errno).with_context(|| format!("{what} {path}")),
        }
    }
    println!("{count} calls, {refused} refused");
    Ok(())
}

fn opened(file: std::io::Result<File>) -> nix::Result<()> {
    file.map(drop).map_err(errno)
}

fn errno(error: std::io::Error) -> Errno {
    Errno::try_from(error).unwrap_or(Errno::UnknownErrno)
}

/// Makes a character device, as `/dev/node:1:7`, and removes it.
fn node(what: &str) -> nix::Result<()> {
    let mut parts = what.splitn(3, ':');
    let path = parts.next().ok_or(Errno::EINVAL)?;
    let mut number = || parts.next()?.parse().ok();
    let (major, minor) = number().zip(number()).ok_or(Errno::EINVAL)?;
    mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(major, minor))?;
    unlink(path)
}

/// How often procfs shows where the program of another user's process begins; else it says 1.
fn look(count: u32) -> Result<()> {
    const START_CODE: usize = 26;
    let mut other = Command::new("/proc/self/exe")
        .args(["sleep", "60"])
        .uid(65534)
        .spawn()?;
    thread::sleep(Duration::from_millis(500));
    let path = format!("/proc/{}/stat", other.id());
    let mut shown = 0;
    for _ in 0..count {
        let stat = fs::read_to_string(&path)?;
        let field = stat.split(' ').nth(START_CODE - 1);
        shown += u32::from(field.context("a field is missing")? != "1");
    }
    other.kill()?;
    other.wait()?;
    println!("{count} looks, {shown} shown");
    Ok(())
}

/// As a server does: takes a port below 1024 as root, gives a file to its user and becomes it.
fn serve(port: u16, uid: u32, path: &str, count: u32) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("bind")?;
    File::create(path)?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    chown(path, Some(user), Some(group)).context("chown")?;
    setgroups(&[]).context("setgroups")?;
    setgid(group).context("setgid")?;
    setuid(user).context("setuid")?;
    for _ in 0..count {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"x")?;
    }
    fs::write(path, "served")?;
    println!("served {count} as {}", geteuid());
    Ok(())
}

/// So many calls a second, in bundles of a millisecond.
fn paced_unshare(rate: u32, seconds: u32) {
    const STEPS: u32 = 1000;
    let start = Instant::now();
    let mut calls = 0;
    for step in 1..=seconds * STEPS {
        let due = u64::from(rate) * u64::from(step) / u64::from(STEPS);
        while calls < due {
            calls += 1;
            let _ = unshare(CloneFlags::CLONE_NEWUTS);
        }
        let end = start + Duration::from_millis(u64::from(step));
        thread::sleep(end.saturating_duration_since(Instant::now()));
    }
    println!("{calls} calls, {:.2} s", start.elapsed().as_secs_f64());
}

/// `uts,ipc` or, for setns, `0`.
fn flags(names: &str) -> Result<CloneFlags> {
    names
        .split(',')
        .try_fold(CloneFlags::empty(), |flags, name| {
            Ok(flags
                | match name {
                    "0" => CloneFlags::empty(),
                    "cgroup" => CloneFlags::CLONE_NEWCGROUP,
                    "ipc" => CloneFlags::CLONE_NEWIPC,
                    "mnt" => CloneFlags::CLONE_NEWNS,
                    "net" => CloneFlags::CLONE_NEWNET,
                    "pid" => CloneFlags::CLONE_NEWPID,
                    "user" => CloneFlags::CLONE_NEWUSER,
                    "uts" => CloneFlags::CLONE_NEWUTS,
                    _ => bail!("{name} is no namespace type"),
                })
        })
}
