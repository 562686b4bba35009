//! `paddock-bench-events COUNT`: how long `paddock events` takes to find what is asked for among so
//! many stored events, from the command's start to its end.
//!
//! Started by `cargo xtask bench events`. The store is written by its own code, in the data
//! directory of an agent that is then started on it, and goes with it.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use paddock_agent::event::{Actor, Event, Kind, NamespaceTarget, Verdict};
use paddock_tests::context::Context;

const CONTAINERS: u64 = 1000;
/// All are of so much time, the last one of now.
const SPAN: Duration = Duration::from_hours(6 * 24);
const ROUNDS: u64 = 100;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("paddock-bench-events: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let count: u64 = match (args.next(), args.next()) {
        (Some(count), None) => count.parse()?,
        _ => bail!("usage: paddock-bench-events COUNT"),
    };
    ensure!(count >= 100_000, "fewer than 100,000 say nothing");
    let context = Context::new()?;
    let done = measure(&context, count);
    let closed = context.close();
    done.and(closed)
}

fn measure(context: &Context, count: u64) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let began = now.saturating_sub(SPAN);
    let step = u64::try_from(SPAN.as_nanos())? / count;
    let first = u64::try_from(began.as_nanos())?;
    let start = Instant::now();
    let events = (0..count).map(|number| event(number, first + number * step));
    paddock_agent::fill(&context.data, &context.state, events).map_err(|line| anyhow!(line))?;
    let took = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = count as f64 / took;
    println!("{count} events stored in {took:.1} s, {rate:.0} a second");
    let agent = context.start_agent(&["--detach-on-exit", "--events-max-size", "64g"])?;
    println!(
        "{:.2} GiB on disk; agent ready, {:.1} MiB resident",
        gib(&context.data.join("events"))?,
        resident(agent)?
    );
    println!(
        "{:<44} {:>8} {:>9} {:>9}",
        "events", "lines", "p50 ms", "p99 ms"
    );
    let ago = |part: u64| (first + step * (count - count / part)) / 1_000_000_000;
    for (title, part) in [
        ("--since 1/1000 --container C", 1000),
        ("--since 1/100 --container C", 100),
        ("--since 1/10 --container C", 10),
    ] {
        let since = ago(part).to_string();
        row(context, title, ROUNDS, |round| {
            vec![
                "--since".to_owned(),
                since.clone(),
                "--container".to_owned(),
                name(round * 7 % CONTAINERS),
            ]
        })?;
    }
    let words =
        |words: &[&str]| -> Vec<String> { words.iter().map(|&word| word.to_owned()).collect() };
    row(context, "--container C", ROUNDS, |round| {
        words(&["--container", &name(round * 7 % CONTAINERS)])
    })?;
    row(context, "--container C --verdict escape", ROUNDS, |round| {
        words(&["--container", &name(round), "--verdict", "escape"])
    })?;
    row(context, "--kind oom_kill (there is none)", 20, |_| {
        words(&["--kind", "oom_kill"])
    })?;
    row(context, "--verdict escape --all", 20, |_| {
        words(&["--verdict", "escape", "--all"])
    })?;
    row(
        context,
        "--kind namespace_call --verdict notable",
        10,
        |_| words(&["--kind", "namespace_call", "--verdict", "notable"]),
    )?;
    row(context, "(what is recent)", 20, |_| Vec::new())?;
    row(context, "-n 100", 20, |_| words(&["-n", "100"]))?;
    let start = Instant::now();
    let output = context
        .command(&["events", "--all", "--format", "json"])
        .stdout(std::process::Stdio::null())
        .status()?;
    ensure!(output.success());
    println!(
        "--all: {:.1} s, then {:.1} MiB resident",
        start.elapsed().as_secs_f64(),
        resident(agent)?
    );
    Ok(())
}

fn row(
    context: &Context,
    title: &str,
    rounds: u64,
    args: impl Fn(u64) -> Vec<String>,
) -> Result<()> {
    let mut times = Vec::new();
    let mut lines = 0;
    for round in 0..rounds {
        let mut all = vec![
            "events".to_owned(),
            "--format".to_owned(),
            "json".to_owned(),
        ];
        all.extend(args(round));
        let start = Instant::now();
        let text = context.ok(&all)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        lines = text.lines().count();
    }
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{title:<44} {lines:>8} {:>9.1} {:>9.1}", at(50), at(99));
    Ok(())
}

fn name(number: u64) -> String {
    format!("container-{number}")
}

/// What a busy host tells: execs and exits, some namespaces, a few escapes.
fn event(number: u64, time_ns: u64) -> Event {
    let actor = Actor {
        pid: i32::try_from(number % 4_000_000).unwrap_or(1),
        tid: i32::try_from(number % 4_000_000).unwrap_or(1),
        uid: 1000,
        comm: "worker".to_owned(),
        inner_pid: Some(17),
        parent_pid: Some(4711),
        inner_uid: Some(0),
        exe: Some("worker-process".to_owned()),
    };
    // Every container has some at all times, in no order.
    let container = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let kind = match number % 100 {
        0..48 => Kind::Exec {
            actor,
            filename: format!("/usr/bin/tool-{}", number % 50),
        },
        48..96 => Kind::Exit {
            actor,
            exit_code: 0,
            signal: None,
        },
        rest => Kind::NamespaceCall {
            syscall: "setns".to_owned(),
            actor,
            outcome: "allowed".to_owned(),
            errno: None,
            flags: 0,
            fd: Some(3),
            targets: vec![NamespaceTarget {
                namespace: "net".to_owned(),
                target: "own".to_owned(),
                inode: Some(4_026_531_840),
            }],
            verdict: match (rest, number % 100_000) {
                (96, 96) => Verdict::Escape,
                (97, _) => Verdict::Notable,
                _ => Verdict::Benign,
            },
        },
    };
    Event {
        schema_version: 1,
        id: number + 1,
        time_ns,
        container: Some(name(container % CONTAINERS)),
        container_id: Some(format!("{:064x}", container % CONTAINERS + 0xabcd_0000)),
        kind,
    }
}

fn gib(directory: &Path) -> Result<f64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        bytes += entry?.metadata()?.len();
    }
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    Ok(bytes as f64 / f64::from(1 << 30))
}

/// In MiB.
fn resident(pid: i32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let text = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(text.trim().parse::<f64>()? / 1024.0)
}
