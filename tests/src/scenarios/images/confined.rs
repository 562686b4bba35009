//! An unpacker that was taken over: strace puts another path into the memory of one of its
//! calls, as a hole in it might. Landlock has to stop what comes of that. Where the kernel has
//! none, or is made to say so, the escape succeeds: that shows whose wall it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{layer_dir, layout, tar_layer, with_scratch};
use crate::{
    context::{Context, Output, finish},
    image::{Layer, Tar},
    runner::Scenario,
};

pub(super) const ALL: &[Scenario] =
    &[Scenario::new("images::unpacker_is_confined", unpacker_is_confined).alone()];

/// Pulls under strace; what it saw.
fn traced(context: &Context, image: &str, more: &[&str]) -> Result<(Output, String)> {
    let log = context.state.with_extension("strace");
    let paddock = context.command(&["pull", image]);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-qq", "-e", "signal=none", "-e"])
        .arg("trace=symlinkat,mkdirat,landlock_create_ruleset,landlock_add_rule,landlock_restrict_self")
        .args(more)
        .arg("-o")
        .arg(&log)
        .arg(paddock.get_program())
        .args(paddock.get_args());
    for (key, value) in paddock.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    let output = finish(&mut command)?;
    let seen = fs::read_to_string(&log)?;
    fs::remove_file(&log)?;
    Ok((output, seen))
}

/// The one line that has all of these words.
fn line<'a>(seen: &'a str, words: &[&str]) -> Result<&'a str> {
    let mut fitting = seen
        .lines()
        .filter(|line| words.iter().all(|word| line.contains(word)));
    let one = fitting
        .next()
        .with_context(|| format!("no {words:?}: {seen}"))?;
    ensure!(fitting.next().is_none(), "twice {words:?}: {seen}");
    Ok(one)
}

/// An image whose one entry becomes, by strace, a symlink outside.
struct Attack<'a> {
    context: &'a Context,
    layer: Layer,
    entry: String,
    image: String,
    outside: PathBuf,
    inject: String,
}

impl<'a> Attack<'a> {
    fn new(context: &'a Context, scratch: &Path) -> Result<Self> {
        let entry = "l".repeat(100);
        let tar = Tar::new()
            .directory("made/", 0o755)
            .symlink(&entry, "nowhere");
        let layer = tar_layer(tar)?;
        let image = layout(
            &scratch.join("image"),
            std::slice::from_ref(&layer),
            &json!({}),
        )?;
        let outside = scratch.join("outside");
        let path = outside.display().to_string();
        ensure!(path.len() < entry.len(), "{path} is too long");
        let hex: Vec<_> = path.bytes().map(|byte| format!("{byte:02x}")).collect();
        let inject = format!("inject=symlinkat:poke_enter=@arg3={}00", hex.concat());
        Ok(Self {
            context,
            layer,
            entry,
            image,
            outside,
            inject,
        })
    }

    /// The call ends in this, and the symlink is there if it succeeded.
    fn comes_to(&self, seen: &str, end: &str) -> Result<()> {
        let call = line(seen, &["symlinkat(", &self.outside.display().to_string()])?;
        ensure!(call.contains(end), "expected {end}: {call}");
        let escaped = self.outside.is_symlink();
        ensure!(escaped == (end == "= 0"), "{call}, but there: {escaped}");
        Ok(())
    }

    fn succeeds(&self, output: &Output, seen: &str) -> Result<()> {
        self.comes_to(seen, "= 0")?;
        ensure!(output.code == Some(0), "{output:?}");
        fs::remove_file(&self.outside)?;
        let id = output.stdout.trim();
        self.context.ok(&["images", "rm", id]).map(drop)
    }

    fn refused(&self, output: &Output, words: &str) -> Result<()> {
        ensure!(
            output.code == Some(1) && output.stderr.contains(words),
            "expected {words}: {output:?}"
        );
        ensure!(!layer_dir(self.context, &self.layer.diff_id).exists());
        Ok(())
    }
}

fn unpacker_is_confined(context: &Context) -> Result<()> {
    with_scratch(context, |scratch| {
        let attack = Attack::new(context, scratch)?;
        let (output, seen) = traced(context, &attack.image, &["-e", &attack.inject])?;
        let asked = line(&seen, &["landlock_create_ruleset(NULL"])?;
        let answer = asked.rsplit("= ").next().unwrap_or_default();
        let version: Option<u32> = answer.parse().ok();
        if version.is_none_or(|version| version < 2) {
            ensure!(
                version.is_some() || answer.contains("ENOSYS") || answer.contains("EOPNOTSUPP"),
                "{asked}"
            );
            return attack.succeeds(&output, &seen);
        }
        attack.comes_to(&seen, "= -1 EACCES")?;
        attack.refused(&output, "Permission denied")?;
        // Off, not built in, and the first version, which would refuse hard links.
        for answer in ["error=EOPNOTSUPP", "error=ENOSYS", "retval=1"] {
            let without = format!("inject=landlock_create_ruleset:{answer}");
            let more = ["-e", &attack.inject, "-e", &without];
            let (output, seen) = traced(context, &attack.image, &more)?;
            attack.succeeds(&output, &seen)?;
        }
        // Where it is there, there is no going without.
        let more = ["-e", "inject=landlock_restrict_self:error=E2BIG"];
        let (output, seen) = traced(context, &attack.image, &more)?;
        attack.refused(&output, "cannot be confined")?;
        ensure!(!seen.contains("\"made\""), "{seen}");
        left_alone(context, &attack)
    })
}

/// The same is unpacked, all of it by the thread that is confined.
fn left_alone(context: &Context, attack: &Attack<'_>) -> Result<()> {
    let (output, seen) = traced(context, &attack.image, &[])?;
    ensure!(output.code == Some(0), "{output:?}");
    let restricted = line(&seen, &["landlock_restrict_self(", "= 0"])?;
    let thread = restricted.split(' ').next().unwrap_or_default();
    for words in [
        &["landlock_add_rule(", "/layer-0/fs>"][..],
        &["symlinkat(", &attack.entry],
        &["mkdirat(", "\"made\""],
    ] {
        let call = line(&seen, words)?;
        ensure!(
            call.split(' ').next() == Some(thread) && call.ends_with("= 0"),
            "{call}, but confined is {thread}"
        );
    }
    let unpacked = layer_dir(context, &attack.layer.diff_id);
    ensure!(unpacked.join(&attack.entry).is_symlink());
    Ok(())
}
