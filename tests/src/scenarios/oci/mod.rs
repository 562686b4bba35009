//! `paddock oci`: an OCI runtime's verbs on bundles made here.

pub mod apparmor;
pub mod found;
pub mod hooks;
pub mod hostile;
pub mod inside;
pub mod listener;
pub mod memory_policy;
pub mod net_devices;
pub mod podman;
pub mod scheduler;
pub mod verbs;
pub mod without_cgroups;

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    bundle::{busybox, config},
    context::{Context, Output, finish},
};

/// A bundle in a directory of its own, with busybox as its root, and a runtime's state.
struct Bundle<'a> {
    context: &'a Context,
    path: PathBuf,
    /// Of the runtime, where it is not the test's own.
    network: Option<String>,
}

impl<'a> Bundle<'a> {
    fn new(context: &'a Context, config: &Value) -> Result<Self> {
        let path = context.state.with_extension("bundle");
        let root = path.join("rootfs");
        for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::copy(busybox()?, root.join("bin/busybox"))?;
        fs::copy(&context.workload, root.join("bin/workload"))?;
        for applet in [
            "cat", "echo", "env", "false", "head", "id", "ls", "mount", "ps", "readlink", "sh",
            "sleep", "stat", "test", "touch", "true", "tty",
        ] {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/home/of/root:/bin/sh\n",
        )?;
        let bundle = Self {
            context,
            path,
            network: None,
        };
        bundle.write(config)?;
        Ok(bundle)
    }

    fn write(&self, config: &Value) -> Result<()> {
        Ok(fs::write(
            self.path.join("config.json"),
            config.to_string(),
        )?)
    }

    fn states(&self) -> PathBuf {
        self.context.state.with_extension("oci")
    }

    fn command(&self, args: &[&str]) -> Command {
        let bin = &self.context.bin;
        let mut command = match &self.network {
            Some(namespace) => entering(namespace, bin),
            None => Command::new(bin),
        };
        command
            .args(["oci", "--root"])
            .arg(self.states())
            .args(args)
            .current_dir(&self.path)
            .stdin(Stdio::null());
        command
    }

    fn oci(&self, args: &[&str]) -> Result<Output> {
        finish(&mut self.command(args))
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.oci(args)?;
        ensure!(output.code == Some(0), "oci {}: {output:?}", args.join(" "));
        Ok(output.stdout)
    }

    /// `create`, whose container keeps the caller's stdio: files, not pipes that would stay open.
    fn create(&self, id: &str) -> Result<()> {
        let status = self
            .command(&["create", id])
            .stdout(File::create(self.path.join("out"))?)
            .stderr(File::create(self.path.join("err"))?)
            .status()?;
        ensure!(status.success(), "create: {status}: {}", self.read("err")?);
        Ok(())
    }

    fn start(&self, id: &str) -> Result<()> {
        self.create(id)?;
        self.ok(&["start", id]).map(drop)
    }

    fn read(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.path.join(name))?)
    }

    fn state(&self, id: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok(&["state", id])?)?)
    }

    fn is(&self, id: &str, status: &str) -> Result<bool> {
        Ok(self.state(id)?["status"] == status)
    }

    fn pid(&self, id: &str) -> Result<i64> {
        self.state(id)?["pid"].as_i64().context("no pid")
    }

    /// The failure is one line that has these words, and leaves no container.
    fn refused(&self, args: &[&str], words: &[&str]) -> Result<()> {
        let output = self.oci(args)?;
        let said = output.stderr.trim_end();
        ensure!(
            output.code == Some(1)
                && said.lines().count() == 1
                && said.len() < 1000
                && words.iter().all(|word| said.contains(word)),
            "{words:?}: {output:?}"
        );
        self.empty()
    }

    /// No state is left.
    fn empty(&self) -> Result<()> {
        let left: Vec<_> = fs::read_dir(self.states())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    }
}

/// A program in a network namespace.
fn entering(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("-n{namespace}")).arg(program);
    command
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.states()).into_iter().flatten().flatten() {
            if let Some(id) = entry.file_name().to_str() {
                let _ = self.oci(&["delete", "--force", id]);
            }
        }
        let _ = fs::remove_dir_all(self.states());
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Bundle<'_> {
    /// As `refused`, with containers that stay.
    fn refused_in_place(&self, args: &[&str], word: &str) -> Result<()> {
        let output = self.oci(args)?;
        let said = output.stderr.trim_end();
        ensure!(
            output.code == Some(1) && said.lines().count() == 1 && said.contains(word),
            "{args:?}: {output:?}"
        );
        Ok(())
    }
}
