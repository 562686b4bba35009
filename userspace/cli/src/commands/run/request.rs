//! From flags to what the agent is asked for.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use paddock_agent::{
    api::{
        CreateRequest, Lookup, NamespaceMode, NamespaceModes, PortMapping, Root, Seccomp, Tmpfs,
        Volume,
    },
    life::LifeOptions,
    mount::Mounted,
};
use paddock_runtime::apparmor::UNCONFINED;

use super::{
    Recipe,
    flags::{From, LogOption, Network, SecurityOption},
};

impl Recipe {
    pub(crate) fn request(&self, rootfs: Root) -> CreateRequest {
        CreateRequest {
            profile: self.profile,
            name: self.name.clone(),
            rootfs,
            image: self.image.typed.clone(),
            args: self.args(),
            entrypoint: self.process.entrypoint.clone().map(|program| vec![program]),
            env: environment(&self.variables()),
            cwd: self
                .process
                .workdir
                .clone()
                .or_else(|| self.current_directory()),
            hostname: self.namespaces.hostname.clone(),
            terminal: self.tty,
            stdin: self.interactive,
            init: self.process.init,
            remove: self.rm,
            limits: self.limits(),
            namespaces: self.namespaces(),
            networks: self.networks(),
            ports: self.ports(),
            userns_remap: self.userns_remap(),
            volumes: self.volumes(),
            tmpfs: self.tmpfs(),
            shm_size: self.files.shm_size,
            lookup: Lookup {
                domainname: self.namespaces.domainname.clone(),
                hosts: self.files.hosts.clone(),
                servers: self.files.dns.clone(),
                search: self.files.dns_search.clone(),
                options: self.files.dns_options.clone(),
            },
            sysctls: self.process.sysctls.clone(),
            user: self.process.user.clone(),
            group_add: self.process.group_add.clone(),
            cap_add: self.capabilities_to_add(),
            cap_drop: self.capabilities_to_drop(),
            no_new_privileges: self.no_new_privileges(),
            read_only: self.files.read_only || self.is_hardened(),
            rlimits: self.process.ulimits.clone(),
            oom_score_adj: self.process.oom_score_adj,
            labels: self.labels.iter().map(|label| split(label)).collect(),
            life: self.life(),
            seccomp: self.seccomp(),
            apparmor: self.apparmor(),
            devices: self.files.devices.clone(),
            device_rules: self.files.device_rules.clone(),
            privileged: self.process.privileged,
            trace: false,
        }
    }

    fn life(&self) -> LifeOptions {
        let mut life = LifeOptions {
            restart: self.life.restart,
            stop_signal: self.life.stop_signal,
            stop_timeout: self.life.stop_timeout.map(i64::from),
            ..LifeOptions::default()
        };
        for option in &self.life.log_options {
            match *option {
                LogOption::MaxSize(size) => life.log.max_size = size,
                LogOption::MaxFile(number) => life.log.max_files = number,
            }
        }
        life
    }

    /// Those of the command line count more than a file's.
    fn variables(&self) -> Vec<String> {
        let files = self.process.env_files.iter().flat_map(|file| &file.0);
        files.chain(&self.process.env).cloned().collect()
    }

    pub(super) fn volumes(&self) -> Vec<Volume> {
        let mounted = self.files.mounts.iter().filter_map(|mount| match mount {
            Mounted::Volume(volume) => Some(volume),
            Mounted::Tmpfs(_) => None,
        });
        self.files.volumes.iter().chain(mounted).cloned().collect()
    }

    fn tmpfs(&self) -> Vec<Tmpfs> {
        let mounted = self.files.mounts.iter().filter_map(|mount| match mount {
            Mounted::Tmpfs(tmpfs) => Some(tmpfs),
            Mounted::Volume(_) => None,
        });
        let own: Vec<_> = self.files.tmpfs.iter().chain(mounted).cloned().collect();
        let more = self.scratch(&own);
        own.into_iter().chain(more).collect()
    }

