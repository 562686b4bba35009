//! `paddock completions SHELL`: a real shell reads the script and asks for words. Not in guests,
//! which have none of these shells.

use std::{fs, process::Command};

use anyhow::{Result, ensure};

use crate::{context::Context, kernels::is_guest, runner::Scenario, terminal::Terminal};

pub const ALL: &[Scenario] = &[
    Scenario::new("completions::in_bash", in_bash),
    Scenario::new("completions::in_zsh", in_zsh),
    Scenario::new("completions::in_fish", in_fish),
];

/// What bash itself does at a Tab, word by word; prints what it would offer.
const TAB: &str = r#"
source <("$PADDOCK" completions bash) || exit 1
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_TYPE=9
_clap_complete_paddock paddock "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}" | tr -s '\013' '\n'
"#;

fn offered(context: &Context, words: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("bash")
        .args(["--norc", "-c", TAB, "bash", "paddock"])
        .args(words)
        .env("PADDOCK", &context.bin)
        .env("PADDOCK_STATE_DIR", &context.state)
        .env("PADDOCK_DATA_DIR", &context.data)
        .output()?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{words:?}: {output:?}"
    );
    let words = String::from_utf8(output.stdout)?;
    let words = words.lines().map(str::trim).filter(|word| !word.is_empty());
    Ok(words.map(str::to_owned).collect())
}

fn named(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    for name in ["tab-one", "tab-two"] {
        context.ok(&["create", "--name", name, "host", "true"])?;
    }
    Ok(())
}

fn in_bash(context: &Context) -> Result<()> {
    if is_guest() {
        return Ok(());
    }
    named(context)?;
    for (words, want) in [
        (&["stop", "tab-"][..], &["tab-one", "tab-two"][..]),
        (&["stop", "tab-one", "tab-t"], &["tab-two"]),
        (&["events", "--container", "tab-o"], &["tab-one"]),
        (&["kill", "--signal", "KI"], &["KILL"]),
        (&["run", "ho"], &["host"]),
        (&["unp"], &["unpause"]),
        (&["ps", "--no-t"], &["--no-trunc"]),
        // Nobody to ask: nothing, and no word about it.
        (&["--state-dir", "/none", "stop", "tab-"], &[]),
    ] {
        let found = offered(context, words)?;
        ensure!(found == want, "{words:?}: {found:?}, not {want:?}");
    }
    context.ok(&["rm", "tab-one", "tab-two"]).map(drop)
}

/// The file where a package puts it is a function, which zsh reads at the first Tab: that one
/// completes, too. So does what a person sources.
fn in_zsh(context: &Context) -> Result<()> {
    if is_guest() {
        return Ok(());
    }
    named(context)?;
    let home = context.data.join("zsh");
    fs::create_dir(&home)?;
    fs::write(home.join("_paddock"), context.ok(&["completions", "zsh"])?)?;
    let begin = "autoload -Uz compinit && compinit -u -D; PS1='ready> '\n";
    for rc in [
        format!("fpath=($ZDOTDIR $fpath)\n{begin}"),
        format!("{begin}source <($PADDOCK completions zsh)\n"),
    ] {
        fs::write(home.join(".zshrc"), rc)?;
        let mut zsh = Command::new("zsh");
        zsh.arg("-i")
            .env("ZDOTDIR", &home)
            .env("PADDOCK", &context.bin)
            .env("PADDOCK_STATE_DIR", &context.state)
            .env("PADDOCK_DATA_DIR", &context.data);
        let mut terminal = Terminal::running(&zsh, 80)?;
        terminal.shows("ready> ")?;
        terminal.type_keys(b"paddock stop tab-one tab-t\t")?;
        terminal.shows("tab-two")?;
        terminal.type_keys(b"\x15paddock unp\t")?;
        terminal.shows("unpause")?;
        terminal.type_keys(b"\x15paddock policy \t")?;
        terminal.shows("-- Propose a policy")?;
        terminal.type_keys(b"\x15exit\r")?;
        ensure!(terminal.ended()? == Some(0));
    }
    context.ok(&["rm", "tab-one", "tab-two"]).map(drop)
}

fn in_fish(context: &Context) -> Result<()> {
    if is_guest() {
        return Ok(());
    }
    named(context)?;
    for (line, want) in [
        ("paddock stop tab-", &["tab-one", "tab-two"][..]),
        ("paddock stop tab-one tab-t", &["tab-two"]),
        ("paddock kill --signal KI", &["KILL"]),
        ("paddock unp", &["unpause\tLet paused containers go on"]),
        ("paddock --state-dir /none stop tab-", &[]),
    ] {
        let output = Command::new("fish")
            .args(["--no-config", "-c"])
            .arg("$PADDOCK completions fish | source; complete -C $argv[1]")
            .arg(line)
            .env("PADDOCK", &context.bin)
            .env("PADDOCK_STATE_DIR", &context.state)
            .env("PADDOCK_DATA_DIR", &context.data)
            .output()?;
        ensure!(output.status.success(), "{line}: {output:?}");
        let said = String::from_utf8(output.stdout)?;
        let found: Vec<_> = said.lines().collect();
        ensure!(found == want, "{line}: {found:?}, not {want:?}");
    }
    context.ok(&["rm", "tab-one", "tab-two"]).map(drop)
}
