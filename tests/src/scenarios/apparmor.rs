//! AppArmor profiles: seen on the process from outside, and tried by a write that one denies.
//!
//! The guests' kernels have it on; where a kernel has not, what a profile comes to is refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{remap::pid, rootfs::with_root};
use crate::{
    context::{Context, finish},
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[
    Scenario::new("apparmor::confines_run_and_exec", confines_run_and_exec),
    Scenario::new("apparmor::only_what_is_loaded", only_what_is_loaded),
    Scenario::new(
        "apparmor::a_false_proc_takes_no_label",
        a_false_proc_takes_no_label,
    ),
];

/// CVE-2025-52881, CVE-2019-16884: the label is written to files of a /proc that the container
/// brought.
fn a_false_proc_takes_no_label(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    if !is_on() {
        return refused_without_apparmor(context);
    }
    with_root(context, |root| {
        fs::create_dir(root.join("denied"))?;
        let mut files = Vec::new();
        for task in ["self", "thread-self", "1"] {
            for name in ["attr/exec", "attr/apparmor/exec"] {
                files.push(root.join("false").join(task).join(name));
            }
        }
        for file in &files {
            fs::create_dir_all(file.parent().context("no parent")?)?;
            fs::write(file, "untouched")?;
        }
        let profile = Profile::load(context)?;
        let option = format!("apparmor={}", profile.name);
        let path = root.display().to_string();
        let volume = format!("{path}/false:/proc");
        let run = ["run", "-d", "--name=box", "--security-opt", &option];
        let inner = ["-v", &volume, &path, "/bin/workload", "sleep", "60"];
        context.ok(&[&run[..], &inner].concat())?;
        profile.confines(pid(context, "box")?)?;
        // Refused or confined, but not as it was told by the false files.
        let exec = [
            "exec",
            "box",
            "/bin/workload",
            "write",
            "/denied/exec",
            "text",
        ];
        let output = context.paddock(&exec)?;
        ensure!(
            output.code != Some(0) && !root.join("denied/exec").exists(),
            "{output:?}"
        );
        for file in &files {
            let text = fs::read_to_string(file)?;
            ensure!(text == "untouched", "{}: {text}", file.display());
        }
        Ok(())
    })
}

/// Of a kernel built without it there is no such file.
pub(super) fn is_on() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text == "Y\n")
}

/// A profile of its own, in the kernel until it is dropped. All is allowed but writing below
/// /denied.
pub(super) struct Profile {
    pub(super) name: String,
    file: PathBuf,
}

impl Profile {
    pub(super) fn load(context: &Context) -> Result<Self> {
        let profile = Self {
            name: format!("paddock-test-{}", std::process::id()),
            file: context.state.with_extension("profile"),
        };
        let text = format!(
            "profile {} flags=(attach_disconnected,mediate_deleted) {{\n  network,\n  capability,\n  \
             file,\n  mount,\n  umount,\n  signal,\n  unix,\n  deny /denied/** w,\n}}\n",
            profile.name
        );
        fs::write(&profile.file, text)?;
        profile.parser("-r")?;
        Ok(profile)
    }

    fn parser(&self, action: &str) -> Result<()> {
        let mut parser = std::process::Command::new("apparmor_parser");
        // No cache: nothing of it is to stay.
        let output = finish(parser.args([action, "-K", "-q"]).arg(&self.file))?;
        ensure!(output.code == Some(0), "apparmor_parser: {output:?}");
        Ok(())
    }

    fn confines(&self, pid: i64) -> Result<()> {
        let own = label(pid)?;
        ensure!(own == format!("{} (enforce)", self.name), "{own}");
        Ok(())
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = self.parser("-R");
        let _ = fs::remove_file(&self.file);
    }
}

/// What the kernel confines a process by.
fn label(pid: i64) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/attr/apparmor/current"))?;
    Ok(text.trim_end().to_owned())
}

