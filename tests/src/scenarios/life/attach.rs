//! `attach`, detach keys, the window's size. Witness: a terminal of our own, /proc, and what
//! the workload computes from what is typed.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    context::{Context, eventually},
    runner::Scenario,
    terminal::Terminal,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("life::detach_and_attach", detach_and_attach),
    Scenario::new("life::detach_from_exec", detach_from_exec),
    Scenario::new("life::attach_by_pipes", attach_by_pipes),
    Scenario::new("life::attach_and_signals", attach_and_signals),
];

/// A shell without an editor of its own, which would take control characters for commands.
const READER: &str = "while read -r line; do eval \"$line\"; done";

const DETACH: &[u8] = b"\x10\x11";

fn pid_of(context: &Context, name: &str) -> Result<i64> {
    context.inspect(name)?["pid"].as_i64().context("no pid")
}

fn detach_and_attach(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let mut first = Terminal::open(
        context,
        &["run", "-it", "--name", "shell", "host", "sh", "-c", READER],
    )?;
    first.type_keys(b"echo sum $((40+2))\n")?;
    first.shows("sum 42")?;
    let pid = pid_of(context, "shell")?;
    // A size that is told while it runs.
    first.resize(33, 101)?;
    eventually("the size arrives", || {
        first.type_keys(b"stty size\n")?;
        thread::sleep(Duration::from_millis(100));
        Ok(first.shown().contains("33 101"))
    })?;
    // Half of the keys is not all: it is the program's.
    first.type_keys(b"printf x\x10")?;
    first.type_keys(b"y | od -An -tx1\n")?;
    first.shows("78 10 79")?;
    first.type_keys(DETACH)?;
    ensure!(first.ended()? == Some(0), "{}", first.shown());
    first.shows("paddock attach shell")?;
    ensure!(
        fs::metadata(format!("/proc/{pid}")).is_ok() && pid_of(context, "shell")? == pid,
        "it ended with the terminal"
    );

    let mut second = Terminal::open(context, &["attach", "--detach-keys", "ctrl-x,y", "shell"])?;
    second.type_keys(b"echo product $((6*7))\n")?;
    second.shows("product 42")?;
    second.resize(21, 77)?;
    eventually("the size arrives", || {
        second.type_keys(b"stty size\n")?;
        thread::sleep(Duration::from_millis(100));
        Ok(second.shown().contains("21 77"))
    })?;
    second.type_keys(b"\x18y")?;
    ensure!(second.ended()? == Some(0), "{}", second.shown());

    let mut third = Terminal::open(context, &["attach", "shell"])?;
    third.type_keys(b"exit 7\n")?;
    ensure!(third.ended()? == Some(7), "{}", third.shown());
    ensure!(context.inspect("shell")?["exit_code"] == 7);
    let output = context.paddock(&["attach", "shell"])?;
    ensure!(
        output.code == Some(1)
            && output.stderr.trim().lines().count() == 1
            && output.stderr.contains("start -a shell"),
        "{output:?}"
    );
    let output = context.paddock(&["run", "--detach-keys", "ctrl-", "host", "true"])?;
    ensure!(
        output.code == Some(125) && output.stderr.contains("ctrl-"),
        "{output:?}"
    );
    Ok(())
}

fn detach_from_exec(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "--name", "base", "host", "sleep", "60"])?;
    let mut terminal = Terminal::open(context, &["exec", "-it", "base", "sh"])?;
    terminal.type_keys(b"echo shell is $((4000-1)); sleep 4711\n")?;
    terminal.shows("shell is 3999")?;
    let sleeps = || -> Result<usize> {
        let all = procfs::process::all_processes()?.flatten();
        Ok(all
            .filter(|one| one.cmdline().is_ok_and(|line| line == ["sleep", "4711"]))
            .count())
    };
    eventually("it sleeps", || Ok(sleeps()? == 1))?;
    terminal.type_keys(DETACH)?;
    ensure!(terminal.ended()? == Some(0), "{}", terminal.shown());
    ensure!(sleeps()? == 1, "the program ended with the terminal");
    Ok(())
}

fn attach_by_pipes(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&["run", "-d", "-i", "--name", "cat", "host", "cat"])?;
    // Looks on without a word.
    let mut onlooker = context
        .command(&["attach", "--no-stdin", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    drop(onlooker.stdin.take());
    let mut attached = context
        .command(&["attach", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = attached.stdin.take().context("no stdin")?;
    let mut output = BufReader::new(attached.stdout.take().context("no stdout")?).lines();
    let mut seen = BufReader::new(onlooker.stdout.take().context("no stdout")?).lines();
    // The onlooker says nothing when it has come: it has when it sees a line.
    let (sender, first) = mpsc::channel();
    let reader = thread::spawn(move || {
        let _ = sender.send(seen.next());
        // Open until the onlooker has ended.
        seen
    });
    let mut written = String::new();
    let line = loop {
        let number = written.lines().count();
        let sent = format!("line {number}");
        writeln!(input, "{sent}")?;
        written += &sent;
        written.push('\n');
        let line = output.next().context("no echo")??;
        ensure!(line == sent, "{line}");
        match first.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => break line.context("nothing seen")??,
            Err(_) => ensure!(number < 600, "the onlooker never saw a line"),
        }
    };
    ensure!(line.starts_with("line "), "{line}");
    drop(input);
    ensure!(
        attached.wait()?.code() == Some(0),
        "cat did not end with its input"
    );
    let seen = reader.join();
    ensure!(onlooker.wait()?.code() == Some(0));
    drop(seen);
    ensure!(context.ok(&["wait", "cat"])?.trim() == "0");
    ensure!(context.ok(&["logs", "cat"])? == written);
    // Started again with its input.
    let mut again = context
        .command(&["start", "-a", "-i", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    again
        .stdin
        .take()
        .context("no stdin")?
        .write_all(b"once more\n")?;
    let output = again.wait_with_output()?;
    ensure!(
        output.stdout == b"once more\n" && output.status.code() == Some(0),
        "{output:?}"
    );
    Ok(())
}

fn attach_and_signals(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let script = "trap 'echo usr1' USR1; trap 'echo int; exit 9' INT; while :; do echo alive; sleep 0.1; done";
    context.ok(&["run", "-d", "--name", "traps", "host", "sh", "-c", script])?;
    let attach = |flag: &str| -> Result<_> {
        let mut child = context
            .command(&["attach", flag, "traps"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        ensure!(lines.next().context("no output")?? == "alive");
        Ok((child, lines))
    };
    let (mut aside, lines) = attach("--sig-proxy=false")?;
    kill(Pid::from_raw(aside.id().cast_signed()), Signal::SIGINT)?;
    ensure!(aside.wait()?.code() == Some(0));
    drop(lines);
    ensure!(
        context.inspect("traps")?["state"] == "running",
        "the signal was passed on"
    );
    let (mut proxy, lines) = attach("--sig-proxy")?;
    let pid = Pid::from_raw(proxy.id().cast_signed());
    kill(pid, Signal::SIGUSR1)?;
    let mut asked = false;
    for line in lines {
        let line = line?;
        if line == "usr1" && !asked {
            asked = true;
            kill(pid, Signal::SIGINT)?;
        }
    }
    ensure!(asked, "no SIGUSR1 came");
    ensure!(proxy.wait()?.code() == Some(9));
    Ok(())
}
