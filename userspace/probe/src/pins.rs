//! The instance's own bpffs: what is pinned there outlives the agent.
//!
//! `map_NAME`, `link_PROGRAM`, `prog_PROGRAM`; beside the mount a manifest that says which object
//! they are of. It is written last and removed first: without it the pins are leftovers, whose
//! maps the next programs may go on with (`swap`). What is not yet in force is `new_PROGRAM`'s.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramInfo,
    links::{FdLink, PinnedLink},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use serde::{Deserialize, Serialize};

use crate::{
    CapabilityStatus, Config, Error, NsInums, attachment::Place, ladder::QUESTION_PROGRAM,
};

/// What a successor needs to take over.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) object: u64,
    pub(crate) force: Vec<(String, String)>,
    pub(crate) program_log: bool,
    pub(crate) capabilities: Vec<CapabilityStatus>,
    pub(crate) programs: Vec<String>,
    /// Those that are loaded when they are wanted.
    #[serde(default)]
    pub(crate) late: Vec<String>,
    /// Those of them that have no link.
    pub(crate) held: Vec<(String, Place)>,
    /// Whether the kernel attaches a program once only.
    #[serde(default)]
    pub(crate) once: bool,
    pub(crate) host: NsInums,
}

impl Manifest {
    /// Whether what was pinned is what `config` would load.
    pub(crate) fn fits(&self, object: &[u8], config: &Config) -> bool {
        self.object == fingerprint(object)
            && self.force == config.force
            && self.program_log == config.program_log
    }

    pub(crate) fn read(pin_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(manifest_path(pin_dir)).ok()?).ok()
    }

    pub(crate) fn write(&self, pin_dir: &Path) -> Result<(), Error> {
        let path = manifest_path(pin_dir);
        let temporary = path.with_extension("json.new");
        let text = serde_json::to_vec(self).unwrap_or_default();
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .inspect_err(|_| {
                // What failed is told; half a file on a full disk helps nobody.
                let _ = fs::remove_file(&temporary);
            })
            .map_err(Error::io("write", &path))
    }
}

/// FNV-1a: to tell builds apart, not to resist anybody.
pub(crate) fn fingerprint(object: &[u8]) -> u64 {
    object.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

pub(crate) fn map_path(pin_dir: &Path, name: &str) -> PathBuf {
    pin_dir.join(format!("map_{name}"))
}

pub(crate) fn link_path(pin_dir: &Path, program: &str) -> PathBuf {
    pin_dir.join(format!("link_{program}"))
}

pub(crate) fn program_path(pin_dir: &Path, program: &str) -> PathBuf {
    pin_dir.join(format!("prog_{program}"))
}

/// The program that answers what `paddock_abi::question` asks; where nothing is, nothing is in
/// force. Another build's takes its place in one moment.
pub fn question_pin(pin_dir: &Path) -> PathBuf {
    program_path(pin_dir, QUESTION_PROGRAM)
}

/// Where a link and its program are until they take the old ones' places.
pub(crate) fn new_link_path(pin_dir: &Path, program: &str) -> PathBuf {
    pin_dir.join(format!("new_link_{program}"))
}

pub(crate) fn new_program_path(pin_dir: &Path, program: &str) -> PathBuf {
    pin_dir.join(format!("new_prog_{program}"))
}

const PREFIXES: [&str; 4] = ["map_", "link_", "prog_", NEW];
const NEW: &str = "new_";

fn manifest_path(pin_dir: &Path) -> PathBuf {
    pin_dir.with_extension("json")
}

/// Mounts the bpffs where it is not.
pub(crate) fn prepare(pin_dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(pin_dir)
        .map_err(Error::io("create", pin_dir))?;
    if is_bpffs(pin_dir) {
        return Ok(());
    }
    mount(
        Some("bpf"),
        pin_dir,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=0700"),
    )
    .map_err(|errno| Error::io("mount a bpffs on", pin_dir)(errno.into()))
}

/// Removes every pin; the kernel detaches what nobody holds.
pub(crate) fn clear(pin_dir: &Path) -> Result<(), Error> {
    forget(pin_dir)?;
    remove_where(pin_dir, |_| true)
}

/// From here on the pins are of no known object.
pub(crate) fn forget(pin_dir: &Path) -> Result<(), Error> {
    remove_if_there(&manifest_path(pin_dir))
}

/// Whether somebody's maps are there.
pub(crate) fn any_map(pin_dir: &Path) -> bool {
    fs::read_dir(pin_dir)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("map_"))
}

