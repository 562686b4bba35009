//! Programs and sockets of this host's container runtimes: whoever gets hold of one of them from
//! inside a container is the host's root. The kernel half knows them by inode and device.
//!
//! An agent in a container, as on Kubernetes, is spoken to from within that one: its own socket is
//! nothing foreign there, and is to every other container.

use std::{
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::stat::{major, minor};
use paddock_probe::{FileId, RuntimeFile, Slot};

use crate::{found, shared::Shared};

/// Runtimes are restarted and upgraded: their files are others then.
const AGAIN: Duration = Duration::from_secs(30);

const DIRECTORIES: [&str; 7] = [
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/libexec/podman",
    "/usr/lib/podman",
    "/opt/containerd/bin",
];

const PROGRAMS: [&str; 16] = [
    "conmon",
    "containerd",
    "containerd-shim-runc-v2",
    "crio",
    "crun",
    "docker",
    "docker-init",
    "docker-proxy",
    "dockerd",
    "kubelet",
    "lxc-start",
    "nerdctl",
    "paddock",
    "podman",
    "runc",
    "youki",
];

const SOCKETS: [&str; 8] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/dockershim.sock",
    "/var/lib/kubelet/pod-resources/kubelet.sock",
];

/// Keeps the kernel half's list right until the agent ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        let this = Arc::clone(&shared);
        let work = tokio::task::spawn_blocking(move || tell(&this));
        // A panic has told of itself; the next round starts afresh.
        let _ = work.await;
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            _ = shutdown.wait_for(|down| *down) => return,
        }
    }
}

fn tell(shared: &Shared) {
    let own_slot = found::around_agent(shared).and_then(|container| container.facts().slot);
    let own_socket = shared.options.state_dir.join("paddock.sock");
    let files: Vec<_> = programs()
        .chain(SOCKETS.iter().map(PathBuf::from))
        .filter_map(|path| look(&path, None))
        .chain(look(&own_socket, own_slot))
        .collect();
    if let Err(error) = shared.kernel.set_runtime_files(&files) {
        tracing::warn!(
            "runtimes' files are not watched: {}",
            crate::chain::chain(&error)
        );
    }
}

fn programs() -> impl Iterator<Item = PathBuf> {
    let named = DIRECTORIES
        .iter()
        .flat_map(|directory| PROGRAMS.iter().map(|name| Path::new(directory).join(name)));
    named.chain(std::env::current_exe())
}

/// `None` where it is not there.
fn look(path: &Path, of: Option<Slot>) -> Option<(FileId, RuntimeFile)> {
    let found = std::fs::metadata(path).ok()?;
    let kind = if found.file_type().is_socket() {
        RuntimeFile::Socket { of }
    } else if found.is_file() {
        RuntimeFile::Program
    } else {
        return None;
    };
    let id = FileId {
        inode: found.ino(),
        major: u32::try_from(major(found.dev())).ok()?,
        minor: u32::try_from(minor(found.dev())).ok()?,
    };
    Some((id, kind))
}
