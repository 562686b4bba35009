//! Which cgroup paths are containers: how each known runtime names them, and globs of the user's.
//!
//! | Runtime | Last component |
//! |---|---|
//! | docker | `docker-ID.scope`, or `ID` below `docker` |
//! | podman | `libpod-ID.scope`, `libpod-ID` |
//! | containerd, CRI-O | `cri-containerd-ID.scope`, `crio-ID.scope`, `nerdctl-ID.scope`, or `ID` below `kubepods` |
//! | LXC | `lxc.payload.NAME` |
//! | systemd-nspawn | `machine-NAME.scope` |
//!
//! The outermost match is the container: what it nests is part of it. paddock's own, of every
//! instance, are not found but known.

use crate::naming;

const SCOPES: [&str; 5] = ["docker-", "libpod-", "cri-containerd-", "crio-", "nerdctl-"];

/// A container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// Relative to the hierarchy's mount, without leading slash.
    pub(crate) path: String,
    /// The runtime's full id, where the path has one.
    pub(crate) id: Option<String>,
    /// Docker-style: 12 digits of the id, else a name out of the path.
    pub(crate) name: String,
}

/// The container that the cgroup at `path` (absolute within its hierarchy) is, or is part of.
pub(crate) fn find(path: &str, globs: &[String]) -> Option<Match> {
    let components: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    // Below the root or a delegated cgroup; within another runtime's container it is that one's.
    let own = components.iter().position(|part| *part == "paddock");
    (1..=own.unwrap_or(components.len())).find_map(|length| {
        let prefix = &components[..length];
        let path = prefix.join("/");
        let last = *prefix.last()?;
        let tracked = || {
            globs
                .iter()
                .any(|glob| matches(glob.trim_start_matches('/'), &path))
        };
        let (id, name) = match runtime_id(prefix) {
            Some(id) => (Some(id.to_owned()), id[..12].to_owned()),
            None => match machine_name(last) {
                Some(name) => (None, naming::sanitised(name)),
                None if tracked() => (None, naming::sanitised(last)),
                None => return None,
            },
        };
        Some(Match { path, id, name })
    })
}

fn runtime_id<'a>(prefix: &[&'a str]) -> Option<&'a str> {
    let (last, parents) = prefix.split_last()?;
    let bare = last.strip_suffix(".scope").unwrap_or(last);
    let scoped = SCOPES.iter().find_map(|scope| bare.strip_prefix(scope));
    // cgroupfs drivers use bare ids, below a parent that tells whose they are.
    let below = parents
        .iter()
        .any(|parent| *parent == "docker" || parent.starts_with("kubepods"));
    scoped.or(below.then_some(*last)).filter(|id| is_id(id))
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn machine_name(last: &str) -> Option<&str> {
    if let Some(name) = last.strip_prefix("lxc.payload.") {
        return Some(name);
    }
    let name = last.strip_prefix("machine-")?.strip_suffix(".scope")?;
    // libvirt's virtual machines: no container's walls to watch.
    (!name.starts_with("qemu")).then_some(name)
}

/// `*` and `?` within a component, as in a shell.
fn matches(glob: &str, text: &str) -> bool {
    let (mut glob_parts, mut text_parts) = (glob.split('/'), text.split('/'));
    loop {
        match (glob_parts.next(), text_parts.next()) {
            (None, None) => return true,
            (Some(glob), Some(text)) if component(glob.as_bytes(), text.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// Linear in practice: a star is tried again only from where it last matched.
fn component(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g + 1, t));
                g += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                g += 1;
                t += 1;
            }
            _ => {
                let Some((after, from)) = star else {
                    return false;
                };
                star = Some((after, from + 1));
                (g, t) = (after, from + 1);
            }
        }
    }
    glob[g..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn found(path: &str) -> Option<(String, String)> {
        find(path, &["/byhand*".into(), "/a/?/x".into()]).map(|found| (found.path, found.name))
    }

    #[test]
    fn known_runtimes_containers_are_found() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/libpod_parent/libpod-{ID}"),
            format!("/machine.slice/libpod-{ID}.scope"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope"),
            format!("/kubepods/besteffort/pod1/{ID}"),
        ] {
            let expected = path.trim_start_matches('/').to_owned();
            assert_eq!(
                found(&path),
                Some((expected.clone(), "0123456789ab".into()))
            );
            // What it nests is part of it.
            assert_eq!(found(&format!("{path}/init.scope")).unwrap().0, expected);
            assert_eq!(found(&format!("{path}/docker/{ID}")).unwrap().0, expected);
        }
        assert_eq!(
            found("/lxc.payload.web/x").unwrap(),
            ("lxc.payload.web".into(), "web".into())
        );
        assert_eq!(
            found("/machine.slice/machine-a\\x2db.scope").unwrap().1,
            "a_x2db"
        );
    }

    #[test]
    fn what_is_beside_containers_is_none() {
        for path in [
            "/",
            "/docker",
            "/system.slice/docker.service",
            "/user.slice/user-1000.slice",
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
            &format!("/machine.slice/libpod-conmon-{ID}.scope"),
            &format!("/crio-conmon-{ID}.scope"),
            &format!("/other/{ID}"),
            &format!("/paddock/default/{ID}"),
            &format!("/system.slice/paddock.service/paddock/default/docker-{ID}.scope"),
            "/docker/short",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
        let within = format!("/docker/{ID}/paddock/default/{ID}");
        assert_eq!(found(&within).unwrap().0, format!("docker/{ID}"));
    }

    #[test]
    fn globs_stay_within_a_component() {
        assert_eq!(
            found("/byhand-7/deep").unwrap(),
            ("byhand-7".into(), "byhand-7".into())
        );
        assert_eq!(found("/x/byhand"), None);
        assert_eq!(found("/a/b/x").unwrap().0, "a/b/x");
        assert_eq!(found("/a/bb/x"), None);
        assert!(component(b"*a*b*", b"xxaxxbxx") && !component(b"*a*b", b"xxaxxbx"));
        assert!(component(b"**", b"") && !component(b"?", b""));
    }
}
