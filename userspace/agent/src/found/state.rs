//! What a runtime has written down of its container: name, image, pod.
//!
//! By the full id that the cgroup's path has, out of the places where podman, CRI-O, docker and
//! containerd keep it. The directories are root's; what is in the files came from whoever had the
//! container made. So they are opened below their directory without following links, read up to
//! a bound, and a file that is not as expected says nothing.

use std::{fs, fs::File, io::Read as _, os::fd::OwnedFd, path::Path};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};
use serde_json::Value;

use crate::naming;

const LARGEST: u64 = 4 << 20;
/// Of a text that is shown.
const LONGEST: usize = 256;
/// Namespaces of containerd that are looked through.
const NAMESPACES: usize = 64;
/// containers/storage, podman's and CRI-O's: where it is unless its settings say otherwise.
const STORES: [&str; 2] = ["/var/lib/containers/storage", "/run/containers/storage"];
const STORE_SETTINGS: &str = "/etc/containers/storage.conf";
/// As podman itself has it.
const STORE_SETTINGS_VARIABLE: &str = "CONTAINERS_STORAGE_CONF";
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];
const DOCKER: &str = "/var/lib/docker/containers";
const CONTAINERD: &str = "/run/containerd/io.containerd.runtime.v2.task";

/// What is known beyond the cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) name: Option<String>,
    pub(crate) image: Option<String>,
    pub(crate) pod: Option<String>,
    pub(crate) pod_namespace: Option<String>,
    pub(crate) pod_uid: Option<String>,
    /// Whose files have it, as policies select by it.
    pub(crate) runtime: Option<&'static str>,
}

impl Written {
    /// As Kubernetes' own labels.
    pub(crate) fn labels(&self) -> Vec<(String, String)> {
        let label = |key: &str, value: &Option<String>| {
            value
                .clone()
                .map(|value| (format!("io.kubernetes.pod.{key}"), value))
        };
        [
            label("name", &self.pod),
            label("namespace", &self.pod_namespace),
            label("uid", &self.pod_uid),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What is written of container `id` (64 hex digits) on this host. Blocking, some file reads.
pub(crate) fn written(id: &str) -> Option<Written> {
    below(Path::new("/"), id)
}

fn below(root: &Path, id: &str) -> Option<Written> {
    stored(root, id)
        .or_else(|| docker(root, id))
        .or_else(|| containerd(root, id))
}

fn stored(root: &Path, id: &str) -> Option<Written> {
    for store in stores(root) {
        for driver in DRIVERS {
            let Some(dir) = directory(root, &format!("{store}/{driver}-containers")) else {
                continue;
            };
            let config = json(&dir, &format!("{id}/userdata/config.json"));
            let listed = json(&dir, "containers.json").and_then(|list| entry(&list, id));
            let kubernetes = config
                .as_ref()
                .and_then(|config| crio(&config["annotations"]));
            if let Some(found) = kubernetes.or(listed) {
                return Some(found);
            }
        }
    }
    None
}

/// `graphroot = "/…"` and `runroot = "/…"` of the settings, and the usual places.
fn stores(root: &Path) -> Vec<String> {
    let settings = std::env::var_os(STORE_SETTINGS_VARIABLE)
        .map_or_else(|| at(root, STORE_SETTINGS), Into::into);
    let text = fs::read_to_string(settings).unwrap_or_default();
    let set = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        let known = ["graphroot", "runroot"].contains(&key.trim());
        let value = value.trim().trim_matches('"');
        (known && value.starts_with('/')).then(|| value.to_owned())
    });
    set.chain(STORES.map(str::to_owned)).collect()
}

/// podman's, in the list of all: its metadata are JSON again.
fn entry(list: &Value, id: &str) -> Option<Written> {
    let mut entries = list.as_array()?.iter();
    let entry = entries.find(|entry| entry["id"].as_str() == Some(id))?;
    let metadata: Value = entry["metadata"]
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    Some(Written {
        name: name(&entry["names"][0]).or_else(|| name(&metadata["name"])),
        runtime: Some("podman"),
        image: text(&metadata["image-name"]),
        ..Written::default()
    })
}

fn crio(annotations: &Value) -> Option<Written> {
    let of = |key: &str| &annotations[format!("io.kubernetes.{key}")];
    let pod = text(of("pod.name"))?;
    let container = text(of("container.name"));
    Some(Written {
        name: Some(in_pod(&pod, container.as_deref())),
        image: text(of("cri-o.ImageName")),
        pod_namespace: text(of("pod.namespace")),
        pod_uid: text(of("pod.uid")),
        pod: Some(pod),
        runtime: Some("crio"),
    })
}

fn docker(root: &Path, id: &str) -> Option<Written> {
    let dir = directory(root, DOCKER)?;
    let config = json(&dir, &format!("{id}/config.v2.json"))?;
    Some(Written {
        name: name(&config["Name"]),
        runtime: Some("docker"),
        image: text(&config["Config"]["Image"]),
        ..Written::default()
    })
}

fn containerd(root: &Path, id: &str) -> Option<Written> {
    let namespaces = fs::read_dir(at(root, CONTAINERD)).ok()?;
    let tasks = directory(root, CONTAINERD)?;
    namespaces.flatten().take(NAMESPACES).find_map(|namespace| {
        let namespace = namespace.file_name();
        let config = json(&tasks, &format!("{}/{id}/config.json", namespace.to_str()?))?;
        let annotations = &config["annotations"];
        let of = |key: &str| &annotations[format!("io.kubernetes.cri.{key}")];
        let pod = text(of("sandbox-name"));
        let container = text(of("container-name"));
        let own = name(&annotations["nerdctl/name"]);
        Some(Written {
            name: own.or_else(|| Some(in_pod(pod.as_ref()?, container.as_deref()))),
            image: text(of("image-name")),
            pod_namespace: text(of("sandbox-namespace")),
            pod_uid: text(of("sandbox-uid")),
            pod,
            runtime: Some("containerd"),
        })
    })
}

/// Neither part has a `_` in Kubernetes; the one that holds a pod's namespaces has no name.
fn in_pod(pod: &str, container: Option<&str>) -> String {
    naming::sanitised(&format!("{pod}_{}", container.unwrap_or("POD")))
}

fn name(value: &Value) -> Option<String> {
    let name = value.as_str()?.trim_start_matches('/');
    (!name.is_empty()).then(|| naming::sanitised(name))
}

fn text(value: &Value) -> Option<String> {
    let kept: String = value
        .as_str()?
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect();
    (!kept.is_empty()).then_some(kept)
}

fn at(root: &Path, absolute: &str) -> std::path::PathBuf {
    root.join(absolute.trim_start_matches('/'))
}

/// The operator may have it elsewhere, behind a link.
fn directory(root: &Path, absolute: &str) -> Option<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(&at(root, absolute), flags, Mode::empty()).ok()
}

