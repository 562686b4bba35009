//! `paddock ns enter`: nsenter for a container or a process.
//!
//! The command runs with the operator's privileges, in the operator's cgroups, under no
//! container's limits or filters: it is for looking, `paddock exec` is for running in it. Only
//! namespaces that differ are joined, the user namespace last: until then the host's root may
//! join all of them.

use std::{
    fs::{self, File},
    io,
    os::unix::{
        fs::MetadataExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    process::Command,
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sched::{CloneFlags, setns},
    sys::stat::Mode,
    unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid},
};
use serde_json::Value;

use super::{Context, TYPES, kind};
use crate::{client::container_path, exit};

/// Run a command in namespaces of a container or process, with the host's privileges
#[derive(Debug, clap::Args)]
#[command(override_usage = "paddock ns enter [--type TYPE,...] NAME|PID [COMMAND [ARG]...]")]
pub(super) struct Enter {
    /// Only these types (default: all that differ)
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = kind)]
    types: Vec<String>,
    /// A container's name or id, or a process id
    #[arg(value_name = "NAME|PID")]
    target: String,
    /// What to run (default: /bin/sh)
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Enter {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let pid = self.pid(context)?;
        // Its directory stays its own, whoever gets the number later.
        let process = File::open(format!("/proc/{pid}"))
            .with_context(|| format!("{pid}: no such process, or not visible"))?;
        let mut join = Vec::new();
        for name in TYPES {
            if self.types.is_empty() || self.types.iter().any(|one| one == name) {
                join.extend(differing(&process, name)?.map(|file| (name, file)));
            }
        }
        join.sort_by_key(|(name, _)| *name == "user");
        let user = join.iter().any(|(name, _)| *name == "user");
        let mount = join.iter().any(|(name, _)| *name == "mnt");
        for (name, file) in join {
            // 0: whatever it is.
            setns(&file, CloneFlags::empty()).map_err(|errno| failed(pid, name, errno))?;
        }
        if user {
            // A map without groups or with root left out keeps what there is.
            let _ = setgroups(&[]);
            let (gid, uid) = (Gid::from_raw(0), Uid::from_raw(0));
            let _ = setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid));
        }
        if mount {
            chdir("/").context("cannot enter its root directory")?;
        }
        Ok(self.execute())
    }

    /// A number is a process, unless a container is called so.
    fn pid(&self, context: &Context) -> anyhow::Result<i32> {
        let number = self.target.parse::<i32>().ok().filter(|pid| *pid > 0);
        let found = context
            .client()
            .and_then(|client| Ok(client.get::<Value>(&container_path(&self.target, ""))?));
        match (found, number) {
            (Ok(container), _) => match container["pid"].as_i64().map(i32::try_from) {
                Some(Ok(pid)) => Ok(pid),
                _ => bail!("{} does not run", self.target),
            },
            (Err(_), Some(pid)) => Ok(pid),
            (Err(error), None) => Err(error),
        }
    }

    /// In a child: a joined pid or time namespace is only for those.
    fn execute(&self) -> u8 {
        let program = self.command.first().map_or("/bin/sh", String::as_str);
        let mut command = Command::new(program);
        command.args(self.command.iter().skip(1)).arg0(program);
        match command.status() {
            Ok(status) => exit::from_workload(
                status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            ),
            Err(error) => {
                let code = if error.kind() == io::ErrorKind::NotFound {
                    127
                } else {
                    126
                };
                exit::note(&format!("{program}: {error} (exit {code})"));
                code
            }
        }
    }
}

/// Its namespace file where that is not ours. A kernel without the type has none to join.
fn differing(process: &File, name: &str) -> anyhow::Result<Option<File>> {
    let own = match fs::metadata(format!("/proc/self/ns/{name}")) {
        Ok(own) => own.ino(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let path = format!("ns/{name}");
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = openat(process, path.as_str(), flags, Mode::empty())
        .map(File::from)
        .with_context(|| format!("cannot open its {name} namespace"))?;
    let theirs = file.metadata()?.ino();
    Ok((theirs != own).then_some(file))
}

fn failed(pid: i32, name: &str, errno: Errno) -> anyhow::Error {
    anyhow::Error::new(errno).context(format!("cannot join the {name} namespace of {pid}"))
}
