//! Which cgroup paths are containers: how each known runtime names them, and globs of the user's.
//!
//! | Runtime | Last component |
//! |---|---|
//! | docker | `docker-ID.scope`, or `ID` in `docker` |
//! | podman | `libpod-ID.scope`, `libpod-ID` |
//! | containerd, nerdctl | `cri-containerd-ID.scope`, `nerdctl-ID.scope`, or `ID` in `default`, `k8s.io`, `moby` |
//! | CRI-O | `crio-ID.scope`, `crio-ID` |
//! | Kubernetes | `ID` anywhere below `kubepods…`; the pod's uid is in the path |
//! | any of them with the other cgroup driver's notation | `SLICE:PREFIX:ID` |
//! | LXC | `lxc.payload.NAME`, or `NAME` in `lxc` |
//! | systemd-nspawn | `machine-NAME.scope`, `systemd-nspawn@NAME.service` |
//!
//! systemd's services and scopes are containers where a glob says so. The innermost match is the
//! container, those around it are its parents. paddock's own, of every instance, are not found
//! but known; what is nested in them is found.

use crate::naming;

/// With the runtime by its name in policies.
const SCOPES: [(&str, &str); 5] = [
    ("docker-", "docker"),
    ("libpod-", "podman"),
    ("cri-containerd-", "containerd"),
    ("crio-", "crio"),
    ("nerdctl-", "containerd"),
];
/// Parents in which a bare id is a container: cgroupfs drivers use nothing else.
const BARE: [(&str, &str); 4] = [
    ("docker", "docker"),
    ("default", "containerd"),
    ("k8s.io", "containerd"),
    ("moby", "docker"),
];
/// `paddock/INSTANCE/ID`.
const OWN_DEPTH: usize = 3;

/// A container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// Relative to the hierarchy's mount, without leading slash.
    pub(crate) path: String,
    /// The runtime's full id, where the path has one.
    pub(crate) id: Option<String>,
    /// Docker-style: 12 digits of the id, else a name out of the path.
    pub(crate) name: String,
    /// Of the Kubernetes pod that it is in.
    pub(crate) pod_uid: Option<String>,
    /// As policies select by it, where the path says so.
    pub(crate) runtime: Option<&'static str>,
}

/// The container that the cgroup at `path` (absolute within its hierarchy) is, or is part of.
pub(crate) fn find(path: &str, globs: &[String]) -> Option<Match> {
    let components: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let all = components.len();
    // Below the root or a delegated cgroup; what another runtime's container nests is found.
    let own = components.iter().position(|part| *part == "paddock");
    let (before, within) = own.map_or((all, all), |own| (own, own + OWN_DEPTH));
    let lengths = (within + 1..=all).rev().chain((1..=before).rev());
    lengths
        .filter_map(|length| components.get(..length))
        .find_map(|prefix| container(prefix, globs))
}

/// Whether exactly this cgroup is one.
fn container(prefix: &[&str], globs: &[String]) -> Option<Match> {
    let path = prefix.join("/");
    let (last, parents) = prefix.split_last()?;
    let tracked = || {
        globs
            .iter()
            .any(|glob| matches(glob.trim_start_matches('/'), &path))
    };
    let (id, name) = match runtime_id(last, parents) {
        Some(id) => (Some(id.to_owned()), id[..12].to_owned()),
        None => match machine_name(last, parents) {
            Some(name) => (None, naming::sanitised(&unescaped(name))),
            None if tracked() => (None, naming::sanitised(&unescaped(last))),
            None => return None,
        },
    };
    Some(Match {
        runtime: runtime(last, parents),
        pod_uid: pod_uid(prefix),
        path,
        id,
        name,
    })
}

fn runtime_id<'a>(last: &'a str, parents: &[&str]) -> Option<&'a str> {
    let bare = last.strip_suffix(".scope").unwrap_or(last);
    let scoped = SCOPES
        .iter()
        .find_map(|(scope, _)| bare.strip_prefix(scope));
    // A cgroupfs driver that was given systemd's notation.
    let noted = || {
        let mut parts = last.rsplitn(3, ':');
        let id = parts.next()?;
        parts.nth(1).map(|_| id)
    };
    let below = parents
        .last()
        .is_some_and(|parent| bare_of(parent).is_some())
        || parents.iter().any(|parent| parent.starts_with("kubepods"));
    scoped
        .or_else(noted)
        .or(below.then_some(last))
        .filter(|id| is_id(id))
}

