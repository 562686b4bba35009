//! `linux.seccomp`: the bundle's profile, compiled for this machine.

use std::path::PathBuf;

use nix::sys::utsname::uname;
use oci_spec::runtime::{Linux, LinuxSeccomp, LinuxSeccompAction, Process};
use paddock_seccomp::{Arch, Filter, Host, Profile};

use serde_json::{Value, json};

use crate::error::Error;

/// Who is asked about calls (`SCMP_ACT_NOTIFY`), and what it is told of the container.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub path: PathBuf,
    pub metadata: Option<String>,
}

/// No filter: the bundle has no profile. A listener is only of a filter that asks one.
pub(crate) fn seccomp(
    linux: &Linux,
    process: &Process,
) -> Result<(Option<Filter>, Option<Listener>), Error> {
    let Some(words) = linux.seccomp() else {
        return Ok((None, None));
    };
    let wrong = |what: &dyn std::fmt::Display| Error::config(format!("linux.seccomp: {what}"));
    let text = serde_json::to_string(words).map_err(|error| wrong(&error))?;
    let bounding = process
        .capabilities()
        .as_ref()
        .and_then(|sets| sets.bounding().as_ref());
    let capabilities: Vec<_> = bounding
        .into_iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    let host = Host {
        arch: Arch::native().ok_or_else(|| wrong(&"not on this machine's architecture"))?,
        kernel: kernel(),
        capabilities: &capabilities,
    };
    let filter = Profile::parse(&text)
        .and_then(|profile| profile.compile(&host))
        .map_err(|error| wrong(&error))?;
    let listener = filter.notifies.then(|| listener(words)).transpose()?;
    Ok((Some(filter), listener))
}

fn listener(words: &LinuxSeccomp) -> Result<Listener, Error> {
    let path = words.listener_path().clone();
    let Some(path) = path.filter(|path| path.is_absolute()) else {
        return Err(Error::config(
            "linux.seccomp.listenerPath: SCMP_ACT_NOTIFY needs the absolute path of a listener's socket",
        ));
    };
    let asks_about_write = words.syscalls().iter().flatten().any(|call| {
        call.action() == LinuxSeccompAction::ScmpActNotify
            && call.names().iter().any(|name| name == "write")
    });
    if asks_about_write {
        return Err(Error::config(
            "linux.seccomp: SCMP_ACT_NOTIFY on write: by that call the listener is handed over",
        ));
    }
    Ok(Listener {
        path,
        metadata: words.listener_metadata().clone(),
    })
}

impl Listener {
    /// The specification's container process state.
    pub(crate) fn process_state(&self, pid: i32, container: &Value) -> String {
        let mut state = json!({
            "ociVersion": container["ociVersion"],
            "fds": ["seccompFd"],
            "pid": pid,
            "state": container,
        });
        if let Some(metadata) = &self.metadata {
            state["metadata"] = json!(metadata);
        }
        state.to_string()
    }
}

/// Version and patch level; 0.0 where the name is none of Linux'.
fn kernel() -> (u32, u32) {
    let version = || {
        let name = uname().ok()?;
        let mut parts = name.release().to_str()?.split(['.', '-']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    version().unwrap_or_default()
}
