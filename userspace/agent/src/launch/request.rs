//! From a client's request to what a monitor is given: checked, with docker's defaults.

use std::path::{Path, PathBuf};

use paddock_runtime::{
    defaults,
    spec::{
        Capabilities, ContainerSpec, ExecSpec, IdMaps, LaunchSpec, Mount, MountSource, Process,
        Propagation, Rootfs, Target, User,
    },
};

use super::{Error, sharing::Sharing};
use crate::{
    api::{CreateRequest, ExecRequest, NamespaceMode, Root, Volume},
    naming,
};

/// Refuses what could not work, before anything is made.
pub(super) fn check(request: &CreateRequest) -> Result<(), Error> {
    if let Some(name) = &request.name
        && !naming::is_valid(name)
    {
        let shown: String = name
            .chars()
            .take(40)
            .flat_map(char::escape_default)
            .collect();
        return Err(Error::invalid(format!(
            "name '{shown}': expected a letter or digit, then letters, digits, '_', '.' or '-', at most 128"
        )));
    }
    if request.hostname.is_some() && request.namespaces.uts != NamespaceMode::Private {
        return Err(Error::invalid(
            "hostname: needs a UTS namespace of its own (--uts private)",
        ));
    }
    if let Some(hostname) = &request.hostname
        && (hostname.is_empty() || hostname.len() > 64)
    {
        return Err(Error::invalid("hostname: expected 1 to 64 characters"));
    }
    if let Root::Directory(path) = &request.rootfs {
        let found = std::fs::metadata(path).map_err(|error| {
            Error::invalid(format!(
                "root file system {}: {}",
                path.display(),
                reason(&error)
            ))
        })?;
        if !found.is_dir() {
            return Err(Error::invalid(format!(
                "root file system {}: not a directory",
                path.display()
            )));
        }
    }
    for volume in &request.volumes {
        if !volume.target.is_absolute() {
            return Err(Error::invalid(format!(
                "volume target {}: expected an absolute path",
                volume.target.display()
            )));
        }
        exists(&volume.source)?;
    }
    capabilities(request).map(drop)
}

fn exists(source: &Path) -> Result<(), Error> {
    std::fs::symlink_metadata(source)
        .map(drop)
        .map_err(|error| {
            Error::invalid(format!(
                "volume source {}: {}",
                source.display(),
                reason(&error)
            ))
        })
}

/// The kernel's words, without the number.
fn reason(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |code| nix::errno::Errno::from_raw(code).desc().to_owned(),
    )
}

pub(super) fn check_args(args: &[String]) -> Result<(), Error> {
    match args.first() {
        None => Err(Error::invalid("no command to run")),
        Some(program) if program.is_empty() => Err(Error::invalid("the command's name is empty")),
        Some(_) if args.iter().any(|arg| arg.contains('\0')) => {
            Err(Error::invalid("an argument has a NUL byte"))
        }
        Some(_) => Ok(()),
    }
}

fn capabilities(request: &CreateRequest) -> Result<Vec<String>, Error> {
    defaults::capabilities(&request.cap_add, &request.cap_drop)
        .map_err(|error| Error::invalid(error.to_string()))
}

fn volume(volume: &Volume) -> Mount {
    let source = MountSource::Bind {
        path: volume.source.clone(),
        recursive: true,
    };
    Mount {
        target: volume.target.clone(),
        source,
        set: if volume.read_only {
            defaults::READ_ONLY_MOUNT
        } else {
            0
        },
        clear: 0,
        recursive: true,
        propagation: Propagation::Private,
        follow: true,
    }
}

pub(super) fn container_spec(
    id: &str,
    dir: &Path,
    cgroup: &str,
    rootfs: Rootfs,
    request: &CreateRequest,
    sharing: Sharing,
) -> Result<LaunchSpec, Error> {
    let hostname = request
        .hostname
        .clone()
        .unwrap_or_else(|| id[..12.min(id.len())].to_owned());
    let process = Process {
        args: request.args.clone(),
        env: environment(&hostname, request.terminal, &request.env),
        cwd: request.cwd.clone().unwrap_or_else(|| "/".to_owned()),
        terminal: request.terminal,
        stdin: request.stdin,
        user: User::default(),
        capabilities: Capabilities::of_root(capabilities(request)?),
        no_new_privileges: request.no_new_privileges,
        rlimits: request.rlimits.clone(),
        oom_score_adj: request.oom_score_adj,
    };
    let namespaces = sharing.namespaces;
    let mut mounts = defaults::mounts(&namespaces, defaults::SHM_SIZE);
    mounts.extend(sharing.shm);
    mounts.extend(request.volumes.iter().map(volume));
    let mut masked_paths = defaults::masked_paths();
    if rootfs == Rootfs::Host {
        masked_paths.extend(state_directory(dir));
    }
    let target = Target::Container(Box::new(ContainerSpec {
        rootfs,
        read_only: request.read_only,
        init: request.init,
        hostname: namespaces.uts.is_new().then_some(hostname),
        domainname: None,
        cgroup: cgroup.to_owned(),
        namespaces,
        id_maps: sharing.id_maps.unwrap_or_else(IdMaps::identity),
        mounts,
        devices: Vec::new(),
        masked_paths,
        read_only_paths: defaults::read_only_paths(),
        sysctls: Vec::new(),
    }));
    Ok(LaunchSpec {
        id: id.to_owned(),
        dir: dir.to_owned(),
        process,
        target,
    })
}

