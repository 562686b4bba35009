//! `process`: the same for a container's first one and for `exec`.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use oci_spec::runtime as oci;
use paddock_runtime::{
    apparmor,
    spec::{Capabilities, Label, Process, Rlimit, User},
};
use paddock_seccomp::Filter;

use crate::{config::shorten, error::Error};

/// `root` is the container's, for the user's home.
pub(crate) fn process(
    words: &oci::Process,
    root: &File,
    seccomp: Option<Filter>,
) -> Result<Process, Error> {
    let args = words.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::config(
            "process.args: at least the program's name is needed",
        ));
    }
    if words.exec_cpu_affinity().is_some() {
        return Err(Error::config("process.execCPUAffinity is not supported"));
    }
    let cwd = match words.cwd().to_str() {
        Some("") => "/".to_owned(),
        Some(path) if path.starts_with('/') => path.to_owned(),
        _ => {
            return Err(Error::config(format!(
                "process.cwd {:?}: must be absolute",
                shorten(&words.cwd().to_string_lossy())
            )));
        }
    };
    let user = words.user();
    let mut env = words.env().clone().unwrap_or_default();
    if let Some(entry) = env.iter().find(|entry| !entry.contains('=')) {
        return Err(Error::config(format!(
            "process.env {:?}: must be KEY=VALUE",
            shorten(entry)
        )));
    }
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", home(root, user.uid())));
    }
    Ok(Process {
        args,
        env,
        cwd,
        terminal: words.terminal().unwrap_or(false),
        stdin: false,
        user: User {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
        },
        capabilities: capabilities(words.capabilities().as_ref()),
        no_new_privileges: words.no_new_privileges().unwrap_or(false),
        rlimits: rlimits(words)?,
        oom_score_adj: Some(words.oom_score_adj().unwrap_or_else(own_oom_score)),
        account: None,
        seccomp,
        labels: labels(words)?,
    })
}

/// Refused where the module is not there: a label that nobody enforces protects nobody.
fn labels(words: &oci::Process) -> Result<Vec<Label>, Error> {
    let text = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    let mut labels = Vec::new();
    if let Some(profile) = text(words.apparmor_profile()) {
        apparmor::check_name(&profile)
            .map_err(|error| Error::config(format!("process.apparmorProfile: {error}")))?;
        if apparmor::is_enabled() {
            labels.push(Label::AppArmor(profile));
        } else if profile != apparmor::UNCONFINED {
            return Err(Error::config(format!(
                "process.apparmorProfile {:?}: this kernel has no AppArmor enabled",
                shorten(&profile)
            )));
        }
    }
    if let Some(label) = text(words.selinux_label()) {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(Error::config(format!(
                "process.selinuxLabel {:?}: this kernel has no SELinux enabled",
                shorten(&label)
            )));
        }
        labels.push(Label::SeLinux(label));
    }
    Ok(labels)
}

fn capabilities(sets: Option<&oci::LinuxCapabilities>) -> Capabilities {
    let names = |set: &Option<oci::Capabilities>| {
        let mut names: Vec<String> = set
            .iter()
            .flatten()
            .map(|name| format!("CAP_{}", name.to_string().trim_start_matches("CAP_")))
            .collect();
        names.sort();
        names
    };
    sets.map_or_else(Capabilities::default, |sets| Capabilities {
        bounding: names(sets.bounding()),
        permitted: names(sets.permitted()),
        effective: names(sets.effective()),
        inheritable: names(sets.inheritable()),
        ambient: names(sets.ambient()),
    })
}

fn rlimits(words: &oci::Process) -> Result<Vec<Rlimit>, Error> {
    let mut found: Vec<Rlimit> = Vec::new();
    for limit in words.rlimits().iter().flatten() {
        let name = limit.typ().to_string();
        if found.iter().any(|one| one.name == name) {
            return Err(Error::config(format!(
                "process.rlimits: {name} is there twice"
            )));
        }
        if limit.soft() > limit.hard() {
            return Err(Error::config(format!(
                "process.rlimits {name}: the soft limit is above the hard one"
            )));
        }
        found.push(Rlimit {
            name,
            soft: limit.soft(),
            hard: limit.hard(),
        });
    }
    Ok(found)
}

/// Not told means not changed.
fn own_oom_score() -> i32 {
    fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// From the container's /etc/passwd, opened inside its root; `/` for who is not in it.
fn home(root: &File, uid: u32) -> String {
    /// Beyond it, it is no passwd file.
    const LIMIT: u64 = 1 << 20;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut text = String::new();
    let read = openat2(root, "etc/passwd", how)
        .map(File::from)
        .is_ok_and(|file| {
            file.metadata().is_ok_and(|found| found.is_file())
                && file.take(LIMIT).read_to_string(&mut text).is_ok()
        });
    let fallback = if uid == 0 { "/root" } else { "/" };
    if !read {
        return fallback.to_owned();
    }
    text.lines()
        .find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let own = fields.get(2)?.parse() == Ok(uid);
            let home = fields.get(5).filter(|home| home.starts_with('/'))?;
            own.then(|| (*home).to_owned())
        })
        .unwrap_or_else(|| fallback.to_owned())
}
