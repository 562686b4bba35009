//! From the hook to a line of `events --follow`: how late at a known rate, and how many a second.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};

use super::{ended, launch, quantile};
use crate::context::{Context, finish};

/// What is said once a record is there, in the JSON form.
const CALL: &str = "\"event\":\"namespace_call\"";
const TIME: &str = "\"time_ns\":";
const LOST: &str = "\"event\":\"lost\"";

/// A reader of the stream.
struct Follower {
    child: Child,
    thread: JoinHandle<(Vec<f64>, u64)>,
    lines: Arc<AtomicU64>,
}

impl Follower {
    fn start(context: &Context) -> Result<Self> {
        let since = now_ns();
        let mut child = context
            .command(&["events", "--follow", "--format", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let lines = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lines);
        let thread = thread::spawn(move || {
            let (mut late, mut lost) = (Vec::new(), 0);
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let now = now_ns();
                lost += u64::from(line.contains(LOST));
                let Some(time) = time_of(&line).filter(|time| *time >= since) else {
                    continue;
                };
                late.push(now.saturating_sub(time));
                counted.fetch_add(1, Ordering::Relaxed);
            }
            let milliseconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64() * 1e3;
            (late.into_iter().map(milliseconds).collect(), lost)
        });
        // The history comes first.
        thread::sleep(Duration::from_millis(500));
        Ok(Self {
            child,
            thread,
            lines,
        })
    }

    /// Milliseconds of each, and how often it was too slow; once nothing comes any more.
    fn end(mut self) -> Result<(Vec<f64>, u64)> {
        let mut before = u64::MAX;
        loop {
            let now = self.lines.load(Ordering::Relaxed);
            if now == before {
                break;
            }
            before = now;
            thread::sleep(Duration::from_millis(500));
        }
        self.child.kill()?;
        self.child.wait()?;
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

fn time_of(line: &str) -> Option<u64> {
    let rest = line.contains(CALL).then(|| line.split_once(TIME))??.1;
    let end = rest.find(|one: char| !one.is_ascii_digit())?;
    rest[..end].parse().ok()
}

/// Prints how late lines are at `rate` events a second, made by five containers.
pub fn latency(context: &Context, rate: u32, seconds: u32) -> Result<()> {
    const CONTAINERS: u32 = 5;
    context.start_agent(&["--detach-on-exit", "--event-rate", "0"])?;
    let follower = Follower::start(context)?;
    let names: Vec<_> = (0..CONTAINERS).map(|one| format!("paced{one}")).collect();
    let (each, seconds) = ((rate / CONTAINERS).to_string(), seconds.to_string());
    for name in &names {
        launch(context, name, &["paced-unshare", &each, &seconds])?;
    }
    for name in &names {
        let said = ended(context, name)?;
        println!("{name}: {said}");
    }
    let (mut late, lost) = follower.end()?;
    let count = late.len();
    let [half, most, worst] = [500, 990, 1000].map(|part| quantile(&mut late, part));
    println!("\nevents a second  lines    gaps    p50 ms    p99 ms    max ms");
    println!("{rate:>15}  {count:>5}  {lost:>6}  {half:>8.3}  {most:>8.3}  {worst:>8.3}");
    for name in &names {
        context.ok(&["rm", name])?;
    }
    context.stop_agent()?;
    Ok(())
}

/// Prints how many of `calls` calls, made as fast as one process can, each observer hands over,
/// alone with the caller: paddock's stream, bpftrace printing, bpftrace counting.
pub fn delivered(context: &Context, calls: u32) -> Result<()> {
    println!("\nobserver           calls  delivered      s  delivered a second");
    let row = |observer: &str, delivered: usize, took: Duration| {
        let took = took.as_secs_f64();
        let delivered = u32::try_from(delivered).unwrap_or(u32::MAX);
        let rate = f64::from(delivered) / took;
        println!("{observer:<16} {calls:>7}  {delivered:>9}  {took:>5.2}  {rate:>18.0}");
    };
    context.start_agent(&["--detach-on-exit", "--event-rate", "0"])?;
    let follower = Follower::start(context)?;
    let start = Instant::now();
    launch(
        context,
        "fast",
        &["unshare-loop", "uts", &calls.to_string()],
    )?;
    ended(context, "fast")?;
    let took = start.elapsed();
    let (late, _) = follower.end()?;
    row("paddock", late.len(), took);
    context.ok(&["rm", "fast"])?;
    context.stop_agent()?;
    for (observer, body) in [
        (
            "bpftrace printf",
            "printf(\"%d %d %s %d\\n\", pid, uid, comm, args->unshare_flags)",
        ),
        ("bpftrace count", "@ = count()"),
    ] {
        let Some((delivered, took)) = bpftrace(context, body, calls)? else {
            println!("{observer:<16} there is no bpftrace here");
            continue;
        };
        row(observer, delivered, took);
    }
    Ok(())
}

fn bpftrace(context: &Context, body: &str, calls: u32) -> Result<Option<(usize, Duration)>> {
    let path = context.state.join("bpftrace.out");
    let program = format!("tracepoint:syscalls:sys_enter_unshare {{ {body} }}");
    // It looks for tracefs where many hosts have none.
    let script = "mount -t tracefs tracefs /sys/kernel/tracing; exec bpftrace -e \"$0\"";
    if finish(Command::new("sh").args(["-c", "command -v bpftrace"]))?.code != Some(0) {
        return Ok(None);
    }
    let mut child = Command::new("unshare")
        .args(["-m", "sh", "-c", script, &program])
        .stdin(Stdio::null())
        .stdout(fs::File::create(&path)?)
        .stderr(Stdio::null())
        .spawn()?;
    // It compiles and attaches.
    thread::sleep(Duration::from_secs(5));
    let start = Instant::now();
    let status = Command::new(&context.workload)
        .args(["unshare-loop", "uts", &calls.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    let took = start.elapsed();
    anyhow::ensure!(status.success(), "{status}");
    thread::sleep(Duration::from_secs(2));
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
    child.wait()?;
    let text = fs::read_to_string(&path)?;
    fs::remove_file(&path)?;
    let counted = text.lines().find_map(|line| line.strip_prefix("@: "));
    let delivered = match counted {
        Some(count) => count.trim().parse()?,
        None => text
            .lines()
            .filter(|line| line.contains("paddock-worklo"))
            .count(),
    };
    Ok(Some((delivered, took)))
}
