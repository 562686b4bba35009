//! A step in the kernel's words, for who asks what a launch does: the calls that change
//! something, not those that look for their target. Made before the clone.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};

use nix::{libc, sched::CloneFlags};

use super::{Op, Plan};
use crate::sys::{
    clone::NEWTIME,
    mount::{Attributes, NODEV, NOEXEC, NOSUID, Param, RDONLY},
};

impl Plan {
    /// Each step's name and its calls, then what [`super::run`] does past them.
    pub(crate) fn calls(&self) -> Vec<(&'static str, String)> {
        let steps = self.steps.iter().map(|step| (step.name, step.op.calls()));
        let last = [
            ("descriptors", "close_range(above the kept)".to_owned()),
            (
                super::SECCOMP,
                "seccomp(SECCOMP_SET_MODE_FILTER)".to_owned(),
            ),
        ];
        steps.chain(last).collect()
    }

    /// The last call of all.
    pub(crate) fn exec_call(&self) -> String {
        format!("execve {}", self.exec.name)
    }
}

impl Op {
    fn calls(&self) -> String {
        match self {
            Self::UnshareCgroup => "unshare(CLONE_NEWCGROUP)".to_owned(),
            Self::Join { flags, .. } => format!("setns({})", clone_flags(*flags)),
            Self::PrivateMounts => "mount(MS_REC|MS_PRIVATE) /".to_owned(),
            Self::AttachRoot { at, .. } => format!("move_mount, mount_setattr {}", text(at)),
            Self::HostDirectory { path } | Self::WorkingDirectory { path } => {
                format!("chdir {}", text(path))
            }
            Self::MakeDirectory { parent, name, .. } => format!("mkdirat {}", below(parent, name)),
            Self::MakeFile { parent, name } => format!("openat(O_CREAT) {}", below(parent, name)),
            Self::Attach { at, attributes, .. } => {
                format!("move_mount, {} {}", setattr(*attributes), text(at))
            }
            Self::AttachToFile { at, attributes, .. } => format!(
                "move_mount, {} {}, if it is a file",
                setattr(*attributes),
                text(at)
            ),
            Self::NewFilesystem {
                kind,
                params,
                attributes,
                at,
                fallback,
                ..
            } => new_filesystem(kind, params, *attributes, at, fallback.is_some()),
            Self::Bind { from, at } => {
                format!("open_tree {}, move_mount {}", text(from), text(at))
            }
            Self::Mask { at } => format!(
                "fsopen tmpfs or open_tree /dev/null, move_mount {}, if it is there",
                text(at)
            ),
            Self::ReadOnly { at } => format!(
                "open_tree, move_mount, mount_setattr(ro) {}, if it is there",
                text(at)
            ),
            Self::ReadOnlyRoot => "mount_setattr(ro) /".to_owned(),
            Self::Sysctl { at, value } => format!("write {} to {}", text(value), text(at)),
            Self::PivotRoot => {
                "fchdir root, pivot_root(., .), umount2(., MNT_DETACH), chdir /".to_owned()
            }
            Self::Hostname { name } => format!("sethostname {name}"),
            Self::Domainname { name } => format!("setdomainname {name}"),
            Self::Loopback => "ioctl(SIOCSIFFLAGS, IFF_UP) lo".to_owned(),
            Self::Session => "setsid".to_owned(),
            Self::ControllingTerminal => "ioctl(TIOCSCTTY)".to_owned(),
            Self::Stdio => "dup2 to 0, 1, 2".to_owned(),
            Self::Keyring => "keyctl(KEYCTL_JOIN_SESSION_KEYRING)".to_owned(),
            Self::BecomeRoot => "setgroups(), setresgid(0), setresuid(0)".to_owned(),
            Self::Rlimit {
                resource,
                soft,
                hard,
            } => format!("prlimit64({resource}, {soft}, {hard})"),
            Self::Bounding { keep, .. } => {
                format!("prctl(PR_CAPBSET_DROP) of all but {keep:#x}")
            }
            Self::User { uid, gid, groups } => format!(
                "setgroups({}), prctl(PR_SET_KEEPCAPS), setresgid({gid}), setresuid({uid})",
                groups
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            Self::Capabilities { sets, ambient } => format!(
                "capset(effective {:#x}, permitted {:#x}, inheritable {:#x}), ambient {ambient:#x}",
                sets.effective, sets.permitted, sets.inheritable
            ),
            Self::MemoryPolicy { mode, .. } => format!("set_mempolicy({mode:#x})"),
            Self::NoNewPrivileges => "prctl(PR_SET_NO_NEW_PRIVS)".to_owned(),
            Self::Seccomp { .. } => "seccomp(SECCOMP_SET_MODE_FILTER)".to_owned(),
            Self::ParentDeath => "prctl(PR_SET_PDEATHSIG, SIGKILL)".to_owned(),
            Self::Hook(hook) => format!("clone3, execve {}", text(&hook.path)),
            Self::Propagation { .. } => "mount_setattr(propagation) /".to_owned(),
            Self::ExecLabel { at, label } => format!("write {} to {}", text(label), text(at)),
            Self::FindProgram => "faccessat(X_OK)".to_owned(),
        }
    }
}

/// `CLONE_NEW…|…`, in the order of namespaces(7).
pub(crate) fn clone_flags(flags: CloneFlags) -> String {
    [
        ("CLONE_NEWCGROUP", CloneFlags::CLONE_NEWCGROUP),
        ("CLONE_NEWIPC", CloneFlags::CLONE_NEWIPC),
        ("CLONE_NEWNET", CloneFlags::CLONE_NEWNET),
        ("CLONE_NEWNS", CloneFlags::CLONE_NEWNS),
        ("CLONE_NEWPID", CloneFlags::CLONE_NEWPID),
        ("CLONE_NEWTIME", NEWTIME),
        ("CLONE_NEWUSER", CloneFlags::CLONE_NEWUSER),
        ("CLONE_NEWUTS", CloneFlags::CLONE_NEWUTS),
    ]
    .into_iter()
    .filter(|(_, flag)| flags.contains(*flag))
    .map(|(name, _)| name)
    .collect::<Vec<_>>()
    .join("|")
}

fn new_filesystem(
    kind: &CStr,
    params: &[Param<CString>],
    attributes: Attributes,
    at: &CStr,
    or_host: bool,
) -> String {
    let mut words: Vec<String> = params
        .iter()
        .map(|param| match param {
            Param::Flag(key) => text(key),
            Param::String(key, value) => format!("{}={}", text(key), text(value)),
        })
        .collect();
    words.extend(names(attributes.set).map(str::to_owned));
    let options = if words.is_empty() {
        String::new()
    } else {
        format!("({})", words.join(","))
    };
    let or_host = if or_host {
        "; if refused, the host's"
    } else {
        ""
    };
    format!(
        "fsopen {}, fsmount{options}, move_mount {}{or_host}",
        text(kind),
        text(at)
    )
}

fn setattr(attributes: Attributes) -> String {
    let mut words: Vec<&str> = names(attributes.set).collect();
    words.push(match attributes.propagation {
        libc::MS_SHARED => "shared",
        libc::MS_SLAVE => "slave",
        libc::MS_UNBINDABLE => "unbindable",
        _ => "private",
    });
    format!("mount_setattr({})", words.join(","))
}

fn names(set: u64) -> impl Iterator<Item = &'static str> {
    [
        (RDONLY, "ro"),
        (NOSUID, "nosuid"),
        (NODEV, "nodev"),
        (NOEXEC, "noexec"),
    ]
    .into_iter()
    .filter(move |(flag, _)| set & flag != 0)
    .map(|(_, name)| name)
}

fn below(parent: &CStr, name: &CStr) -> String {
    format!("{}/{}", text(parent).trim_end_matches('/'), text(name))
}

fn text(text: &CStr) -> String {
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_told_by_kind_options_and_place() {
        let op = Op::NewFilesystem {
            kind: c"tmpfs".to_owned(),
            params: vec![Param::String(c"size".to_owned(), c"1".to_owned())],
            attributes: Attributes::private(RDONLY | NOEXEC),
            at: c"/dev/shm".to_owned(),
            follow: false,
            fallback: None,
        };
        assert_eq!(
            op.calls(),
            "fsopen tmpfs, fsmount(size=1,ro,noexec), move_mount /dev/shm"
        );
        let op = Op::MakeDirectory {
            parent: c"/".to_owned(),
            name: c"proc".to_owned(),
            owner: None,
        };
        assert_eq!(op.calls(), "mkdirat /proc");
    }

    #[test]
    fn flags_are_the_kernels() {
        let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | NEWTIME;
        assert_eq!(
            clone_flags(flags),
            "CLONE_NEWNS|CLONE_NEWTIME|CLONE_NEWUSER"
        );
    }
}
