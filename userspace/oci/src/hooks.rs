//! Hooks in the runtime's own namespaces, and the others' words for the launcher.

use std::{
    io::Write as _,
    os::fd::AsFd as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use oci_spec::runtime as oci;
use paddock_runtime::direct::{Hook, pidfd};

use crate::error::Error;

/// A config's hooks by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

impl Hooks {
    pub(crate) fn new(hooks: Option<&oci::Hooks>) -> Result<Self, Error> {
        let Some(hooks) = hooks else {
            return Ok(Self::default());
        };
        let prestart = hooks.prestart();
        let all = |hooks: &Option<Vec<oci::Hook>>| {
            hooks
                .iter()
                .flatten()
                .map(hook)
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            prestart: all(prestart)?,
            create_runtime: all(hooks.create_runtime())?,
            create_container: all(hooks.create_container())?,
            start_container: all(hooks.start_container())?,
            poststart: all(hooks.poststart())?,
            poststop: all(hooks.poststop())?,
        })
    }
}

fn hook(hook: &oci::Hook) -> Result<Hook, Error> {
    if !hook.path().is_absolute() {
        return Err(Error::config(format!(
            "hook {}: must be an absolute path",
            hook.path().display()
        )));
    }
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
            _ => {
                return Err(Error::config(format!(
                    "hook {}: timeout {seconds} must be above 0",
                    hook.path().display()
                )));
            }
        },
    };
    Ok(Hook {
        path: hook.path().clone(),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone(),
        timeout,
    })
}

/// One after the other, each with the state on stdin; the first failure ends it.
pub(crate) fn run(
    kind: &'static str,
    hooks: &[Hook],
    bundle: &Path,
    state: &str,
) -> Result<(), Error> {
    for hook in hooks {
        one(hook, bundle, state).map_err(|why| Error::Hook {
            kind,
            path: hook.path.clone(),
            why,
        })?;
    }
    Ok(())
}

fn one(hook: &Hook, bundle: &Path, state: &str) -> Result<(), String> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    if let Some(env) = &hook.env {
        let pairs = env.iter().filter_map(|entry| entry.split_once('='));
        command.env_clear().envs(pairs);
    }
    let mut child = command
        .current_dir(bundle)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot be executed: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its stdin does not need it.
        let _ = stdin.write_all(state.as_bytes());
    }
    let on_time = wait_until_end(&child, hook.timeout);
    if !on_time {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match (on_time, status.success()) {
        (false, _) => Err(format!(
            "took longer than {} s",
            hook.timeout.unwrap_or_default().as_secs()
        )),
        (true, true) => Ok(()),
        (true, false) => Err(match status.code() {
            Some(code) => format!("failed with exit code {code}"),
            None => format!("was ended by {status}"),
        }),
    }
}

fn wait_until_end(child: &Child, limit: Option<Duration>) -> bool {
    let Some(limit) = limit else { return true };
    let Ok(pidfd) = pidfd(i32::try_from(child.id()).unwrap_or_default()) else {
        return true;
    };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, left) {
            Err(Errno::EINTR) => {}
            other => return other != Ok(0),
        }
    }
}
