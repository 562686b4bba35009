//! From a client's request to what a monitor is given: checked, with docker's defaults.

use std::path::{Path, PathBuf};

use paddock_runtime::{
    apparmor, defaults,
    spec::{
        Account, Capabilities, ContainerSpec, ExecSpec, IdMaps, InvalidAccount, Label, LaunchSpec,
        LogLimits, Process, Reference, Rootfs, Target, User, Wanted,
    },
};
use paddock_seccomp::Filter;

use super::{Error, devices::devices, etc, remap, sharing::Sharing, sysctl};
use crate::{
    api::{CreateRequest, ExecRequest, NamespaceMode, Root},
    life::RestartPolicy,
    mount, naming, signal,
};

/// There when the kernel labels files.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// Refuses what could not work, before anything is made.
pub(super) fn check(request: &CreateRequest) -> Result<(), Error> {
    if let Some(name) = &request.name
        && !naming::is_valid(name)
    {
        return Err(Error::invalid(format!(
            "name '{}': expected a letter or digit, then letters, digits, '_', '.' or '-', at most 128",
            shown(name)
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
        exists(&volume.source)?;
        if volume.relabel && Path::new(SELINUX).exists() {
            return Err(Error::invalid(format!(
                "volume {}: SELinux is on, and paddock sets no labels: leave z and Z out and label it with chcon",
                volume.target.display()
            )));
        }
    }
    if let Some(target) = mount::doubled(&request.volumes, &request.tmpfs) {
        return Err(Error::invalid(format!(
            "{}: mounted on twice",
            target.display()
        )));
    }
    if request.shm_size.is_some() && request.namespaces.ipc != NamespaceMode::Private {
        return Err(Error::invalid(
            "--shm-size: needs an IPC namespace of its own (--ipc private)",
        ));
    }
    if !(-1000..=1000).contains(&request.oom_score_adj.unwrap_or(0)) {
        return Err(Error::invalid("--oom-score-adj: expected -1000 to 1000"));
    }
    for (name, value) in &request.sysctls {
        sysctl::check(name, value, &request.namespaces)?;
    }
    if let Some(wanted) = &request.userns_remap {
        remap::check(wanted)?;
    }
    etc::check(request)?;
    for group in &request.group_add {
        let _: Reference = group.parse().map_err(|error| invalid_account(&error))?;
    }
    account(request, None)?;
    if let Some(profile) = &request.apparmor {
        apparmor::check(profile)?;
    }
    check_life(request)?;
    devices(request)?;
    capabilities(request).map(drop)
}

/// The beginning of a stranger's word, harmless to a terminal.
pub(super) fn shown(word: &str) -> String {
    let beginning = word.chars().take(40);
    beginning.flat_map(char::escape_default).collect()
}

fn invalid_account(error: &InvalidAccount) -> Error {
    Error::invalid(format!("user or group {error}"))
}

/// What the monitor is to look up; nothing for root, whom everybody knows.
fn account(request: &CreateRequest, user: Option<&str>) -> Result<Option<Account>, Error> {
    let user = user
        .or(request.user.as_deref())
        .filter(|user| !user.is_empty());
    if user.is_none() && request.group_add.is_empty() {
        return Ok(None);
    }
    let user = user.unwrap_or("0");
    let _: Wanted = user.parse().map_err(|error| invalid_account(&error))?;
    let all = capabilities(request)?;
    // Of the defaults a user who is not root has none: only what is asked for by name.
    let mut drop = request.cap_drop.clone();
    drop.push("ALL".to_owned());
    let added = defaults::capabilities(&request.cap_add, &drop)
        .map_err(|error| Error::invalid(error.to_string()))?;
    Ok(Some(Account {
        user: user.to_owned(),
        groups: request.group_add.clone(),
        default_home: !has_home(&request.env),
        capabilities: added
            .into_iter()
            .filter(|name| all.contains(name))
            .collect(),
    }))
}

/// The smallest file of a log: several of the longest lines.
const SMALLEST_LOG: u64 = 64 << 10;
const MOST_LOGS: u32 = 1000;

fn check_life(request: &CreateRequest) -> Result<(), Error> {
    let life = &request.life;
    if request.remove && life.restart != RestartPolicy::No {
        return Err(Error::invalid(format!(
            "--rm and --restart {}: one that is removed cannot be started again; leave one out",
            life.restart
        )));
    }
    if let Some(signal) = life.stop_signal {
        signal::parse(&signal.to_string()).map_err(Error::invalid)?;
    }
    if life.log.max_size < SMALLEST_LOG || !(1..=MOST_LOGS).contains(&life.log.max_files) {
        return Err(Error::invalid(
            "log: max-size must be 64k or more, max-file 1 to 1000",
        ));
    }
    Ok(())
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
pub(super) fn reason(error: &std::io::Error) -> String {
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

pub(super) fn capabilities(request: &CreateRequest) -> Result<Vec<String>, Error> {
    defaults::capabilities(&request.cap_add, &request.cap_drop)
        .map_err(|error| Error::invalid(error.to_string()))
}

pub(super) fn hostname(request: &CreateRequest, id: &str) -> String {
    let own = request.hostname.clone();
    own.unwrap_or_else(|| id.chars().take(12).collect())
}

pub(super) fn container_spec(
    id: &str,
    dir: &Path,
    cgroup: &str,
    rootfs: Rootfs,
    request: &CreateRequest,
    sharing: Sharing,
    seccomp: Option<Filter>,
) -> Result<LaunchSpec, Error> {
    let hostname = hostname(request, id);
    let process = Process {
        args: request.args.clone(),
        env: environment(&hostname, request.terminal, &request.env),
        cwd: request.cwd.clone().unwrap_or_else(|| "/".to_owned()),
        terminal: request.terminal,
        stdin: request.stdin,
        user: User::default(),
        account: account(request, None)?,
        capabilities: Capabilities::of_root(capabilities(request)?),
        no_new_privileges: request.no_new_privileges,
        rlimits: request.rlimits.clone(),
        oom_score_adj: request.oom_score_adj,
        seccomp,
        labels: labels(request),
    };
    let namespaces = sharing.namespaces;
    let id_maps = sharing.id_maps.unwrap_or_else(IdMaps::identity);
    let shown_maps = (!id_maps.is_identity()).then(|| id_maps.clone());
    let shm_size = request.shm_size.unwrap_or(defaults::SHM_SIZE);
    let mut mounts = defaults::mounts(&namespaces, shm_size);
    mounts.extend(sharing.shm);
    mounts.extend(etc::make(dir, request, &namespaces, &hostname, &id_maps)?);
    let (devices, device_rules) = devices(request)?;
    let (mut masked_paths, mut read_only_paths) =
        (defaults::masked_paths(), defaults::read_only_paths());
    if request.privileged {
        masked_paths.clear();
        read_only_paths.clear();
        for mount in mounts.iter_mut().filter(|mount| !mount.follow) {
            mount.set &= !defaults::READ_ONLY_MOUNT;
        }
    }
    mounts.extend(mount::to_spec(
        &request.volumes,
        &request.tmpfs,
        shown_maps.as_ref(),
    ));
    if rootfs == Rootfs::Host {
        masked_paths.extend(state_directory(dir));
    }
    let target = Target::Container(Box::new(ContainerSpec {
        rootfs,
        root_maps: shown_maps,
        read_only: request.read_only,
        init: request.init,
        hostname: namespaces.uts.is_new().then_some(hostname),
        domainname: request.lookup.domainname.clone(),
        cgroup: cgroup.to_owned(),
        namespaces,
        id_maps,
        mounts,
        devices,
        masked_paths,
        read_only_paths,
        sysctls: request.sysctls.clone(),
        device_rules,
    }));
    Ok(LaunchSpec {
        id: id.to_owned(),
        dir: dir.to_owned(),
        process,
        target,
        log: request.life.log,
        trace: None,
        networks: None,
        asking: None,
    })
}

/// Without AppArmor everything is unconfined as it is.
fn labels(request: &CreateRequest) -> Vec<Label> {
    let profile = request.apparmor.clone().filter(|_| apparmor::is_enabled());
    profile.map(Label::AppArmor).into_iter().collect()
}

/// It shows through the host's root: sockets and other containers' environments.
fn state_directory(container: &Path) -> Option<PathBuf> {
    let container = container.canonicalize().ok()?;
    let state = container.ancestors().nth(2)?;
    (state != Path::new("/")).then(|| state.to_owned())
}

/// One more process of a container: its capabilities, filter and limits, the request's command.
pub(super) fn exec_spec(
    id: &str,
    dir: &Path,
    container: &CreateRequest,
    target: ExecSpec,
    hostname: &str,
    request: &ExecRequest,
    seccomp: Option<Filter>,
) -> Result<LaunchSpec, Error> {
    check_args(&request.args)?;
    // A program of the host's must not follow an image: LD_PRELOAD, PATH, a user's number.
    let inside = target.joins("mnt").then_some(container);
    let mut env = inside.map_or_else(Vec::new, |container| container.env.clone());
    env.extend(request.env.iter().cloned());
    let cwd = request.cwd.clone();
    let account = inside
        .map(|container| account(container, request.user.as_deref()))
        .transpose()?
        .flatten();
    let process = Process {
        args: request.args.clone(),
        env: environment(hostname, request.terminal, &env),
        cwd: cwd
            .or_else(|| inside.and_then(|container| container.cwd.clone()))
            .unwrap_or_else(|| "/".to_owned()),
        terminal: request.terminal,
        stdin: request.stdin,
        user: User::default(),
        account: account.map(|account| Account {
            default_home: account.default_home && !has_home(&request.env),
            ..account
        }),
        capabilities: Capabilities::of_root(capabilities(container)?),
        no_new_privileges: container.no_new_privileges,
        rlimits: container.rlimits.clone(),
        oom_score_adj: container.oom_score_adj,
        seccomp,
        labels: labels(container),
    };
    Ok(LaunchSpec {
        id: id.to_owned(),
        dir: dir.to_owned(),
        process,
        target: Target::Exec(target),
        log: LogLimits::default(),
        trace: None,
        networks: None,
        asking: None,
    })
}

fn has_home(env: &[String]) -> bool {
    env.iter().any(|variable| variable.starts_with("HOME="))
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
    use crate::api::{Lookup, NamespaceModes, Profile};

    pub(in crate::launch) fn request() -> CreateRequest {
        CreateRequest {
            profile: Profile::Default,
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
            networks: vec![],
            ports: vec![],
            userns_remap: None,
            volumes: vec![],
            tmpfs: vec![],
            shm_size: None,
            lookup: Lookup::default(),
            sysctls: vec![],
            user: None,
            group_add: vec![],
            cap_add: vec![],
            cap_drop: vec![],
            no_new_privileges: true,
            read_only: false,
            rlimits: vec![],
            oom_score_adj: None,
            labels: vec![],
            life: crate::life::LifeOptions::default(),
            seccomp: crate::api::Seccomp::Default,
            apparmor: None,
            devices: vec![],
            device_rules: vec![],
            privileged: false,
            trace: false,
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
        let scratch = crate::fixture::Dir::new();
        let dir = scratch.path();
        let spec =
            container_spec(id, dir, "p/i/c", Rootfs::Host, &request(), sharing, None).unwrap();
        assert_eq!(
            spec.process.env,
            ["PATH=/x", "HOSTNAME=0123456789ab", "HOME=/root", "A=2=3"]
        );
        assert_eq!(spec.process.cwd, "/");
    }

    #[test]
    fn a_privileged_container_has_nothing_hidden() {
        let sharing = Sharing {
            namespaces: defaults::namespaces(),
            id_maps: None,
            shm: None,
            shares: Shares::default(),
        };
        let all = CreateRequest {
            privileged: true,
            rootfs: Root::Directory("/tmp".into()),
            ..request()
        };
        let scratch = crate::fixture::Dir::new();
        let rootfs = Rootfs::Directory("/tmp".into());
        let spec =
            container_spec("0123", scratch.path(), "p", rootfs, &all, sharing, None).unwrap();
        let Target::Container(target) = spec.target else {
            panic!("{spec:?}")
        };
        assert!(target.masked_paths.is_empty() && target.read_only_paths.is_empty());
        // Its names and servers are files of the agent's, as with everybody.
        let read_only = |mount: &paddock_runtime::spec::Mount| {
            mount.set & defaults::READ_ONLY_MOUNT != 0 && !mount.target.starts_with("/etc")
        };
        assert!(!target.mounts.iter().any(read_only));
    }

    #[test]
    fn a_user_who_is_not_root_gets_what_was_added_by_name() {
        let ambient = |add: &[&str], drop: &[&str]| {
            let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            let request = CreateRequest {
                user: Some("1000".into()),
                cap_add: list(add),
                cap_drop: list(drop),
                ..request()
            };
            account(&request, None).unwrap().unwrap().capabilities
        };
        assert!(ambient(&[], &[]).is_empty());
        assert_eq!(
            ambient(&["net_admin", "chown"], &["CHOWN"]),
            ["CAP_NET_ADMIN"]
        );
        assert_eq!(ambient(&["KILL"], &["ALL"]), ["CAP_KILL"]);
        assert_eq!(ambient(&["ALL"], &["CHOWN"]).len(), 40);
        assert_eq!(account(&request(), None).unwrap(), None);
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
        assert!(refused(|r| r.user = Some("4294967295".into())).contains("4294967294"));
        assert!(refused(|r| r.group_add = vec!["-1".into()]).contains("\"-1\""));
    }
}
