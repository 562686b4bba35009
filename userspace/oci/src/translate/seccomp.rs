//! `linux.seccomp`: the bundle's profile, compiled for this machine.

use nix::sys::utsname::uname;
use oci_spec::runtime::{Linux, Process};
use paddock_seccomp::{Arch, Filter, Host, Profile};

use crate::error::Error;

/// `None`: the bundle has no profile. One that asks for a listener is refused: nobody here
/// would answer it.
pub(crate) fn seccomp(linux: &Linux, process: &Process) -> Result<Option<Filter>, Error> {
    let Some(words) = linux.seccomp() else {
        return Ok(None);
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
    if filter.notifies {
        return Err(wrong(&"SCMP_ACT_NOTIFY is not supported"));
    }
    Ok(Some(filter))
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