/// It shows through the host's root: sockets and other containers' environments.
fn state_directory(container: &Path) -> Option<PathBuf> {
    let container = container.canonicalize().ok()?;
    let state = container.ancestors().nth(2)?;
    (state != Path::new("/")).then(|| state.to_owned())
}

/// One more process of a container: its capabilities and limits, the request's command.
pub(super) fn exec_spec(
    id: &str,
    dir: &Path,
    container: &CreateRequest,
    target: ExecSpec,
    hostname: &str,
    request: &ExecRequest,
) -> Result<LaunchSpec, Error> {
    check_args(&request.args)?;
    let mut env = container.env.clone();
    env.extend(request.env.iter().cloned());
    let process = Process {
        args: request.args.clone(),
        env: environment(hostname, request.terminal, &env),
        cwd: request
            .cwd
            .clone()
            .or_else(|| container.cwd.clone())
            .unwrap_or_else(|| "/".to_owned()),
        terminal: request.terminal,
        stdin: request.stdin,
        user: User::default(),
        capabilities: Capabilities::of_root(capabilities(container)?),
        no_new_privileges: container.no_new_privileges,
        rlimits: container.rlimits.clone(),
        oom_score_adj: container.oom_score_adj,
    };
    Ok(LaunchSpec {
        id: id.to_owned(),
        dir: dir.to_owned(),
        process,
        target: Target::Exec(target),
    })
}

/// The defaults, then the user's own; of one variable the last counts.
fn environment(hostname: &str, terminal: bool, own: &[String]) -> Vec<String> {
    let mut merged: Vec<String> = Vec::new();
    let defaults = defaults::environment(hostname, terminal);
    for variable in defaults.iter().chain(own) {
        let key = variable.split('=').next().unwrap_or_default();
        match merged
            .iter_mut()
            .find(|kept| kept.split('=').next() == Some(key))
        {
            Some(kept) => kept.clone_from(variable),
            None => merged.push(variable.clone()),
        }
    }
    merged
}

#[cfg(test)]
pub(super) mod tests {
    use paddock_cgroups::Limits;
    use paddock_probe::Shares;

    use super::*;
    use crate::api::NamespaceModes;

    pub(in crate::launch) fn request() -> CreateRequest {
        CreateRequest {
            name: None,
            rootfs: Root::Host,
            image: "host".into(),
            args: vec!["true".into()],
            entrypoint: None,
            env: vec!["A=1".into(), "PATH=/x".into(), "A=2=3".into()],
            cwd: None,
            hostname: None,
            terminal: false,
            stdin: false,
            init: false,
            remove: false,
            limits: Limits::default(),
            namespaces: NamespaceModes::default(),
            volumes: vec![],
            cap_add: vec![],
            cap_drop: vec![],
            no_new_privileges: true,
            read_only: false,
            rlimits: vec![],
            oom_score_adj: None,
            stop_signal: None,
            user: None,
            labels: vec![],
        }
    }

    #[test]
    fn the_users_environment_replaces_the_defaults() {
        let id = "0123456789abcdef";
        let sharing = Sharing {
            namespaces: defaults::namespaces(),
            id_maps: None,
            shm: None,
            shares: Shares::default(),
        };
        let dir = Path::new("/d");
        let spec = container_spec(id, dir, "p/i/c", Rootfs::Host, &request(), sharing).unwrap();
        assert_eq!(
            spec.process.env,
            ["PATH=/x", "HOSTNAME=0123456789ab", "HOME=/root", "A=2=3"]
        );
        assert_eq!(spec.process.cwd, "/");
    }

    #[test]
    fn what_cannot_work_is_refused_in_one_line() {
        let refused = |change: fn(&mut CreateRequest)| {
            let mut request = request();
            change(&mut request);
            let text = check(&request).unwrap_err().to_string();
            assert!(!text.contains('\n') && text.len() < 200, "{text}");
            text
        };
        assert!(check(&request()).is_ok());
        assert!(refused(|r| r.name = Some("a\n\u{1b}[31m/b".into())).contains("\\n\\u{1b}"));
        assert!(refused(|r| r.name = Some("x".repeat(10_000))).contains("128"));
        assert!(check_args(&[]).unwrap_err().to_string().contains("command"));
        assert!(
            refused(|r| r.rootfs = Root::Directory("/not/there".into()))
                .contains("/not/there: No such file")
        );
        assert!(refused(|r| r.cap_add = vec!["CAP_NOPE".into()]).contains("CAP_NOPE"));
    }
}
