//! An instance is its state directory: locked by one agent, holding its socket and containers.
//!
//! Everything below is root's alone (0700). Files that only a running agent needs go when it
//! ends; those of containers stay as long as the containers.

mod directory;
mod lock;

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use self::lock::Lock;
use crate::disk;

/// Longest path a unix socket can have, its closing NUL aside.
const SUN_PATH: usize = 107;
const TRIES: u32 = 20;

/// A locked state directory.
#[derive(Debug)]
pub(crate) struct Instance {
    dir: PathBuf,
    name: String,
    /// The delegated cgroup that the agent has of its own.
    base: Option<String>,
    /// Where a predecessor that was killed had its containers' cgroups.
    former: Option<PathBuf>,
    /// Where else its containers' cgroups are, of an agent that was started elsewhere.
    elsewhere: Mutex<BTreeSet<PathBuf>>,
    lock: Mutex<Lock>,
}

/// `agent.json`: who serves the instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentFile {
    pub pid: u32,
    pub metrics_address: Option<SocketAddr>,
    /// Below every hierarchy's root: where its containers' cgroups are.
    #[serde(default)]
    pub cgroup_parent: Option<PathBuf>,
}

impl Instance {
    /// Makes and checks the directory and takes its lock. Fails when another agent has it.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, Error> {
        let mut left = TRIES;
        loop {
            match Self::open_once(state_dir) {
                // An agent that ends removes its directory, also between our look and our lock.
                Err(Error::Io { ref source, .. })
                    if source.kind() == io::ErrorKind::NotFound && left > 0 =>
                {
                    left -= 1;
                }
                done => return done,
            }
        }
    }

    fn open_once(state_dir: &Path) -> Result<Self, Error> {
        let made = directory::prepare(state_dir)?;
        let dir = fs::canonicalize(state_dir).map_err(|source| Error::Io {
            op: "resolve",
            path: state_dir.to_owned(),
            source,
        })?;
        let socket = dir.join("paddock.sock");
        if socket.as_os_str().len() > SUN_PATH {
            return Err(Error::TooLong {
                path: dir,
                most: SUN_PATH - "/paddock.sock".len(),
            });
        }
        let lock = Lock::take(&dir, made)?;
        Ok(Self {
            name: name_of(&dir),
            base: None,
            former: former_parent(&dir),
            elsewhere: Mutex::default(),
            dir,
            lock: Mutex::new(lock),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// `default` for /run/paddock, else eight hex digits of the path's hash.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pin_dir(&self) -> PathBuf {
        self.dir.join("bpf")
    }

    /// Where the next event's id is, for the successor of an agent that is killed.
    pub(crate) fn next_event_path(&self) -> PathBuf {
        self.dir.join("events.next")
    }

    pub(crate) fn containers_dir(&self) -> PathBuf {
        self.dir.join("containers")
    }

    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.containers_dir().join(id)
    }

    /// Containers' cgroups are below that one from now on.
    pub(crate) fn set_base(&mut self, base: Option<&str>) {
        self.base = base.map(str::to_owned);
    }

    pub(crate) fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// Relative to every hierarchy's mount.
    pub(crate) fn cgroup_parent(&self) -> PathBuf {
        let root = Path::new(self.base.as_deref().unwrap_or_default());
        root.join("paddock").join(&self.name)
    }

    /// Of a predecessor that was killed, where it was another.
    pub(crate) fn former_parent(&self) -> Option<&Path> {
        let former = self.former.as_deref();
        former.filter(|former| *former != self.cgroup_parent())
    }

    /// A container of this state directory is there.
    pub(crate) fn seen_at(&self, cgroup: &str) {
        if let Some(parent) = Path::new(cgroup).parent() {
            self.elsewhere().insert(parent.to_owned());
        }
    }

    /// All that there can be parents of containers' cgroups at, the present one last.
    pub(crate) fn cgroup_parents(&self) -> Vec<PathBuf> {
        let mut parents = self.elsewhere().clone();
        parents.extend(self.former_parent().map(Path::to_owned));
        let own = self.cgroup_parent();
        parents.remove(&own);
        parents.into_iter().chain([own]).collect()
    }

    fn elsewhere(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.elsewhere
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Relative to every hierarchy's mount.
    pub(crate) fn cgroup_of(&self, id: &str) -> String {
        self.cgroup_parent().join(id).display().to_string()
    }

    /// The API's socket, bound; one that a dead agent left is removed, which the lock makes safe.
    pub(crate) fn bind_socket(&self) -> Result<UnixListener, Error> {
        use std::os::unix::fs::PermissionsExt as _;

        let path = self.socket();
        let failed = |op| {
            let path = path.clone();
            move |source| Error::Io { op, path, source }
        };
        remove_file(&path)?;
        // The directory is 0700, so nobody can connect before the mode is set.
        let listener = UnixListener::bind(&path).map_err(failed("bind"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .and_then(|()| listener.set_nonblocking(true))
            .map_err(failed("set mode of"))?;
        Ok(listener)
    }

    pub(crate) fn write_agent_file(
        &self,
        metrics_address: Option<SocketAddr>,
    ) -> Result<(), Error> {
        let file = AgentFile {
            pid: std::process::id(),
            metrics_address,
            cgroup_parent: Some(self.cgroup_parent()),
        };
        match disk::write_json(&self.dir, "agent.json", &file) {
            // What the next agent needs of it a predecessor has written already.
            Err(error) if former_parent(&self.dir) == file.cgroup_parent => {
                tracing::warn!("agent.json has a former agent's id and address: {error}");
                Ok(())
            }
            written => written.map_err(|source| Error::Io {
                op: "write",
                path: self.dir.join("agent.json"),
                source,
            }),
        }
    }

    /// Stops listening under a name: clients that come now find nobody.
    pub(crate) fn remove_socket(&self) {
        // What cannot be removed now is stale, and the next agent's to remove.
        let _ = remove_file(&self.socket());
    }

    /// Removes what only a running agent needs; the directory too when paddock made it or
    /// `forget`, and nothing of a container is left in it.
    pub(crate) fn close(&self, forget: bool) {
        self.remove_socket();
        let _ = remove_file(&self.dir.join("agent.json"));
        // Fails where something is in it, which then stays.
        let _ = fs::remove_dir(self.containers_dir());
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.release(self.holds_more_than_lock());
        if forget || lock.made_directory() {
            let _ = fs::remove_dir(&self.dir);
        }
    }

    fn holds_more_than_lock(&self) -> bool {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name() != "lock")
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("paddock.sock")
    }
}

/// FNV-1a, 64 bits: stable across versions and machines, which std's hashers are not.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Below every hierarchy's root: where the cgroups of this state directory's containers are.
pub fn cgroup_parent(state_dir: &Path) -> io::Result<PathBuf> {
    let dir = fs::canonicalize(state_dir)?;
    Ok(former_parent(&dir).unwrap_or_else(|| Path::new("paddock").join(name_of(&dir))))
}

/// As [`Instance::name`], of a directory that is there.
pub(crate) fn name(state_dir: &Path) -> io::Result<String> {
    Ok(name_of(&fs::canonicalize(state_dir)?))
}

/// The delegated cgroup that a parent is below, as [`Instance::cgroup_parent`] makes it.
pub fn delegated_base(parent: &Path) -> Option<&str> {
    let base = parent.parent()?.parent()?.to_str()?;
    (!base.is_empty()).then_some(base)
}

/// What an agent that runs, or was killed, wrote down.
fn former_parent(dir: &Path) -> Option<PathBuf> {
    let file: AgentFile = disk::read_json(&dir.join("agent.json")).ok()??;
    file.cgroup_parent
}

fn name_of(dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;

    if dir == Path::new("/run/paddock") {
        return "default".to_owned();
    }
    let hash = format!("{:016x}", fnv1a(dir.as_os_str().as_bytes()));
    hash[..8].to_owned()
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Io {
            op: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("state directory {path} {reason}")]
    Unsafe { path: PathBuf, reason: String },
    #[error("state directory {path} is too long for a socket's address: at most {most} bytes")]
    TooLong { path: PathBuf, most: usize },
    #[error(
        "an agent{} serves {path} already: use it, or choose another --state-dir",
        pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    Running { path: PathBuf, pid: Option<i32> },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable() {
        assert_eq!(name_of(Path::new("/run/paddock")), "default");
        // FNV-1a's published test vector.
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(name_of(Path::new("foobar")), "85944171");
    }

    #[test]
    fn a_successor_knows_where_a_killed_agent_had_its_cgroups() {
        let dir = crate::fixture::Dir::new();
        let mut first = Instance::open(dir.path()).unwrap();
        let at_root = first.cgroup_of("ab");
        assert!(at_root.starts_with("paddock/"), "{at_root}");
        first.set_base(Some("system.slice/paddock.service"));
        first.write_agent_file(None).unwrap();
        let parent = cgroup_parent(dir.path()).unwrap();
        assert_eq!(parent, first.cgroup_parent());
        assert_eq!(
            delegated_base(&parent),
            Some("system.slice/paddock.service")
        );
        drop(first);
        let second = Instance::open(dir.path()).unwrap();
        assert_eq!(second.former_parent(), Some(parent.as_path()));
        assert_eq!(delegated_base(&second.cgroup_parent()), None);
        second.close(false);
        assert_eq!(cgroup_parent(dir.path()).unwrap(), second.cgroup_parent());
    }

    #[test]
    fn a_second_agent_is_refused_and_told_the_first() {
        let dir = crate::fixture::Dir::new();
        let path = dir.path().join("state");
        let first = Instance::open(&path).unwrap();
        let error = Instance::open(&path).unwrap_err();
        assert!(
            matches!(&error, Error::Running { pid: Some(pid), .. } if pid.cast_unsigned() == std::process::id()),
            "{error:?}"
        );
        first.close(false);
        assert!(!path.exists(), "paddock made it and nothing is in it");
        Instance::open(&path).unwrap().close(false);
    }

    #[test]
    fn a_container_keeps_the_directory() {
        let dir = crate::fixture::Dir::new();
        let path = dir.path().join("state");
        let instance = Instance::open(&path).unwrap();
        fs::create_dir_all(instance.container_dir("ab")).unwrap();
        let _listener = instance.bind_socket().unwrap();
        instance.write_agent_file(None).unwrap();
        instance.close(true);
        drop(instance);
        let mut left: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["containers", "lock"]);
        fs::remove_dir_all(path.join("containers")).unwrap();
        Instance::open(&path).unwrap().close(false);
        assert!(!path.exists(), "the first one had made it");
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = crate::fixture::Dir::new();
        let instance = Instance::open(dir.path()).unwrap();
        drop(instance.bind_socket().unwrap());
        drop(instance.bind_socket().unwrap());
        instance.close(false);
        assert!(dir.path().is_dir(), "somebody else made it");
    }
}