fn json(dir: &OwnedFd, path: &str) -> Option<Value> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = File::from(openat2(dir, path, how).ok()?);
    let found = file.metadata().ok()?;
    if !found.is_file() || found.len() > LARGEST {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    struct Root(std::path::PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("paddock-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path.replace("ID", ID));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("ID", ID)).unwrap();
        }

        fn found(&self) -> Written {
            below(&self.0, ID).unwrap_or_default()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn podmans_names_and_images() {
        let root = Root::new("podman");
        let store = "var/lib/containers/storage/vfs-containers";
        root.write(
            &format!("{store}/ID/userdata/config.json"),
            r#"{"annotations":{}}"#,
        );
        root.write(
            &format!("{store}/containers.json"),
            r#"[{"id":"x"},{"id":"ID","names":["web"],"metadata":"{\"image-name\":\"docker.io/library/nginx:1\"}"}]"#,
        );
        let found = root.found();
        assert_eq!(found.name.as_deref(), Some("web"));
        assert_eq!(found.image.as_deref(), Some("docker.io/library/nginx:1"));
    }

    #[test]
    fn a_store_that_is_elsewhere() {
        let root = Root::new("elsewhere");
        root.write(
            "etc/containers/storage.conf",
            "[storage]\ndriver = \"zfs\"\ngraphroot = \"/data/x\"\n# runroot = \"/y\"\n",
        );
        root.write(
            "data/x/zfs-containers/containers.json",
            r#"[{"id":"ID","names":["web"]}]"#,
        );
        assert_eq!(root.found().name.as_deref(), Some("web"));
    }

    #[test]
    fn dockers_names_and_images() {
        let root = Root::new("docker");
        root.write(
            "var/lib/docker/containers/ID/config.v2.json",
            r#"{"Name":"/web","Config":{"Image":"nginx"}}"#,
        );
        let found = root.found();
        assert_eq!(
            (found.name.as_deref(), found.image.as_deref()),
            (Some("web"), Some("nginx"))
        );
    }

    #[test]
    fn pods_of_containerd_and_crio() {
        let expected = |runtime| Written {
            runtime: Some(runtime),
            name: Some("shop-1_cart".to_owned()),
            image: Some("cart:2".to_owned()),
            pod: Some("shop-1".to_owned()),
            pod_namespace: Some("prod".to_owned()),
            pod_uid: Some("u".to_owned()),
        };
        let root = Root::new("containerd");
        root.write(
            "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
            r#"{"annotations":{"io.kubernetes.cri.container-name":"cart","io.kubernetes.cri.sandbox-name":"shop-1","io.kubernetes.cri.sandbox-namespace":"prod","io.kubernetes.cri.sandbox-uid":"u","io.kubernetes.cri.image-name":"cart:2"}}"#,
        );
        assert_eq!(root.found(), expected("containerd"));
        let root = Root::new("crio");
        root.write(
            "run/containers/storage/overlay-containers/ID/userdata/config.json",
            r#"{"annotations":{"io.kubernetes.container.name":"cart","io.kubernetes.pod.name":"shop-1","io.kubernetes.pod.namespace":"prod","io.kubernetes.pod.uid":"u","io.kubernetes.cri-o.ImageName":"cart:2"}}"#,
        );
        assert_eq!(root.found(), expected("crio"));
        assert_eq!(expected("crio").labels()[1].1, "prod");
    }

    #[test]
    fn hostile_files_say_nothing() {
        let root = Root::new("hostile");
        let config = "var/lib/docker/containers/ID/config.v2.json".replace("ID", ID);
        for text in ["", "[]", "{\"Name\":7,\"Config\":[]}", &"[".repeat(100_000)] {
            root.write(&config, text);
            let found = root.found();
            assert_eq!((found.name, found.image), (None, None));
        }
        root.write(
            &config,
            r#"{"Name":"/../x\u0007","Config":{"Image":"a\nb"}}"#,
        );
        let found = root.found();
        assert_eq!(
            (found.name.as_deref(), found.image.as_deref()),
            (Some("x_"), Some("ab"))
        );
        root.write("elsewhere", r#"{"Name":"/secret"}"#);
        fs::remove_file(root.0.join(&config)).unwrap();
        symlink(root.0.join("elsewhere"), root.0.join(&config)).unwrap();
        assert_eq!(root.found(), Written::default());
    }
}
