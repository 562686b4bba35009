//! /sys/fs/cgroup inside a container: the host's layout, rooted at the container's cgroup.
//!
//! Pure v2 is one cgroup2 mount. v1 and hybrid are a directory of mounts, one a hierarchy,
//! under the host's names, with the host's links for joined controllers (`cpu,cpuacct`). The
//! child mounts them after it has unshared its cgroup namespace, so each shows its own limits.
#![forbid(unsafe_code)]

use std::{ffi::CString, os::fd::OwnedFd};

use nix::{
    sys::stat::{Mode, mkdirat},
    unistd::symlinkat,
};

use super::{
    Failure, Op, Step,
    build::{c_string, io_failure, literal, step_at},
};
use crate::{
    disk::kernel_text,
    sys::mount::{Attributes, NODEV, NOEXEC, NOSUID, Param, new_filesystem},
};

/// Where the host has them.
const MOUNT_POINT: &str = "/sys/fs/cgroup";
const STEP: &str = "mount cgroups";

/// One hierarchy of the host, by its directory below [`MOUNT_POINT`] (empty: that itself).
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    name: String,
    /// Controllers and `name=…` of a v1 hierarchy; `None` is v2.
    v1: Option<Vec<String>>,
}

/// Steps for a new cgroup namespace. A host without cgroup mounts gets none.
pub(super) fn push(steps: &mut Vec<Step>, at: &str, attributes: Attributes) -> Result<(), Failure> {
    const MOUNTINFO: &str = "/proc/self/mountinfo";
    let text = kernel_text(MOUNTINFO).map_err(|source| io_failure(STEP, MOUNTINFO, &source))?;
    let hierarchies = parse(&text);
    if hierarchies.is_empty() {
        return Ok(());
    }
    if !hierarchies
        .iter()
        .any(|hierarchy| hierarchy.name.is_empty())
    {
        let attach = Op::Attach {
            mount: directory(&hierarchies)?,
            at: c_string(STEP, at)?,
            attributes,
            follow: false,
        };
        steps.push(step_at(STEP, at, attach));
    }
    for hierarchy in &hierarchies {
        steps.push(mount(hierarchy, at, attributes)?);
    }
    Ok(())
}

fn mount(hierarchy: &Hierarchy, at: &str, attributes: Attributes) -> Result<Step, Failure> {
    let path = match hierarchy.name.as_str() {
        "" => at.to_owned(),
        name => format!("{at}/{name}"),
    };
    let (kind, params) = match &hierarchy.v1 {
        None => (literal(c"cgroup2"), Vec::new()),
        Some(options) => (literal(c"cgroup"), params(options)?),
    };
    let at = c_string(STEP, &path)?;
    Ok(step_at(
        STEP,
        &path,
        Op::NewFilesystem {
            kind,
            params,
            attributes,
            at,
            follow: false,
            fallback: None,
        },
    ))
}

fn params(options: &[String]) -> Result<Vec<Param<CString>>, Failure> {
    let mut params = Vec::new();
    if options.iter().all(|option| option.starts_with("name=")) {
        params.push(Param::Flag(literal(c"none")));
    }
    for option in options {
        params.push(match option.strip_prefix("name=") {
            Some(name) => Param::String(literal(c"name"), c_string(STEP, name)?),
            None => Param::Flag(c_string(STEP, option)?),
        });
    }
    Ok(params)
}

/// The detached directory the hierarchies are mounted in.
fn directory(hierarchies: &[Hierarchy]) -> Result<OwnedFd, Failure> {
    let fail = |errno| Failure::new(STEP, MOUNT_POINT, errno);
    let tmpfs = new_filesystem(
        c"tmpfs",
        &[Param::String(c"mode", c"0755")],
        NOSUID | NODEV | NOEXEC,
    )
    .map_err(fail)?;
    for Hierarchy { name, v1 } in hierarchies {
        mkdirat(&tmpfs, name.as_str(), Mode::from_bits_truncate(0o755)).map_err(fail)?;
        let joined = v1
            .iter()
            .filter(|controllers| controllers.len() > 1)
            .flatten();
        for controller in
            joined.filter(|controller| *controller != name && !controller.contains('='))
        {
            symlinkat(name.as_str(), &tmpfs, controller.as_str()).map_err(fail)?;
        }
    }
    Ok(tmpfs)
}

/// Cgroup mounts directly at or in [`MOUNT_POINT`], each once.
fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(at), mut back) = (front.split(' ').nth(4), back.split(' ')) else {
            continue;
        };
        let (kind, options) = (back.next(), back.nth(1).unwrap_or_default());
        let Some(name) = at.strip_prefix(MOUNT_POINT) else {
            continue;
        };
        let name = name.strip_prefix('/').unwrap_or(name);
        if name.contains('/') || found.iter().any(|hierarchy| hierarchy.name == name) {
            continue;
        }
        let v1 = match kind {
            Some("cgroup2") => None,
            Some("cgroup") => Some(
                options
                    .split(',')
                    .filter(|o| is_identity(o))
                    .map(str::to_owned)
                    .collect(),
            ),
            _ => continue,
        };
        found.push(Hierarchy {
            name: name.to_owned(),
            v1,
        });
    }
    found
}

/// What makes a v1 hierarchy the one it is, not how it was mounted.
fn is_identity(option: &str) -> bool {
    let how = [
        "rw",
        "ro",
        "xattr",
        "clone_children",
        "cpuset_v2_mode",
        "favordynmods",
    ];
    !how.contains(&option) && !option.starts_with("release_agent=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v1(name: &str, options: &[&str]) -> Hierarchy {
        let options = options.iter().map(ToString::to_string).collect();
        Hierarchy {
            name: name.into(),
            v1: Some(options),
        }
    }

    #[test]
    fn hybrid_is_a_directory_of_mounts() {
        let text = "\
30 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:4 - cgroup2 cgroup2 rw
34 30 0:29 / /mnt/elsewhere rw - cgroup2 cgroup2 rw
";
        let unified = Hierarchy {
            name: "unified".into(),
            v1: None,
        };
        assert_eq!(
            parse(text),
            [
                v1("cpu,cpuacct", &["cpu", "cpuacct"]),
                v1("systemd", &["name=systemd"]),
                unified
            ]
        );
    }

    #[test]
    fn pure_v2_is_one_mount() {
        let text = "29 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            parse(text),
            [Hierarchy {
                name: String::new(),
                v1: None
            }]
        );
    }

    #[test]
    fn a_named_hierarchy_has_no_controllers() {
        let params = params(&["name=systemd".to_owned()]).unwrap();
        assert!(
            matches!(&params[..], [Param::Flag(none), Param::String(..)] if none.as_c_str() == c"none")
        );
    }
}
