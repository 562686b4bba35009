//! `paddock policy`: files are checked without an agent, and told by line and column.

pub mod capabilities;
pub mod devices;
pub mod disk;
pub mod enforced;
pub mod found;
pub mod guarded;
pub mod ingress;
pub mod network;
pub mod paths;
pub mod reactions;
pub mod recorded;
pub mod setns;
pub mod sysctl;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::{
    context::{Context, Output, finish},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("policy::good_files_are_said_in_words", good).alone(),
    Scenario::new("policy::bad_files_are_told_by_place", bad).alone(),
    Scenario::new("policy::what_is_no_file_is_one_line", no_file).alone(),
    Scenario::new("policy::packs_and_schema", packs).alone(),
    Scenario::new("policy::needs_no_root", no_root).alone(),
];

/// What rules hit, over all series that have these labels.
fn hits(context: &Context, labels: &[(&str, &str)]) -> Result<f64> {
    let metrics = context.metrics()?;
    Ok(metrics.sum("paddock_container_policy_hits_total", labels))
}

/// A directory for files, gone with it.
#[derive(Debug)]
struct Files(PathBuf);

impl Files {
    fn new() -> Result<Self> {
        let template = std::env::temp_dir().join("paddock-policy-XXXXXX");
        Ok(Self(nix::unistd::mkdtemp(&template)?))
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<String> {
        let path = self.0.join(name);
        fs::write(&path, text)?;
        text_of(&path)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A directory that containers see at `/flags`, where a file ends one.
#[derive(Debug)]
struct Flags(PathBuf);

impl Flags {
    fn new(context: &Context) -> Result<Self> {
        let dir = context.state.with_extension("flags");
        fs::create_dir(&dir)?;
        Ok(Self(dir))
    }

    fn volume(&self) -> String {
        format!("{}:/flags", self.0.display())
    }

    fn end(&self) -> PathBuf {
        self.0.join("end")
    }
}

impl Drop for Flags {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn text_of(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a path in UTF-8")?.to_owned())
}

fn check(context: &Context, file: &str) -> Result<Output> {
    context.paddock(&["policy", "check", file])
}

/// Fails with 1, this alone on stderr and nothing on stdout.
fn fails(context: &Context, file: &str, line: &str) -> Result<()> {
    let output = check(context, file)?;
    ensure!(
        output.code == Some(1) && output.stdout.is_empty() && output.stderr == line,
        "{output:?} instead of {line:?}"
    );
    Ok(())
}

fn good(context: &Context) -> Result<()> {
    let files = Files::new()?;
    let file = files.write(
        "web.toml",
        "name = \"web\"\nmode = \"enforce\"\ndeny = [\"sysrq\"]\nselect = { name = \"web-*\" }\n\
         [[rule]]\nname = \"miner\"\nnetwork = { direction = \"egress\", port = 3333 }\n\
         reaction = \"kill\"\n[[rule]]\nname = \"keys\"\nmode = \"audit\"\n\
         file = { path = \"/etc/keys\", operation = [\"read\", \"write\"] }\n",
    )?;
    let output = check(context, &file)?;
    let text = output.stdout;
    let want = "policy web, for containers named web-*; refused where a rule of it cannot be enforced\n  \
         sysrq: writing sysrq-trigger: denied\n  \
         miner: traffic to 0.0.0.0/0 port 3333 by tcp, udp; traffic to ::/0 port 3333 by tcp, udp: denied, and the process is killed\n  \
         keys: read, write of /etc/keys and below: passes, counted as would-deny\n  \
         mount: every mount, the container's own too: passes, counted as would-deny\n";
    ensure!(text == want && output.code == Some(0), "{text}");
    ensure!(output.stderr == alone(context), "{}", output.stderr);
    Ok(())
}

/// What is said where no agent tells what comes of it.
fn alone(context: &Context) -> String {
    let socket = context.state.join("paddock.sock");
    format!(
        "paddock: no agent answers on {}: only the language was checked\n",
        socket.display()
    )
}

fn bad(context: &Context) -> Result<()> {
    let files = Files::new()?;
    let file = files.write("bad.toml", "name = \"p\"\ndeny = [\"muont\"]\n")?;
    let line = format!("{file}:2:9: unknown rule 'muont'; did you mean 'mount'?\n");
    fails(context, &file, &line)?;

    // Beside it a good one is told, and the whole fails.
    let output = context.paddock(&["policy", "check", &file, "pack:escape"])?;
    ensure!(
        output.code == Some(1)
            && output.stderr == format!("{line}{}", alone(context))
            && output
                .stdout
                .starts_with("policy escape, for every container;"),
        "{output:?}"
    );

    let text = "name = \"p\"\ndeny = [\"\\u001b[2J\"]\n";
    let file = files.write("\u{1b}[31m\n.toml", text)?;
    let shown = file.replace('\u{1b}', "\\u{1b}").replace('\n', "\\n");
    let line = format!("{shown}:2:9: unknown rule '\\u{{1b}}[2J'; docs/policy.md has the list\n");
    fails(context, &file, &line)?;

    let file = files.write("raw.toml", b"name = \"p\"\ndeny = [\"\xff\"]\n")?;
    let line = format!("{file}:2:10: not UTF-8; save the file in that encoding\n");
    fails(context, &file, &line)?;

    let file = files.write("large.toml", vec![b'#'; 2 << 20])?;
    let line = format!("{file}:1:1: more than 1048576 bytes; divide it into several policies\n");
    fails(context, &file, &line)
}

fn no_file(context: &Context) -> Result<()> {
    let files = Files::new()?;
    let directory = text_of(&files.0)?;
    fails(
        context,
        &directory,
        &format!("paddock: {directory}: not a regular file\n"),
    )?;
    let fifo = files.0.join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU)?;
    let fifo = text_of(&fifo)?;
    fails(
        context,
        &fifo,
        &format!("paddock: {fifo}: not a regular file\n"),
    )?;
    fails(
        context,
        "/dev/zero",
        "paddock: /dev/zero: not a regular file\n",
    )?;
    let missing = format!("{directory}/none");
    fails(
        context,
        &missing,
        &format!("paddock: {missing}: cannot open: No such file or directory\n"),
    )?;
    fails(
        context,
        "pack:none",
        "paddock: pack:none: no such pack; there are pack:escape, pack:hardened\n",
    )
}

fn packs(context: &Context) -> Result<()> {
    let files = Files::new()?;
    for pack in ["pack:escape", "pack:hardened"] {
        // What is shown is a file that is as good as the pack.
        let shown = context.ok(&["policy", "show", pack])?;
        let file = files.write("copy.toml", shown)?;
        let (copy, own) = (
            context.ok(&["policy", "check", &file])?,
            context.ok(&["policy", "check", pack])?,
        );
        ensure!(copy == own && own.lines().count() > 20, "{own}");
        ensure!(
            own.contains("counted as would-deny\n") && !own.contains(": denied"),
            "{own}"
        );
    }
    let schema: Value = context.json(&["policy", "schema"])?;
    ensure!(schema["title"] == "paddock policy", "{schema}");
    Ok(())
}

/// In a user namespace without a map one is nobody, and still reads the binary.
fn no_root(context: &Context) -> Result<()> {
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.arg("-U").arg(&context.bin).args(args);
        finish(&mut command)
    };
    let output = as_nobody(&["policy", "check", "pack:escape"])?;
    ensure!(
        output.code == Some(0) && output.stdout.starts_with("policy "),
        "{output:?}"
    );
    // That one was nobody: all else wants root.
    let output = as_nobody(&["ps"])?;
    ensure!(
        output.code == Some(1) && output.stderr.starts_with("paddock: not root"),
        "{output:?}"
    );
    Ok(())
}
