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
    let script = "echo one; sleep 1.2; echo two >&2; sleep 1.2; echo three; \
                  while [ ! -e /out/go ]; do sleep 0.05; done; echo four";
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
    eventually("three lines", || {
        Ok(context.ok(&["logs", "slow"])?.contains("three"))
    })?;
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
    scratch.write("go")?;
    let output = follower.wait_with_output()?;
    let got = String::from_utf8_lossy(&output.stdout).into_owned();
    // It came before the last line, or just after.
    ensure!(got == "three\nfour\n" || got == "four\n", "{got:?}");
    Ok(())
}
