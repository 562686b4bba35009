//! What containers under test run: small programs whose effect is known beforehand.
//!
//! Static, so it runs in any rootfs. A loop tries as often as it was told, whatever the
//! kernel answers, and prints how many calls succeeded.
#![forbid(unsafe_code)]

use std::{
    env, fs,
    hint::black_box,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::getppid,
};
use paddock_cgroups::parse;

const USAGE: &str = "usage: paddock-workload
  alloc BYTES [SECONDS]          touch memory, hold it
  spin SECONDS                   use one CPU
  setns-loop PATH TYPE COUNT     join a namespace; TYPE as below, or any
  unshare-loop TYPES COUNT       TYPES: cgroup,ipc,mnt,net,pid,time,user,uts
  getppid-loop COUNT             print nanoseconds per call
  exit CODE
  sleep [SECONDS]                without end by default";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match work(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("paddock-workload: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn work(args: &[&str]) -> Result<ExitCode> {
    match args {
        ["alloc", bytes] => alloc(bytes, Duration::ZERO)?,
        ["alloc", bytes, time] => alloc(bytes, seconds(time)?)?,
        ["spin", time] => spin(seconds(time)?),
        ["setns-loop", path, kind, count] => setns_loop(path, kind, number(count)?)?,
        ["unshare-loop", kinds, count] => unshare_loop(kinds, number(count)?)?,
        ["getppid-loop", count] => getppid_loop(number(count)?),
        ["exit", code] => {
            let code: u8 = code.parse().with_context(|| format!("exit code {code}"))?;
            return Ok(ExitCode::from(code));
        }
        ["sleep"] => loop {
            sleep(Duration::from_secs(3600));
        },
        ["sleep", time] => sleep(seconds(time)?),
        _ => bail!("{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn seconds(text: &str) -> Result<Duration> {
    let value = text.parse().with_context(|| format!("seconds {text}"))?;
    Duration::try_from_secs_f64(value).with_context(|| format!("seconds {text}"))
}

fn number(text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("count {text}"))
}

/// Page by page, with content, so that every page is the program's own.
fn alloc(bytes: &str, hold: Duration) -> Result<()> {
    let size = usize::try_from(parse::size(bytes)?).context("bytes")?;
    let mut memory: Vec<u8> = Vec::with_capacity(size);
    while memory.len() < size {
        memory.extend_from_slice(&[0xa5; 4096][..4096.min(size - memory.len())]);
    }
    println!("allocated {}", black_box(&memory).len());
    sleep(hold);
    Ok(())
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        for step in 0..10_000_u32 {
            black_box(step);
        }
    }
}

/// One type, several with commas, or `any` for setns to find out.
fn namespaces(text: &str) -> Result<CloneFlags> {
    // nix has no name for CLONE_NEWTIME.
    const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);
    if text == "any" {
        return Ok(CloneFlags::empty());
    }
    text.split(',')
        .try_fold(CloneFlags::empty(), |flags, name| {
            Ok(flags
                | match name {
                    "cgroup" => CloneFlags::CLONE_NEWCGROUP,
                    "ipc" => CloneFlags::CLONE_NEWIPC,
                    "mnt" => CloneFlags::CLONE_NEWNS,
                    "net" => CloneFlags::CLONE_NEWNET,
                    "pid" => CloneFlags::CLONE_NEWPID,
                    "time" => NEWTIME,
                    "user" => CloneFlags::CLONE_NEWUSER,
                    "uts" => CloneFlags::CLONE_NEWUTS,
                    _ => bail!("namespace type {name:?}"),
                })
        })
}

fn setns_loop(path: &str, kind: &str, count: u64) -> Result<()> {
    let kind = namespaces(kind)?;
    let file = fs::File::open(path).with_context(|| format!("open {path}"))?;
    tell(count, || setns(&file, kind));
    Ok(())
}

fn unshare_loop(kinds: &str, count: u64) -> Result<()> {
    let kinds = namespaces(kinds)?;
    tell(count, || unshare(kinds));
    Ok(())
}

fn tell(count: u64, mut call: impl FnMut() -> nix::Result<()>) {
    let (mut succeeded, mut last) = (0_u64, None);
    for _ in 0..count {
        match call() {
            Ok(()) => succeeded += 1,
            Err(error) => last = Some(error),
        }
    }
    let failed = count - succeeded;
    let why = last.map_or_else(String::new, |error| format!(" ({error})"));
    println!("succeeded {succeeded} failed {failed}{why}");
}

fn getppid_loop(count: u64) {
    let start = Instant::now();
    for _ in 0..count {
        black_box(getppid());
    }
    let nanos = start.elapsed().as_nanos();
    // One decimal place in whole numbers: the guest's clock may repeat exactly.
    let tenths = nanos * 10 / u128::from(count.max(1));
    println!("{}.{}", tenths / 10, tenths % 10);
}
