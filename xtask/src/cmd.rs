//! Run other programs; a failure names the command line.

use std::{
    io,
    os::fd::AsFd as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// One line that says what is being done.
pub(crate) fn step(text: &str) {
    eprintln!("==> {text}");
}

/// Shares this process' output; fails unless it ends with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| explain(command, &error))?;
    if status.success() {
        return Ok(());
    }
    bail!("{}: {status}", line(command))
}

/// As [`run`], with its stdout sent to stderr: progress, not a result.
pub(crate) fn run_to_stderr(command: &mut Command) -> Result<()> {
    let stderr = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .context("duplicate stderr")?;
    run(command.stdout(Stdio::from(stderr)))
}

/// What it writes to stdout; fails with its stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| explain(command, &error))?;
    if !done.status.success() {
        bail!(
            "{}: {}\n{}",
            line(command),
            done.status,
            String::from_utf8_lossy(&done.stderr).trim_end()
        );
    }
    String::from_utf8(done.stdout).with_context(|| format!("{}: output", line(command)))
}

fn explain(command: &Command, error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!("{}: {error}", line(command))
}

fn line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// Whether `name` is a program on PATH.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    if name.starts_with('/') {
        return Some(name.into()).filter(|file: &std::path::PathBuf| file.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