fn bare_of(parent: &str) -> Option<&'static str> {
    let found = BARE.iter().find(|(name, _)| *name == parent);
    found.map(|(_, runtime)| *runtime)
}

/// Who made the container at such a path. Of a bare id in a pod it says nothing.
fn runtime(last: &str, parents: &[&str]) -> Option<&'static str> {
    if runtime_id(last, parents).is_some() {
        let mut parts = last.rsplitn(3, ':');
        let noted = parts.nth(1).filter(|_| parts.next().is_some());
        let named = |(prefix, _): &&(&str, &str)| {
            let noted = noted.is_some_and(|noted| prefix.strip_suffix('-') == Some(noted));
            noted || last.starts_with(prefix)
        };
        let scoped = SCOPES.iter().find(named).map(|(_, runtime)| *runtime);
        return scoped.or_else(|| bare_of(parents.last()?));
    }
    if last.starts_with("lxc.payload.") || parents.last() == Some(&"lxc") {
        return Some("lxc");
    }
    // libvirt's containers have machines, too.
    let machine = last.starts_with("machine-") && !last.starts_with("machine-lxc");
    let nspawn = last.starts_with("systemd-nspawn@") || machine;
    nspawn.then_some("nspawn")
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn machine_name<'a>(last: &'a str, parents: &[&str]) -> Option<&'a str> {
    if parents.last() == Some(&"lxc") {
        return Some(last);
    }
    if let Some(name) = last.strip_prefix("lxc.payload.") {
        return Some(name);
    }
    if let Some(name) = last.strip_prefix("systemd-nspawn@") {
        return name.strip_suffix(".service");
    }
    let name = last.strip_prefix("machine-")?.strip_suffix(".scope")?;
    // libvirt's virtual machines: no container's walls to watch.
    (!name.starts_with("qemu")).then_some(name)
}

/// systemd's `\xHH` of a unit's name.
fn unescaped(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = byte.filter(u8::is_ascii_graphic) {
            text.push(char::from(byte));
            text.push_str(&part[2..]);
        } else {
            text.push_str("\\x");
            text.push_str(part);
        }
    }
    text
}