    /// An image may have a command of its own.
    fn args(&self) -> Vec<String> {
        let is_image = matches!(self.image.from, From::Image(_));
        if self.command.is_empty() && !is_image && self.process.entrypoint.is_none() {
            vec![SHELL.to_owned()]
        } else {
            self.command.clone()
        }
    }

    /// With the host's files a program starts where its caller is, as `make test` expects; where
    /// that is another mount, which the container does not have, it starts in `/`.
    fn current_directory(&self) -> Option<String> {
        if self.image.from != From::Host {
            return None;
        }
        let here = std::env::current_dir().ok()?;
        let device = |path: &Path| path.metadata().ok().map(|found| found.dev());
        if device(&here) != device(Path::new("/")) {
            return None;
        }
        here.into_os_string().into_string().ok()
    }

    /// Of one option given twice the last counts.
    pub(super) fn no_new_privileges(&self) -> bool {
        let mut options = self.process.security_options.iter().rev();
        let value = |option: &SecurityOption| match option {
            SecurityOption::NoNewPrivileges(value) => Some(*value),
            SecurityOption::Seccomp(_) | SecurityOption::AppArmor(_) => None,
        };
        options.find_map(value).unwrap_or(!self.process.privileged)
    }

    fn capabilities_to_add(&self) -> Vec<String> {
        let mut add = self.process.cap_add.clone();
        if self.process.privileged {
            add.push("ALL".to_owned());
        }
        add
    }

    pub(super) fn seccomp(&self) -> Seccomp {
        let mut options = self.process.security_options.iter().rev();
        let value = |option: &SecurityOption| match option {
            SecurityOption::NoNewPrivileges(_) | SecurityOption::AppArmor(_) => None,
            SecurityOption::Seccomp(seccomp) => Some(seccomp.clone()),
        };
        options
            .find_map(value)
            .unwrap_or(if self.process.privileged {
                Seccomp::Unconfined
            } else if self.is_hardened() {
                Seccomp::Hardened
            } else {
                Seccomp::Default
            })
    }

    fn apparmor(&self) -> Option<String> {
        let mut options = self.process.security_options.iter().rev();
        let value = |option: &SecurityOption| match option {
            SecurityOption::NoNewPrivileges(_) | SecurityOption::Seccomp(_) => None,
            SecurityOption::AppArmor(profile) => Some(profile.clone()),
        };
        let default = || self.process.privileged.then(|| UNCONFINED.to_owned());
        options.find_map(value).or_else(default)
    }

    pub(super) fn namespaces(&self) -> NamespaceModes {
        let chosen = &self.namespaces;
        let default = NamespaceModes::default();
        let or = |flag: &Option<NamespaceMode>, default| flag.clone().unwrap_or(default);
        NamespaceModes {
            cgroup: or(&chosen.cgroupns, default.cgroup),
            ipc: or(&chosen.ipc, default.ipc),
            network: self.network().unwrap_or(default.network),
            pid: or(&chosen.pid, default.pid),
            time: or(&chosen.timens, default.time),
            user: match &chosen.userns {
                None if self.process.privileged => Some(NamespaceMode::Host),
                chosen => chosen.clone(),
            },
            uts: or(&chosen.uts, default.uts),
        }
    }
}

impl Recipe {
    /// Of its modes the last counts.
    fn network(&self) -> Option<NamespaceMode> {
        let mode = |network: &Network| match network {
            Network::Whose(mode) => Some(mode.clone()),
            Network::Named(_) => None,
        };
        self.namespaces.network.iter().rev().find_map(mode)
    }

    fn networks(&self) -> Vec<String> {
        let name = |network: &Network| match network {
            Network::Whose(_) => None,
            Network::Named(name) => Some(name.clone()),
        };
        self.namespaces.network.iter().filter_map(name).collect()
    }

    fn ports(&self) -> Vec<PortMapping> {
        let all = self.namespaces.ports.iter();
        all.flat_map(|ports| ports.0.clone()).collect()
    }
}

const SHELL: &str = "/bin/sh";

