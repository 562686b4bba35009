//! `exec`: one more process in a running container.

use std::{fs::File, os::fd::AsFd as _, path::Path};

use oci_spec::runtime as oci;
use paddock_runtime::{
    direct::{self, Request},
    spec::{ExecSpec, Propagation, Target},
};

use super::{
    create::{check_console, check_scheduler, name_program, write_pid},
    foreground,
};
use crate::{
    args::Exec,
    config::{self, shorten},
    console,
    container::{self, Container, Status},
    error::Error,
    translate,
};

pub(super) fn verb(root: &Path, wanted: &Exec) -> Result<u8, Error> {
    let container = Container::open(root, &wanted.id)?;
    let status = container.status();
    let allowed = match status {
        Status::Running | Status::Created => true,
        Status::Paused => wanted.ignore_paused,
        Status::Creating | Status::Stopped => false,
    };
    if !allowed {
        return Err(Error::Status {
            verb: "exec in",
            id: wanted.id.clone(),
            status: status.word(),
        });
    }
    let words = words(wanted, &container)?;
    let inside = format!("/proc/{}/root", container.record.pid);
    let directory = File::open(&inside).map_err(Error::io("open", &inside))?;
    let config = container.config()?;
    let ((filter, listener), memory_policy) = match config.linux() {
        Some(linux) => (
            translate::seccomp(linux, &words)?,
            translate::memory_policy(linux)?,
        ),
        None => ((None, None), None),
    };
    let process = translate::process(&words, &directory, filter)?;
    drop(directory);
    check_console(&process, wanted.console_socket.as_deref(), !wanted.detach)?;
    let target = Target::Exec(ExecSpec {
        pid: container.record.pid,
        start_time: container.record.start_time,
        cgroup: container.record.cgroup.clone().unwrap_or_default(),
        types: Vec::new(),
    });
    let cgroup = container.record.open_cgroup()?;
    let scheduler = translate::scheduler(&words)?;
    if let Some(cgroup) = &cgroup {
        check_scheduler(cgroup, scheduler)?;
    }
    let state = container::state(&container.record, status);
    // A long exec must not keep others from the container.
    drop(container);
    let mut signals = if wanted.detach {
        None
    } else {
        Some(foreground::Signals::hold()?)
    };
    let request = Request {
        process: &process,
        target: &target,
        cgroup: cgroup.as_ref(),
        preserved: wanted.preserve_fds,
        new_keyring: false,
        start: None,
        create_container: &[],
        start_container: &[],
        hook_directory: Path::new("/"),
        own_devices: false,
        propagation: (Propagation::Private, true),
        window: None,
        io_priority: translate::io_priority(&words)?,
        scheduler,
        memory_policy: memory_policy.as_ref(),
        listener: listener.as_ref().map(|listener| listener.path.as_path()),
        time_offsets: &[],
    };
    let launched = direct::launch(&request, |pid, _| {
        let process = listener
            .as_ref()
            .map(|listener| listener.process_state(pid, &state));
        Ok::<_, Error>(direct::States {
            process: process.unwrap_or_default(),
            ..direct::States::default()
        })
    })
    .map_err(|error| name_program(error, &process))?;
    let hand_over = || {
        if let (Some(socket), Some(master)) = (&wanted.console_socket, &launched.terminal) {
            console::send(socket, master.as_fd())?;
        }
        match &wanted.pid_file {
            Some(path) => write_pid(path, launched.pid()),
            None => Ok(()),
        }
    };
    if let Err(error) = hand_over() {
        launched.kill();
        return Err(error);
    }
    match &mut signals {
        Some(signals) => foreground::wait(&launched, signals),
        None => Ok(0),
    }
}

/// From a file, or the container's own process with what the command line changes.
fn words(wanted: &Exec, container: &Container) -> Result<oci::Process, Error> {
    if let Some(path) = &wanted.process {
        let (mut process, _): (oci::Process, _) = config::read(path)?;
        if wanted.tty {
            process.set_terminal(Some(true));
        }
        return Ok(process);
    }
    if wanted.args.is_empty() {
        return Err(Error::usage("exec: a command is needed, or --process"));
    }
    let config = container.config()?;
    let mut process = config.process().clone().unwrap_or_default();
    process.set_args(Some(wanted.args.clone()));
    process.set_terminal(Some(wanted.tty));
    if let Some(cwd) = &wanted.cwd {
        process.set_cwd(cwd.clone());
    }
    if let Some(profile) = &wanted.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &wanted.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if wanted.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    let mut env = process.env().clone().unwrap_or_default();
    for entry in &wanted.env {
        let key = entry.split('=').next().unwrap_or_default();
        env.retain(|old| old.split('=').next() != Some(key));
        env.push(entry.clone());
    }
    process.set_env(Some(env));
    if let Some(user) = &wanted.user {
        let (uid, gid) = user_of(user)?;
        let mut changed = oci::User::default();
        changed.set_uid(uid);
        changed.set_gid(gid);
        process.set_user(changed);
    }
    if !wanted.additional_gids.is_empty() {
        let gids = wanted.additional_gids.clone();
        process.user_mut().set_additional_gids(Some(gids));
    }
    add_capabilities(&mut process, &wanted.cap)?;
    Ok(process)
}

/// Numbers only: a name could be anything inside (CVE-2026-30892).
fn user_of(text: &str) -> Result<(u32, u32), Error> {
    let number = |part: &str| {
        part.parse::<u32>().map_err(|_| {
            Error::usage(format!(
                "--user {:?}: numbers are needed, UID or UID:GID",
                shorten(text)
            ))
        })
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, number(gid)?)),
        None => Ok((number(text)?, 0)),
    }
}

fn add_capabilities(process: &mut oci::Process, names: &[String]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let added = names
        .iter()
        .map(|name| {
            serde_json::from_value::<oci::Capability>(name.as_str().into())
                .map_err(|_| Error::usage(format!("--cap {:?}: unknown", shorten(name))))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut sets: oci::LinuxCapabilities = process
        .capabilities()
        .clone()
        .unwrap_or_else(no_capabilities);
    let with = |set: &Option<oci::Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(added.iter().copied());
        Some(set)
    };
    let (bounding, effective, permitted) = (
        with(sets.bounding()),
        with(sets.effective()),
        with(sets.permitted()),
    );
    sets.set_bounding(bounding);
    sets.set_effective(effective);
    sets.set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}

fn no_capabilities() -> oci::LinuxCapabilities {
    let mut sets = oci::LinuxCapabilities::default();
    let none = || Some(oci::Capabilities::new());
    sets.set_bounding(none());
    sets.set_effective(none());
    sets.set_permitted(none());
    sets.set_inheritable(none());
    sets.set_ambient(none());
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert_eq!(user_of("7").unwrap(), (7, 0));
        assert_eq!(user_of("7:8").unwrap(), (7, 8));
        for text in ["", "root", "7:", ":7", "-1", "4294967296", "7:8:9", " 7"] {
            assert!(user_of(text).is_err(), "{text}");
        }
    }
}