fn confines_run_and_exec(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    if !is_on() {
        return refused_without_apparmor(context);
    }
    with_root(context, |root| {
        fs::create_dir(root.join("denied"))?;
        let profile = Profile::load(context)?;
        let option = format!("apparmor={}", profile.name);
        seen_and_felt(context, root, &profile, &option)?;
        let path = root.display().to_string();
        let inner = ["/bin/workload", "sleep", "60"];
        let run = ["run", "-d", "--security-opt", &option];
        // Who reaps is paddock's own; the program is what the profile is for.
        context.ok(&[&run[..], &["--name=first", "--init", &path], &inner].concat())?;
        let init = pid(context, "first")?;
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
        profile.confines(children.trim().parse().context(children)?)?;
        let all = ["run", "-d", "--privileged", "--name=all", &path];
        context.ok(&[&all[..], &inner].concat())?;
        let own = label(pid(context, "all")?)?;
        ensure!(own == "unconfined", "{own}");
        let asked = &context.inspect("all")?["request"]["apparmor"];
        ensure!(asked == "unconfined", "{asked}");

        let create = ["create", "--name=late", "--security-opt", &option, &path];
        context.ok(&[&create[..], &inner].concat())?;
        let name = profile.name.clone();
        drop(profile);
        let words = ["late", &name, "not loaded", "apparmor_parser -r"];
        let output = context.paddock(&["start", "late"])?;
        let said = output.stderr.trim();
        ensure!(
            output.code == Some(1)
                && said.lines().count() == 1
                && words.iter().all(|word| said.contains(word)),
            "{output:?}"
        );
        Ok(())
    })
}

/// The denied write is EACCES for the container's program and for an exec's, and for nobody else.
fn seen_and_felt(context: &Context, root: &Path, profile: &Profile, option: &str) -> Result<()> {
    let path = root.display().to_string();
    let run = ["run", "-d", "--name=box", "--security-opt", option, &path];
    context.ok(&[&run[..], &["/bin/workload", "sleep", "60"]].concat())?;
    profile.confines(pid(context, "box")?)?;
    let asked = &context.inspect("box")?["request"]["apparmor"];
    ensure!(asked == profile.name.as_str(), "{asked}");
    let write = |target| ["/bin/workload", "write", target, "text"];
    let free = ["run", "--rm", &path];
    let confined = ["run", "--rm", "--security-opt", option, &path];
    let exec = ["exec", "box"];
    for (command, target) in [(&confined[..], "/denied/run"), (&exec, "/denied/exec")] {
        let output = context.paddock(&[command, &write(target)].concat())?;
        ensure!(
            output.code == Some(1) && output.stderr.contains("(os error 13)"),
            "{output:?}"
        );
        ensure!(!root.join(&target[1..]).exists(), "{target} was written");
    }
    for (command, target) in [(&free[..], "/denied/free"), (&exec, "/allowed")] {
        context.ok(&[command, &write(target)].concat())?;
        ensure!(fs::read_to_string(root.join(&target[1..]))? == "text");
    }
    Ok(())
}

const HOST: [&str; 2] = ["host", "true"];

fn refused_without_apparmor(context: &Context) -> Result<()> {
    let run = ["run", "--name=none", "--security-opt=apparmor=web"];
    let output = context.paddock(&[&run[..], &HOST].concat())?;
    let line = "paddock: apparmor profile 'web': AppArmor is not on in this kernel \
        (/sys/module/apparmor/parameters/enabled is not Y): leave it out, or boot with it\n";
    ensure!(
        output.code == Some(125) && output.stderr == line,
        "{output:?}"
    );
    // Nobody is confined there, so these can be had.
    for flag in ["--security-opt=apparmor=unconfined", "--privileged"] {
        context.ok(&[&["run", "--rm", flag][..], &HOST].concat())?;
    }
    nothing_is_made(context)
}

fn only_what_is_loaded(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let long = format!("apparmor={}", "x".repeat(10_000));
    let unknown = if is_on() {
        "not loaded in this kernel: load it by `apparmor_parser -r FILE`"
    } else {
        "AppArmor is not on in this kernel"
    };
    for (option, words) in [
        ("apparmor=paddock-no-such-profile", unknown),
        // The kernel would trim it and find another.
        ("apparmor= unconfined", "no name of a profile"),
        ("apparmor=a\nunconfined", "no name of a profile"),
        (&long, "1 to 1024 characters"),
        ("apparmor=", "apparmor=PROFILE|unconfined"),
    ] {
        for verb in ["run", "create"] {
            let args = [verb, "--name=none", "--security-opt", option];
            let output = context.paddock(&[&args[..], &HOST].concat())?;
            let said = output.stderr.trim();
            ensure!(
                output.code == Some(125) && said.len() < 400 && said.contains(words),
                "{output:?}"
            );
        }
    }
    nothing_is_made(context)
}

fn nothing_is_made(context: &Context) -> Result<()> {
    let rows = context.ok(&["ps", "-a", "-q"])?;
    ensure!(rows.is_empty(), "{rows}");
    let directory = context.state.join("containers");
    let left = fs::read_dir(&directory).map_or(0, Iterator::count);
    ensure!(left == 0, "{left} in {}", directory.display());
    Ok(())
}
