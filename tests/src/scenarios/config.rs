//! An agent's configuration: which of flag, environment and file wins, what SIGHUP changes, and
//! policies that are in force from the start. Witnesses are sockets, cgroups and what is denied.

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    context::{Context, cgroup_mounts, eventually},
    metrics::Metrics,
    runner::Scenario,
};

pub const ALL: &[Scenario] = &[Scenario::new(
    "config::files_are_read_at_the_start_and_again",
    files_are_read_at_the_start_and_again,
)
.alone()];

const POLICY: &str = "name = \"quiet\"\ndeny = \"mount\"\nmode = \"audit\"\n";

/// Removed when dropped.
struct Files(PathBuf);

impl Files {
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
        let mut file = fs::File::create(&path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A cgroup that nobody knows for a container; removed when dropped.
struct Made(PathBuf);

impl Made {
    fn new(name: &str) -> Result<Self> {
        let mounts = cgroup_mounts()?;
        let v2 = mounts.iter().find(|(controllers, _)| controllers.is_none());
        let dir = v2.map_or_else(|| PathBuf::from("/sys/fs/cgroup"), |(_, dir)| dir.clone());
        let dir = dir.join(name);
        fs::create_dir(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn files_are_read_at_the_start_and_again(context: &Context) -> Result<()> {
    let files = Files(context.state.with_extension("config"));
    let policies = files.0.join("policy.d");
    files.write("policy.d/quiet.toml", POLICY)?;
    let said = |log: &str| {
        format!(
            "[agent]\nlog = \"{log}\"\n[web]\nlisten_address = \"192.0.2.1:1\"\n[policy]\ndir = \"{}\"\n",
            policies.display()
        )
    };
    let file = files.write("config.toml", &said("error"))?;
    let name = file.display().to_string();
    let pid = context.start_agent(&["--detach-on-exit", "--config", &name])?;
    let hangup = || kill(Pid::from_raw(pid), Signal::SIGHUP);

    // The flag won over the file's address, which is nobody's here.
    TcpStream::connect(context.address()?)?;
    // The file's filter holds: an agent has more to say else.
    ensure!(
        !context.agent_log().contains("INFO"),
        "{}",
        context.agent_log()
    );
    let policies_there = context.ok(&["policy", "list"])?;
    ensure!(policies_there.contains("quiet"), "{policies_there}");

    // A cgroup by a drop-in's pattern, with the log as it was.
    let pattern = format!("paddock-config-{pid}");
    let _made = Made::new(&pattern)?;
    files.write(
        "config.toml.d/10-track.toml",
        &format!("[agent]\ntrack = [\"/{pattern}\"]\nlog = \"info\"\nrequire_probe = true\n"),
    )?;
    hangup()?;
    eventually("its cgroup is found", || {
        Ok(context.ok(&["ps", "-a", "--no-trunc"])?.contains(&pattern))
    })?;
    eventually("what has to wait is named", || {
        Ok(context
            .agent_log()
            .contains("agent.require_probe changes at the agent's next start only"))
    })?;
    eventually("it logs what it logs", || {
        Ok(context.agent_log().contains("agent.track is changed"))
    })?;

    refused(context, &files, &hangup)?;
    again(context, &files, &policies, &hangup)
}

/// A file that is wrong changes nothing, and is told of by its place.
fn refused(context: &Context, files: &Files, hangup: &dyn Fn() -> nix::Result<()>) -> Result<()> {
    let wrong = files.write(
        "config.toml.d/20-wrong.toml",
        "[agent]\ntrack = []\ngaurd = 1\n",
    )?;
    hangup()?;
    eventually("the fault is told", || {
        let log = context.agent_log();
        Ok(
            log.contains(
                "20-wrong.toml:3:1: unknown key 'gaurd' in [agent]; did you mean 'guard'?",
            ),
        )
    })?;
    ensure!(
        context
            .ok(&["ps", "-a", "--no-trunc"])?
            .contains("paddock-config-"),
        "a file that is wrong took a pattern away"
    );
    fs::remove_file(wrong)?;
    Ok(())
}

/// Policy files are read again; one that cannot be in force is told of where readiness is asked.
fn again(
    context: &Context,
    files: &Files,
    policies: &Path,
    hangup: &dyn Fn() -> nix::Result<()>,
) -> Result<()> {
    let ready = || Metrics::get(&context.address()?, "/readyz");
    let before = ready()?;
    ensure!(before.starts_with("HTTP/1.1 200"), "{before}");
    files.write(
        "policy.d/broken.toml",
        "name = \"broken\"\ndeny = \"muont\"\n",
    )?;
    hangup()?;
    eventually("readiness says which file", || {
        let answer = ready()?;
        Ok(answer.starts_with("HTTP/1.1 503")
            && answer.contains("broken.toml:2:8: unknown rule 'muont'"))
    })?;
    let open = policies.join("broken.toml");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o622))?;
    hangup()?;
    eventually("a file that others can write is none", || {
        Ok(ready()?.contains("others than root can write it"))
    })?;
    fs::remove_file(open)?;
    hangup()?;
    eventually("ready again", || Ok(ready()?.starts_with("HTTP/1.1 200")))?;
    // Its file may go: what is in force stays so until somebody says otherwise.
    fs::remove_file(policies.join("quiet.toml"))?;
    hangup()?;
    context.ok(&["policy", "rm", "quiet"])?;
    Ok(())
}