pub(crate) fn remove_program(pin_dir: &Path, program: &str) -> Result<(), Error> {
    remove_if_there(&program_path(pin_dir, program))
}

pub(crate) fn remove_link(pin_dir: &Path, program: &str) -> Result<(), Error> {
    remove_if_there(&link_path(pin_dir, program))
}

/// Ids of the programs that are in force: those whose links are, and those that are pinned
/// without.
pub(crate) fn programs_in_force(pin_dir: &Path) -> Result<HashSet<u32>, Error> {
    let entries = fs::read_dir(pin_dir).map_err(Error::io("list", pin_dir))?;
    let mut programs = HashSet::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", pin_dir))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        if name.starts_with("link_") {
            let of = |source| Error::link(&path, source);
            let link = FdLink::from(PinnedLink::from_pin(&path).map_err(of)?);
            programs.insert(link.info().map_err(of)?.program_id());
        } else if let Some(program) = name.strip_prefix("prog_")
            && !link_path(pin_dir, program).exists()
            && let Ok(info) = ProgramInfo::from_pin(&path)
        {
            programs.insert(info.id());
        }
    }
    Ok(programs)
}

/// Removes what never came into force.
pub(crate) fn clear_new(pin_dir: &Path) -> Result<(), Error> {
    remove_where(pin_dir, |name| name.starts_with(NEW))
}

/// Puts each new link and program into its place, where the old one goes in the same moment,
/// then removes those that have no successor. Programs `without_link` have none.
pub(crate) fn put_in_force(
    pin_dir: &Path,
    programs: &[String],
    without_link: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let put = |from: PathBuf, to: PathBuf| {
        fs::rename(&from, &to).map_err(|error| Error::io("rename", &from)(error))
    };
    for program in programs {
        if !without_link(program) {
            put(new_link_path(pin_dir, program), link_path(pin_dir, program))?;
        }
        put(
            new_program_path(pin_dir, program),
            program_path(pin_dir, program),
        )?;
    }
    let known = |program: &str| programs.iter().any(|one| one == program);
    remove_where(pin_dir, |name| {
        let link = name.strip_prefix("link_");
        let program = name.strip_prefix("prog_");
        link.is_some_and(|link| !known(link) || without_link(link))
            || program.is_some_and(|program| !known(program))
    })
}

/// Pins of ours that `chosen` says yes to.
fn remove_where(pin_dir: &Path, chosen: impl Fn(&str) -> bool) -> Result<(), Error> {
    if !is_bpffs(pin_dir) {
        return Ok(());
    }
    let entries = fs::read_dir(pin_dir).map_err(Error::io("list", pin_dir))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("list", pin_dir))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // A bpffs may hold iterators of the kernel's own (`maps.debug`), which cannot be removed.
        if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && chosen(&name) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// [`clear`], then unmounts and removes the directory.
pub(crate) fn remove(pin_dir: &Path) -> Result<(), Error> {
    clear(pin_dir)?;
    if is_bpffs(pin_dir) && is_mount_point(pin_dir) {
        umount2(pin_dir, MntFlags::MNT_DETACH)
            .map_err(|errno| Error::io("unmount", pin_dir)(errno.into()))?;
    }
    match fs::remove_dir(pin_dir) {
        // In a container it is in other places, too: among the mounts of those before it.
        Err(error)
            if ![io::ErrorKind::NotFound, io::ErrorKind::ResourceBusy].contains(&error.kind()) =>
        {
            Err(Error::io("remove", pin_dir)(error))
        }
        _ => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    path.parent()
        .is_some_and(|parent| device(parent) != device(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_another_build_or_rung_are_not_taken_over() {
        let config = Config {
            pin_dir: PathBuf::new(),
            force: Vec::new(),
            program_log: false,
        };
        let manifest = Manifest {
            object: fingerprint(b"object"),
            force: Vec::new(),
            program_log: false,
            capabilities: Vec::new(),
            programs: Vec::new(),
            late: Vec::new(),
            held: Vec::new(),
            once: false,
            host: [0; 8],
        };
        assert!(manifest.fits(b"object", &config));
        assert!(!manifest.fits(b"object2", &config));
        let forced = vec![("setns".to_owned(), "tracepoint".to_owned())];
        assert!(!manifest.fits(
            b"object",
            &Config {
                force: forced,
                ..config.clone()
            }
        ));
        assert!(!manifest.fits(
            b"object",
            &Config {
                program_log: true,
                ..config
            }
        ));
    }
}
