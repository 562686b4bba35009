//! `cargo xtask verifier`: what the verifier of each kernel takes for each program of the object.
//!
//! Loads every program by itself, on this machine and in guests, by `paddock check --programs`,
//! and compares with `tests/verifier.toml`; with `--update` writes that file. A scenario compares
//! with the same file, so an update goes with the change that made it.

use std::{collections::BTreeMap, fmt::Write as _, fs, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    build,
    cmd::{self, step},
    setup::{self, Purpose},
    test,
    tree::Tree,
    vm::{self, initramfs::Contents, qemu::Machine},
};

const FILE: &str = "tests/verifier.toml";
const HEAD: &str = "\
# What the verifier of each kernel takes for each program of the kernel half, loaded by itself:
# the instructions it walks through (before Linux 5.16 those of the program as it is kept), or why
# it is not loaded. Written by `cargo xtask verifier --update`; compared by
# portability::verifier_takes_what_it_took: to the digit for the same compiler and release.
";
const CHECK: &str = "check --programs --format json";

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Write what was found into tests/verifier.toml
    #[arg(long)]
    update: bool,
    /// Only this machine's kernel
    #[arg(long)]
    host: bool,
    /// Only a guest with this kernel series (6.1, newest, …), or all five
    #[arg(long = "vm", value_name = "VERSION")]
    guests: Vec<String>,
}

/// As `paddock check --programs` says it.
#[derive(Debug, Deserialize)]
struct Verified {
    program: String,
    steps: Option<u64>,
    instructions: Option<u64>,
    errno: Option<String>,
    reason: Option<String>,
}

/// The lines of each section, by its name.
type Sections = BTreeMap<String, String>;

pub(crate) fn main(tree: &Tree, args: &Args) -> Result<i32> {
    if !setup::is_root() {
        bail!("needs root, since kernel programs do: sudo -E cargo xtask verifier");
    }
    let toolchain = setup::prepare(tree, Purpose::Test)?;
    build::all(tree, &toolchain)?;
    let everywhere = !args.host && args.guests.is_empty();
    let mut found = Sections::new();
    if args.host || everywhere {
        step("this machine");
        let text = cmd::output(Command::new(tree.binary("paddock")).args(CHECK.split(' ')))?;
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("kernel release")?;
        let (name, lines) = section("host-", release.trim(), &text)?;
        found.insert(name, lines);
    }
    let guests = test::series(&args.guests, everywhere.then_some(&test::ALL));
    for pair in guests.chunks(test::AT_ONCE) {
        let ended: Vec<_> = thread::scope(|scope| {
            let started: Vec<_> = pair
                .iter()
                .map(|series| scope.spawn(|| guest(tree, series)))
                .collect();
            started
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        for one in ended {
            let (name, lines) = one.ok().context("a guest's thread panicked")??;
            found.insert(name, lines);
        }
    }
    let path = tree.root.join(FILE);
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let kept = sections(&kept);
    if args.update {
        let mut all = kept;
        all.extend(found);
        fs::write(&path, file(&toolchain.version()?, &all))
            .with_context(|| format!("write {}", path.display()))?;
        step(&format!("{FILE} is written"));
        return Ok(0);
    }
    let different = differences(&kept, &found);
    print!("{different}");
    Ok(i32::from(!different.is_empty()))
}

fn guest(tree: &Tree, series: &str) -> Result<(String, String)> {
    let contents = Contents {
        command: Some(format!("uname -r\nexec paddock {CHECK}\n")),
        ..Contents::default()
    };
    let machine = Machine {
        timeout: Duration::from_mins(5),
        memory_mib: 1024,
        deterministic: false,
        interactive: false,
        quiet: true,
        label: String::new(),
    };
    let ended = vm::boot(tree, series, &contents, &machine)?;
    ensure!(ended.code()? == 0, "Linux {series}: {}", ended.output);
    let (release, text) = ended.output.split_once('\n').context("no release")?;
    section("", release, text)
}

/// Its name and its lines.
fn section(prefix: &str, release: &str, text: &str) -> Result<(String, String)> {
    let all: Vec<Verified> =
        serde_json::from_str(text).with_context(|| format!("Linux {release}: no list: {text}"))?;
    let mut numbers = release.splitn(3, '.');
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        bail!("kernel release {release:?}");
    };
    let name = format!("{prefix}{major}.{minor}");
    let mut lines = format!("[{name:?}]\nrelease = {release:?}\n\n[{name:?}.programs]\n");
    for one in &all {
        let count = one.steps.or(one.instructions);
        let told = count.map_or_else(|| format!("{:?}", why_not(one)), |count| count.to_string());
        let _ = writeln!(lines, "{} = {told}", one.program);
    }
    Ok((name, lines))
}

fn why_not(one: &Verified) -> String {
    let reason = one.reason.as_deref().unwrap_or("unknown");
    match &one.errno {
        Some(errno) => format!("{errno}: {reason}"),
        None => reason.to_owned(),
    }
}

/// The file apart again, each section by its name as it was written.
fn sections(text: &str) -> Sections {
    let mut all = Sections::new();
    let mut current = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line
            .strip_prefix("[\"")
            .and_then(|rest| rest.strip_suffix("\"]"));
        if name.is_some() {
            current = name;
        }
        if let Some(name) = current {
            let lines: &mut String = all.entry(name.to_owned()).or_default();
            lines.push_str(line);
            lines.push('\n');
        }
    }
    for lines in all.values_mut() {
        let whole = lines.trim_end().len();
        lines.truncate(whole);
        lines.push('\n');
    }
    all
}

