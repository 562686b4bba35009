//! `--profile hardened`: what the flags start from, and which flags can't stand beside it.
//!
//! It resolves to what flags could say, so that `inspect` shows it. A flag that chooses another
//! value for a part replaces that value; one that turns a part off is refused: what is then meant
//! can be said by flags, without the profile. What a host can't give fails the run.

use paddock_agent::{
    api::{NamespaceMode, Profile, Seccomp, Tmpfs},
    mount,
};
use paddock_cgroups::Limits;
use paddock_runtime::defaults;

use super::Recipe;
use crate::exit::{Coded, OWN_FAILURE};

/// What a server needs that starts as root: take a low port, become its own user, end workers.
const CAPABILITIES: [&str; 4] = [
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETUID",
];

/// Most processes and threads.
const PIDS: i64 = 512;

/// Where programs write that need nothing kept; in [`mount::tmpfs`]'s notation.
const SCRATCH: [&str; 2] = ["/tmp:size=64m,mode=1777", "/run:size=64m,mode=755"];

pub(super) fn parse(text: &str) -> Result<Profile, String> {
    match text {
        "default" => Ok(Profile::Default),
        "hardened" => Ok(Profile::Hardened),
        _ => Err("expected default or hardened".to_owned()),
    }
}

impl Recipe {
    pub(super) fn is_hardened(&self) -> bool {
        self.profile == Profile::Hardened
    }

    /// Refuses a flag that would take back a part of the profile.
    pub(super) fn check_profile(&self) -> Result<(), Coded> {
        let Some(flag) = self.contradiction().filter(|_| self.is_hardened()) else {
            return Ok(());
        };
        let message = format!("--profile hardened excludes {flag}: leave one of the two out");
        Err(Coded::new(OWN_FAILURE, message))
    }

    fn contradiction(&self) -> Option<&'static str> {
        let modes = self.namespaces();
        let shared = [
            (&modes.pid, "--pid"),
            (&modes.network, "--network"),
            (&modes.ipc, "--ipc"),
            (&modes.uts, "--uts"),
            (&modes.cgroup, "--cgroupns"),
        ];
        let process = &self.process;
        let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("all"));
        let user = modes.user.clone().unwrap_or(NamespaceMode::Private);
        if process.privileged {
            Some("--privileged")
        } else if all(&process.cap_add) {
            Some("--cap-add ALL")
        } else if user != NamespaceMode::Private {
            Some("--userns host and container:NAME")
        } else if !self.no_new_privileges() {
            Some("--security-opt no-new-privileges=false")
        } else if self.seccomp() == Seccomp::Unconfined {
            Some("--security-opt seccomp=unconfined")
        } else if self.limits.limits().pids.is_some_and(|pids| pids <= 0) {
            Some("--pids-limit -1")
        } else {
            let shared = shared
                .into_iter()
                .find(|(mode, _)| **mode != NamespaceMode::Private);
            shared.map(|(_, flag)| flag)
        }
    }

    pub(super) fn limits(&self) -> Limits {
        let mut limits = self.limits.limits();
        if self.is_hardened() {
            limits.pids = limits.pids.or(Some(PIDS));
        }
        limits
    }

    pub(super) fn userns_remap(&self) -> Option<String> {
        let auto = self.is_hardened().then(|| "auto".to_owned());
        self.namespaces.userns_remap.clone().or(auto)
    }

    /// The defaults that the profile has not go by name: what is then left is root's, while
    /// `--cap-add` also counts for a user who is not root.
    pub(super) fn capabilities_to_drop(&self) -> Vec<String> {
        let mut drop = self.process.cap_drop.clone();
        if self.is_hardened() {
            let number = |name: &str| defaults::capability(name).ok();
            let asked: Vec<_> = self
                .process
                .cap_add
                .iter()
                .map(|name| number(name))
                .collect();
            let gone = defaults::CAPABILITIES
                .into_iter()
                .filter(|name| !CAPABILITIES.contains(name) && !asked.contains(&number(name)));
            drop.extend(gone.map(str::to_owned));
        }
        drop
    }

    /// Its directories in memory, but for those that have something else mounted on them.
    pub(super) fn scratch(&self, own: &[Tmpfs]) -> Vec<Tmpfs> {
        let volumes = self.volumes();
        let taken = |tmpfs: &Tmpfs| {
            own.iter().any(|other| other.target == tmpfs.target)
                || volumes.iter().any(|other| other.target == tmpfs.target)
        };
        SCRATCH
            .iter()
            .filter(|_| self.is_hardened())
            .filter_map(|text| mount::tmpfs(text).ok())
            .filter(|tmpfs| !taken(tmpfs))
            .collect()
    }
}
