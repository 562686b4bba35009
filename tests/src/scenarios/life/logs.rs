//! Logs: rotation, following, windows of time. Witness: numbers that the workload counts, and
//! the files' sizes.

use std::{
    fs,
    io::Read as _,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::scratch::Scratch;
use crate::{
    context::{Context, eventually},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("life::log_rotates", log_rotates),
    Scenario::new("life::log_windows", log_windows),
    // Alone, since who cleans up after a monitor takes the empty parents of its cgroup too.
    Scenario::new("life::log_of_a_dying_monitor", log_of_a_dying_monitor).alone(),
];

/// Numbered lines; some megabytes of log.
const LINES: u32 = 20_000;

/// Three files are kept, and a follower that is stopped for a while still sees each line once.
fn log_rotates(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let scratch = Scratch::new(context)?;
    let script = format!("echo 0; while [ ! -e /out/go ]; do sleep 0.05; done; seq 1 {LINES}");
    let id = context.ok(&[
        "run",
        "-d",
        "--name",
        "counter",
        "--log-opt",
        "max-size=64k",
        "--log-opt",
        "max-file=3",
        "-v",
        &scratch.volume(),
        "host",
        "sh",
        "-c",
        &script,
    ])?;
    let mut follower = context
        .command(&["logs", "-f", "counter"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = Pid::from_raw(follower.id().cast_signed());
    let mut stdout = follower.stdout.take().context("no stdout")?;
    let mut text = vec![0; 2];
    stdout.read_exact(&mut text)?;
    let reader = thread::spawn(move || stdout.read_to_end(&mut text).map(|_| text));
    scratch.write("go")?;
    for _ in 0..5 {
        kill(pid, Signal::SIGSTOP)?;
        thread::sleep(Duration::from_millis(200));
        kill(pid, Signal::SIGCONT)?;
        thread::sleep(Duration::from_millis(20));
        if reader.is_finished() {
            break;
        }
    }
    let text = reader.join().ok().context("the reader panicked")??;
    ensure!(follower.wait()?.code() == Some(0));
    let text = String::from_utf8(text)?;
    let numbers: Vec<u32> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
    let wrong = numbers.iter().zip(0..).find(|(got, want)| *got != want);
    ensure!(
        wrong.is_none() && numbers.len() == LINES as usize + 1,
        "{} lines, the first wrong one: {wrong:?}",
        numbers.len()
    );
    ensure!(context.ok(&["wait", "counter"])?.trim() == "0");

    let dir = context.state.join("containers").join(id.trim());
    let mut files: Vec<_> = fs::read_dir(&dir)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("log."))
        .collect();
    files.sort();
    ensure!(
        files == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"],
        "{files:?}"
    );
    for name in &files {
        let length = fs::metadata(dir.join(name))?.len();
        ensure!(length <= 64 << 10, "{name}: {length} bytes");
    }
    let kept = context.ok(&["logs", "counter"])?;
    let kept: Vec<u32> = kept.lines().map(str::parse).collect::<Result<_, _>>()?;
    let first = *kept.first().context("nothing kept")?;
    ensure!(
        first > 0 && kept == (first..=LINES).collect::<Vec<_>>(),
        "from {first}: a gap in what is kept"
    );
    ensure!(context.ok(&["logs", "-n", "2", "counter"])? == format!("{}\n{LINES}\n", LINES - 1));
    Ok(())
}

fn log_windows(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let scratch = Scratch::new(context)?;
    let script = "until_there() { while [ ! -e /out/$1 ]; do sleep 0.05; done; }; \
                  echo one; until_there 1; echo two >&2; until_there 2; echo three; \
                  until_there 3; echo four";
    context.ok(&[
        "run",
        "-d",
        "--name",
        "slow",
        "-v",
        &scratch.volume(),
        "host",
        "sh",
        "-c",
        script,
    ])?;
    // Each is logged before the next is written, or their times could be one.
    for (line, go) in [("one", Some("1")), ("two", Some("2")), ("three", None)] {
        eventually(line, || {
            let output = context.paddock(&["logs", "slow"])?;
            Ok((output.stdout + &output.stderr).contains(line))
        })?;
        if let Some(go) = go {
            scratch.write(go)?;
        }
    }
    let output = context.paddock(&["logs", "-t", "slow"])?;
    let all = output.stdout + &output.stderr;
    let stamp = |word: &str| {
        let line = all.lines().find(|line| line.ends_with(word));
        let (time, rest) = line
            .and_then(|line| line.split_once(' '))
            .context(word.to_owned())?;
        ensure!(
            rest == word && time.ends_with('Z') && time.len() == 30,
            "{line:?}"
        );
        Ok(time.to_owned())
    };
    let (one, two, three) = (stamp("one")?, stamp("two")?, stamp("three")?);
    ensure!(one < two && two < three, "{all}");
    let said = |flags: &[&str]| -> Result<String> {
        let output = context.paddock(&[&["logs"], flags, &["slow"]].concat())?;
        ensure!(output.code == Some(0), "{output:?}");
        Ok(output.stdout + &output.stderr)
    };
    for (flags, want) in [
        (&["--since", &*two][..], "three\ntwo\n"),
        (&["--until", &*two], "one\ntwo\n"),
        (&["--since", &*two, "--until", &*two], "two\n"),
        (&["--since", "1h"], "one\nthree\ntwo\n"),
        (&["--until", "1h"], ""),
        (&["--since", "1000000000", "-n", "1"], "three\n"),
        (&["-n", "2"], "three\ntwo\n"),
        (&["--tail", "0"], ""),
        (&["--tail", "all"], "one\nthree\ntwo\n"),
    ] {
        let got = said(flags)?;
        ensure!(got == want, "{flags:?}: {got:?}");
    }
    for wrong in [&["--since", "yesterday"][..], &["-n", "some"]] {
        let output = context.paddock(&[&["logs"], wrong, &["slow"]].concat())?;
        ensure!(
            output.code == Some(1) && output.stderr.trim().lines().count() == 1,
            "{wrong:?}: {output:?}"
        );
    }
    // A follower ends at its time, or with the container.
    let soon = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs()
        + 3;
    let start = Instant::now();
    let got = said(&["-f", "-n", "1", "--until", &soon.to_string()])?;
    ensure!(
        got == "three\n" && start.elapsed() >= Duration::from_secs(1),
        "{got:?}"
    );
    let follower = context
        .command(&["logs", "-f", "-n", "1", "slow"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    scratch.write("3")?;
    let output = follower.wait_with_output()?;
    let got = String::from_utf8_lossy(&output.stdout).into_owned();
    // It came before the last line, or just after.
    ensure!(got == "three\nfour\n" || got == "four\n", "{got:?}");
    Ok(())
}

/// A monitor that takes a follower's connection and dies before it answers: what was logged is
/// shown all the same.
fn log_of_a_dying_monitor(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "cut",
        "host",
        "sh",
        "-c",
        "echo said; exec sleep 60",
    ])?;
    eventually("its line", || {
        Ok(context.ok(&["logs", "cut"])?.contains("said"))
    })?;
    let monitor = context.monitor_of("cut")?;
    kill(monitor, Signal::SIGSTOP)?;
    let follower = context
        .command(&["logs", "-f", "cut"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    // Connected, it has asked, and waits; later than this is as if it came after the end.
    thread::sleep(Duration::from_secs(1));
    kill(monitor, Signal::SIGKILL)?;
    let output = follower.wait_with_output()?;
    ensure!(
        output.status.success() && output.stdout == b"said\n",
        "{output:?}"
    );
    Ok(())
}