/// `podUID` below `kubepods`, or `kubepods-QOS-podUID.slice` with `_` for `-`.
fn pod_uid(prefix: &[&str]) -> Option<String> {
    let below = prefix.iter().position(|part| part.contains("kubepods"))?;
    prefix[below..].iter().rev().find_map(|part| {
        let part = part.split(':').next()?;
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let uid = match part.rsplit_once("-pod") {
            Some((_, uid)) => uid,
            None => part.strip_prefix("pod")?,
        };
        let uid = uid.replace('_', "-");
        let plausible = (8..=64).contains(&uid.len())
            && uid
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        plausible.then_some(uid)
    })
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
    const UID: &str = "1f4a2c5e-89ab-4cde-8f01-23456789abcd";

    fn found(path: &str) -> Option<(String, String)> {
        find(path, &["/byhand*".into(), "/a/?/x".into()]).map(|found| (found.path, found.name))
    }

    /// Paths as /proc/PID/cgroup showed them, ID and UID put in.
    #[test]
    fn known_runtimes_containers_are_found() {
        for (path, pod) in [
            // v2 and hybrid, systemd's driver.
            ("/system.slice/docker-ID.scope", false),
            ("/machine.slice/libpod-ID.scope", false),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
                false,
            ),
            (
                "/machine.slice/machine-libpod_pod_ID.slice/libpod-ID.scope",
                false,
            ),
            ("/system.slice/nerdctl-ID.scope", false),
            (
                "/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope",
                true,
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope",
                true,
            ),
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID_.slice/cri-containerd-ID.scope",
                true,
            ),
            // cgroupfs drivers, and v1.
            ("/docker/ID", false),
            ("/libpod_parent/libpod-ID", false),
            ("/default/ID", false),
            ("/k8s.io/ID", false),
            ("/moby/ID", false),
            ("/kubepods/podUID/ID", true),
            ("/kubepods/burstable/podUID/ID", true),
            ("/kubepods/besteffort/podUID/crio-ID", true),
            (
                "/system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID",
                true,
            ),
            ("/system.slice:docker:ID", false),
        ] {
            let path = path
                .replace("UID_", &UID.replace('-', "_"))
                .replace("UID", UID)
                .replace("ID", ID);
            let expected = path.trim_start_matches('/').to_owned();
            let saw = find(&path, &[]).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((&saw.path, saw.name.as_str()), (&expected, &ID[..12]));
            assert_eq!(saw.id.as_deref(), Some(ID));
            assert_eq!(saw.pod_uid.as_deref(), pod.then_some(UID), "{path}");
            // What is below it is part of it, unless it is one itself.
            assert_eq!(found(&format!("{path}/init.scope")).unwrap().0, expected);
            let nested = format!("{path}/docker/{ID}");
            assert_eq!(found(&nested).unwrap().0, nested[1..]);
        }
        for (path, name) in [
            ("/lxc.payload.web", "web"),
            ("/lxc/web", "web"),
            ("/machine.slice/machine-a\\x2db.scope", "a-b"),
            (
                "/machine.slice/machine-lxc\\x2d42\\x2dweb.scope",
                "lxc-42-web",
            ),
            ("/machine.slice/systemd-nspawn@web.service", "web"),
        ] {
            let expected = (path[1..].to_owned(), name.to_owned());
            assert_eq!(found(path), Some(expected.clone()));
            assert_eq!(found(&format!("{path}/payload/init.scope")), Some(expected));
        }
    }

    #[test]
    fn paths_say_who_made_them() {
        for (path, runtime) in [
            ("/system.slice/docker-ID.scope", Some("docker")),
            ("/docker/ID", Some("docker")),
            ("/machine.slice/libpod-ID.scope", Some("podman")),
            ("/system.slice/nerdctl-ID.scope", Some("containerd")),
            ("/k8s.io/ID", Some("containerd")),
            (
                "/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope",
                Some("containerd"),
            ),
            ("/kubepods/podUID/ID", None),
            ("/kubepods/podUID/crio-ID", Some("crio")),
            ("/system.slice:docker:ID", Some("docker")),
            ("/lxc.payload.web", Some("lxc")),
            ("/machine.slice/machine-web.scope", Some("nspawn")),
            ("/byhand", None),
        ] {
            let path = path.replace("UID_", &UID.replace('-', "_"));
            let path = path.replace("UID", UID).replace("ID", ID);
            let found = find(&path, &["/byhand".into()]).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(found.runtime, runtime, "{path}");
        }
    }

    #[test]
    fn what_is_beside_containers_is_none() {
        for path in [
            "/",
            "/docker",
            "/lxc",
            "/lxc.monitor.web",
            "/lxc.pivot",
            "/kubepods.slice/kubepods-pod1.slice",
            "/system.slice/docker.service",
            "/system.slice/nginx.service",
            "/user.slice/user-1000.slice",
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
            &format!("/machine.slice/libpod-conmon-{ID}.scope"),
            &format!("/machine.slice/machine-libpod_pod_{ID}.slice"),
            &format!("/crio-conmon-{ID}.scope"),
            &format!("/other/{ID}"),
            &format!("/docker/buildkit/{ID}"),
            &format!("/paddock/default/{ID}"),
            &format!("/paddock/default/docker-{ID}.scope"),
            &format!("/system.slice/paddock.service/paddock/default/docker-{ID}.scope"),
            &format!("/paddock/default/{ID}/init.scope"),
            "/docker/short",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
        let within = format!("/docker/{ID}/paddock/default/{ID}");
        assert_eq!(found(&within).unwrap().0, format!("docker/{ID}"));
        let nested = format!("/paddock/default/{ID}/libpod_parent/libpod-{ID}/x");
        assert_eq!(
            found(&nested).unwrap().0,
            format!("paddock/default/{ID}/libpod_parent/libpod-{ID}")
        );
    }

    #[test]
    fn units_are_containers_where_a_glob_says_so() {
        let globs = ["/system.slice/*.service".to_owned()];
        let saw = find("/system.slice/a\\x40b.service/sub", &globs).unwrap();
        assert_eq!(saw.name, "a_b.service");
        assert_eq!(find("/system.slice/a.scope", &globs), None);
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