/// `KEY=VALUE` as it is; `KEY` takes the caller's value and is left out where there is none.
pub(crate) fn environment(variables: &[String]) -> Vec<String> {
    let value = |variable: &String| {
        if variable.contains('=') {
            return Some(variable.clone());
        }
        std::env::var(variable)
            .ok()
            .map(|value| format!("{variable}={value}"))
    };
    variables.iter().filter_map(value).collect()
}

fn split(label: &str) -> (String, String) {
    let (key, value) = label.split_once('=').unwrap_or((label, ""));
    (key.to_owned(), value.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use paddock_agent::api::Profile;
    use paddock_cgroups::Limits;
    use paddock_runtime::defaults;

    use super::*;
    use crate::args::{Args, Command};

    fn request(words: &[&str]) -> Result<CreateRequest, clap::Error> {
        let all = ["paddock", "run"].iter().chain(words);
        match Args::try_parse_from(all)?.command {
            Command::Run(run) => Ok(run.recipe.request(Root::Host)),
            other => panic!("{other:?}"),
        }
    }

    fn args(words: &[&str]) -> Vec<String> {
        request(words).unwrap().args
    }

    #[test]
    fn the_command_begins_at_its_first_word_or_after_the_dashes() {
        assert_eq!(args(&["host"]), ["/bin/sh"]);
        assert!(args(&["alpine"]).is_empty() && args(&["--entrypoint", "x", "host"]).is_empty());
        assert_eq!(
            args(&["host", "ls", "-l", "--memory", "--", "-e"]),
            ["ls", "-l", "--memory", "--", "-e"]
        );
        assert_eq!(
            args(&["host", "--", "make", "--", "test"]),
            ["make", "--", "test"]
        );
        let request = request(&["host", "--memory", "256m", "--", "make", "test"]).unwrap();
        assert_eq!(
            (request.args, request.limits.memory.limit),
            (vec!["make".into(), "test".into()], Some(256 << 20))
        );
    }

    #[test]
    fn defaults_are_closed() {
        let request = request(&["host"]).unwrap();
        assert_eq!(request.namespaces, NamespaceModes::default());
        assert_eq!(request.limits, Limits::default());
        assert!(
            request.no_new_privileges && !request.read_only && !request.stdin && !request.terminal
        );
        assert_eq!(
            (request.seccomp, request.apparmor),
            (Seccomp::Default, None)
        );
    }

    #[test]
    fn privileged_is_all_but_what_is_said_otherwise() {
        let all = request(&["--privileged", "host"]).unwrap();
        assert!(all.privileged && !all.no_new_privileges);
        assert_eq!(all.seccomp, Seccomp::Unconfined);
        assert_eq!(all.apparmor.as_deref(), Some("unconfined"));
        assert_eq!(all.cap_add, ["ALL"]);
        assert_eq!(all.namespaces.user, Some(NamespaceMode::Host));
        let words = [
            "--privileged",
            "--userns=private",
            "--security-opt=seccomp=default",
            "--security-opt=no-new-privileges",
            "--security-opt=apparmor=web",
            "host",
        ];
        let less = request(&words).unwrap();
        assert!(less.no_new_privileges);
        assert_eq!(less.apparmor.as_deref(), Some("web"));
        assert_eq!(less.seccomp, Seccomp::Default);
        assert_eq!(less.namespaces.user, Some(NamespaceMode::Private));
    }

    #[test]
    fn hardened_is_what_flags_could_say() {
        let hard = request(&["--profile", "hardened", "host"]).unwrap();
        assert_eq!(hard.profile, Profile::Hardened);
        assert_eq!(hard.userns_remap.as_deref(), Some("auto"));
        assert_eq!(hard.seccomp, Seccomp::Hardened);
        assert!(hard.read_only && hard.no_new_privileges && hard.cap_add.is_empty());
        assert_eq!(hard.limits.pids, Some(512));
        let left = defaults::capabilities(&hard.cap_add, &hard.cap_drop).unwrap();
        let few = [
            "CAP_KILL",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_NET_BIND_SERVICE",
        ];
        assert_eq!(left, few);
        let words = [
            "--profile=hardened",
            "--cap-add=chown",
            "--cap-drop=KILL",
            "--pids-limit=9",
            "-v=/tmp:/tmp:ro",
            "--tmpfs=/run:size=1m",
            "--security-opt=seccomp=default",
            "host",
        ];
        let own = request(&words).unwrap();
        let left = defaults::capabilities(&own.cap_add, &own.cap_drop).unwrap();
        assert_eq!(left.len(), 4);
        assert_eq!(left[0], "CAP_CHOWN");
        assert_eq!((own.limits.pids, own.tmpfs.len()), (Some(9), 1));
        assert_eq!(own.seccomp, Seccomp::Default);
    }

    #[test]
    fn namespaces_can_be_the_hosts() {
        let words = [
            "--userns=host",
            "--pid=host",
            "--net=host",
            "--ipc=host",
            "--uts=host",
            "--cgroupns=host",
            "host",
        ];
        let host = request(&words).unwrap().namespaces;
        let all = [
            host.cgroup,
            host.ipc,
            host.network,
            host.pid,
            host.user.unwrap(),
            host.uts,
        ];
        assert_eq!(all, [const { NamespaceMode::Host }; 6]);
        let joined = request(&["--pid", "container:web", "host"])
            .unwrap()
            .namespaces;
        assert_eq!(joined.pid, NamespaceMode::Container("web".into()));
        assert_eq!(joined.user, None);
        for wrong in ["container:", "web", "private:x", ""] {
            assert!(request(&["--ipc", wrong, "host"]).is_err(), "{wrong}");
        }
        let none = request(&["--network", "none", "host"]).unwrap();
        assert_eq!(none.namespaces, NamespaceModes::default());
        let words = [
            "--network=front",
            "--network",
            "back",
            "-p",
            "8080:80",
            "-p=53/udp",
            "host",
        ];
        let named = request(&words).unwrap();
        assert_eq!(named.namespaces, NamespaceModes::default());
        assert_eq!(named.networks, ["front", "back"]);
        assert_eq!(named.ports.len(), 2);
    }

    #[test]
    fn short_flags_are_dockers() {
        let request = request(&[
            "-it",
            "-h",
            "box",
            "-w",
            "/tmp",
            "-e",
            "A=b=c",
            "-v",
            "/tmp:/mnt:ro",
            "-l",
            "k=v",
            "--cap-drop=ALL",
            "--cap-add",
            "net_admin,CHOWN",
            "--security-opt",
            "no-new-privileges=false",
            "--security-opt",
            "seccomp=unconfined",
            "host",
            "true",
        ])
        .unwrap();
        assert!(request.terminal && request.stdin && !request.no_new_privileges);
        assert_eq!(request.seccomp, Seccomp::Unconfined);
        assert_eq!(
            (request.hostname.as_deref(), request.cwd.as_deref()),
            (Some("box"), Some("/tmp"))
        );
        assert_eq!(request.env, ["A=b=c"]);
        assert_eq!(request.labels, [("k".to_owned(), "v".to_owned())]);
        assert_eq!(
            (request.cap_drop, request.cap_add),
            (vec!["ALL".into()], vec!["net_admin".into(), "CHOWN".into()])
        );
        let volume = &request.volumes[0];
        assert!(
            volume.flags.read_only == Some(true)
                && volume.source.ends_with("tmp")
                && volume.target.ends_with("mnt")
        );
    }

    #[test]
    fn wrong_values_are_refused() {
        let wrong: [&[&str]; 12] = [
            &["--memory", "lots", "host"],
            &["--cpus", "0", "host"],
            &["--pids-limit", "-2", "host"],
            &["--cap-add", "CAP_NOPE", "host"],
            &["--network", "bridge:x", "host"],
            &["-p", "80/icmp", "host"],
            &["--ulimit", "nofile=9:3", "host"],
            &["--security-opt", "seccomp=/nowhere-at-all", "host"],
            &["-v", "/nowhere-at-all:/mnt", "host"],
            &["-w", "relative", "host"],
            &["ALPINE"],
            &["/nowhere-at-all"],
        ];
        for words in wrong {
            assert!(request(words).is_err(), "{words:?}");
        }
    }
}