/// Kernels in the order of their numbers, this machine's last.
fn file(compiler: &str, all: &Sections) -> String {
    let mut names: Vec<&String> = all.keys().collect();
    names.sort_by_key(|name| {
        let numbers: Vec<u32> = name
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect();
        (name.starts_with("host"), numbers)
    });
    let head = format!("{HEAD}\ncompiler = {compiler:?}\n");
    names.into_iter().fold(head, |mut text, name| {
        text.push('\n');
        text.push_str(&all[name]);
        text
    })
}

/// Lines of one and not of the other, by section.
fn differences(kept: &Sections, found: &Sections) -> String {
    let mut text = String::new();
    for (name, lines) in found {
        let old: Vec<&str> = kept
            .get(name)
            .map(|old| old.lines().collect())
            .unwrap_or_default();
        let new: Vec<&str> = lines.lines().collect();
        for line in old.iter().filter(|line| !new.contains(line)) {
            let _ = writeln!(text, "{name}: -{line}");
        }
        for line in new.iter().filter(|line| !old.contains(line)) {
            let _ = writeln!(text, "{name}: +{line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let text = r#"[{"program":"a","steps":7,"instructions":5,"errno":null,"reason":null},
            {"program":"b","steps":null,"instructions":null,"errno":"EPERM","reason":"load: \"no\""}]"#;
        let mut all = Sections::new();
        for (prefix, release) in [("host-", "6.18.5"), ("", "6.1.0-50"), ("", "5.10.0-1")] {
            let (name, lines) = section(prefix, release, text).unwrap();
            all.insert(name, lines);
        }
        let written = file("rustc 1", &all);
        assert_eq!(sections(&written), all);
        let order: Vec<_> = written
            .lines()
            .filter(|line| line.ends_with("\"]"))
            .collect();
        assert_eq!(order, ["[\"5.10\"]", "[\"6.1\"]", "[\"host-6.18\"]"]);
        assert!(written.contains("a = 7\nb = \"EPERM: load: \\\"no\\\"\"\n"));
        let mut other = all.clone();
        if let Some(lines) = other.get_mut("6.1") {
            *lines = lines.replace("a = 7", "a = 8");
        }
        assert_eq!(differences(&all, &other), "6.1: -a = 7\n6.1: +a = 8\n");
    }
}
