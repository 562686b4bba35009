//! `paddock completions bash`: a real bash reads the script and asks for words. Not in guests,
//! which have no bash.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{context::Context, kernels::is_guest, runner::Scenario};

pub const ALL: &[Scenario] = &[Scenario::new("completions::in_bash", in_bash)];

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

fn in_bash(context: &Context) -> Result<()> {
    if is_guest() {
        return Ok(());
    }
    context.start_agent(&["--detach-on-exit"])?;
    for name in ["tab-one", "tab-two"] {
        context.ok(&["create", "--name", name, "host", "true"])?;
    }
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
