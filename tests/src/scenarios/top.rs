//! `paddock top`: what a person sees at two sizes, what keys do, and the terminal afterwards.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};

use crate::{
    context::{Context, eventually},
    runner::Scenario,
    terminal::Terminal,
};

pub const ALL: &[Scenario] = &[
    Scenario::new(
        "top::shows_sorts_filters_and_kills",
        shows_sorts_filters_and_kills,
    ),
    Scenario::new("top::gives_the_terminal_back", gives_the_terminal_back),
    Scenario::new("top::looks_closer", looks_closer),
];

const BUSY: &str = "while :; do :; done";

/// One that works and one that does not, whose names have another order than their work.
fn start(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run", "-d", "--name", "top-busy", "--cpus", "0.5", "host", "sh", "-c", BUSY,
    ])?;
    let idle = ["run", "-d", "--name", "top-a-idle", "host", "sleep", "600"];
    context.ok(&idle).map(drop)
}

fn first_words(terminal: &Terminal, (rows, columns): (u16, u16)) -> Vec<String> {
    let screen = terminal.screen(rows, columns);
    let below = screen.lines.iter().skip(2).take(usize::from(rows) - 3);
    below
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The table has these, in this order.
fn lists(terminal: &Terminal, size: (u16, u16), names: &[&str]) -> Result<()> {
    eventually("the table's order", || {
        Ok(first_words(terminal, size) == names)
    })
    .with_context(|| format!("{names:?}: {:#?}", terminal.screen(size.0, size.1).lines))
}

fn shows_sorts_filters_and_kills(context: &Context) -> Result<()> {
    start(context)?;
    let pid = context.inspect("top-busy")?["pid"]
        .as_i64()
        .context("no pid")?;
    for size in [(24, 80), (60, 200)] {
        let mut terminal = Terminal::of(context, &["top", "--filter", "top-"], size.1)?;
        terminal.resize(size.0, size.1)?;
        // By use: half a CPU and none.
        lists(&terminal, size, &["top-busy", "top-a-idle"])?;
        let screen = terminal.screen(size.0, size.1);
        ensure!(
            screen.lines[1].contains("WRITE/s") == (size.1 == 200) && !screen.ordinary,
            "{screen:#?}"
        );
        terminal.type_keys(b"r")?;
        lists(&terminal, size, &["top-a-idle", "top-busy"])?;
        // The field above, the order as it was.
        terminal.type_keys(b"rsk\r")?;
        lists(&terminal, size, &["top-a-idle", "top-busy"])?;
        terminal.type_keys(b"fb\r")?;
        lists(&terminal, size, &["top-busy"])?;
        terminal.type_keys(b"Kn")?;
        if size.1 == 80 {
            // Another size meanwhile.
            terminal.resize(10, 60)?;
            lists(&terminal, (10, 60), &["top-busy"])?;
            ensure!(Path::new(&format!("/proc/{pid}")).exists(), "n is no yes");
        } else {
            terminal.type_keys(b"Ky")?;
            eventually("its process is gone", || {
                Ok(!Path::new(&format!("/proc/{pid}")).exists())
            })?;
            lists(&terminal, size, &["none"])?;
        }
        terminal.type_keys(b"q")?;
        ensure!(terminal.ended()? == Some(0), "{:?}", terminal.shown());
    }
    context
        .ok(&["rm", "-f", "top-busy", "top-a-idle"])
        .map(drop)
}

/// By a key, a signal, and where there is none.
fn gives_the_terminal_back(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    for (signal, code) in [
        (None, 0),
        (Some(Signal::SIGTERM), 143),
        (Some(Signal::SIGHUP), 129),
    ] {
        let mut terminal = Terminal::of(context, &["top"], 80)?;
        let hold = terminal.hold()?;
        eventually("its screen", || {
            Ok(terminal.screen(24, 80).lines[1].starts_with("NAME"))
        })?;
        let during = terminal.settings()?;
        match signal {
            None => terminal.type_keys(b"q")?,
            Some(signal) => kill(terminal.pid()?, signal)?,
        }
        ensure!(
            terminal.ended()? == Some(code),
            "{signal:?}: {:?}",
            terminal.shown()
        );
        let after = terminal.settings()?;
        // What a terminal is when it is made.
        let fresh = Terminal::of(context, &["wait", "nobody"], 80)?;
        let _kept = fresh.hold()?;
        ensure!(
            after == fresh.settings()? && after != during,
            "{signal:?}: {during} {after}"
        );
        eventually("the ordinary screen", || {
            Ok(terminal.screen(24, 80).ordinary)
        })?;
        drop(hold);
    }
    let piped = context.paddock(&["top"])?;
    ensure!(
        piped.code == Some(1)
            && piped.stderr.contains("`paddock stats`")
            && piped.stdout.is_empty(),
        "{piped:?}"
    );
    Ok(())
}

/// One container's view and its log.
fn looks_closer(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    context.ok(&[
        "run",
        "-d",
        "--name",
        "top-talks",
        "--memory",
        "64m",
        "host",
        "sh",
        "-c",
        "echo seen-$((40 + 2)); printf '\\033[2Jhidden\\n'; sleep 600",
    ])?;
    let mut terminal = Terminal::of(context, &["top", "--filter", "top-talks"], 80)?;
    let shows = |terminal: &Terminal, text: &str| {
        eventually(text, || {
            let lines = terminal.screen(24, 80).lines;
            Ok(lines.iter().any(|line| line.contains(text)))
        })
        .with_context(|| format!("{:#?}", terminal.screen(24, 80).lines))
    };
    lists(&terminal, (24, 80), &["top-talks"])?;
    terminal.type_keys(b"\r")?;
    for text in ["of 64M", "Last events", "sh -c", "container started"] {
        shows(&terminal, text)?;
    }
    terminal.type_keys(b"l")?;
    shows(&terminal, "seen-42")?;
    shows(&terminal, "\\u{1b}[2Jhidden")?;
    terminal.type_keys(b"q")?;
    lists(&terminal, (24, 80), &["top-talks"])?;
    terminal.type_keys(b"q")?;
    ensure!(terminal.ended()? == Some(0), "{:?}", terminal.shown());
    context.ok(&["rm", "-f", "top-talks"]).map(drop)
}
