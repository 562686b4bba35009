//! Volumes and tmpfs mounts in docker's notation: `-v`, `--tmpfs`, `--mount`.
//!
//! Sources are the caller's to make absolute; targets are inside, never followed out of the root.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use paddock_cgroups::parse::size;
use paddock_runtime::{
    defaults::{NODEV_MOUNT, NOEXEC_MOUNT, NOSUID_MOUNT, READ_ONLY_MOUNT},
    spec::{IdMaps, Mount, MountSource, Propagation, id},
};
use serde::{Deserialize, Serialize};

/// A file or directory of the host's, shown inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The host's.
    pub source: PathBuf,
    /// Absolute, inside; made when missing.
    pub target: PathBuf,
    pub flags: MountFlags,
    pub propagation: Propagation,
    /// Gives its files to the container's user, on disk (podman's `U`).
    pub chown: bool,
    /// Asks for SELinux labels (`z`, `Z`), which paddock does not set.
    pub relabel: bool,
}

/// Memory that looks like a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub target: PathBuf,
    pub flags: MountFlags,
    /// tmpfs(5)'s, checked.
    pub parameters: Vec<(String, String)>,
}

/// `None`: as the source has it; of a tmpfs, not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    pub read_only: Option<bool>,
    pub suid: Option<bool>,
    pub dev: Option<bool>,
    pub exec: Option<bool>,
}

/// What `--mount` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    Volume(Volume),
    Tmpfs(Tmpfs),
}

impl MountFlags {
    /// `true`: it was one of mount(8)'s words for these.
    fn set(&mut self, word: &str) -> bool {
        let (flag, value) = match word {
            "ro" | "readonly" => (&mut self.read_only, true),
            "rw" => (&mut self.read_only, false),
            "suid" => (&mut self.suid, true),
            "nosuid" => (&mut self.suid, false),
            "dev" => (&mut self.dev, true),
            "nodev" => (&mut self.dev, false),
            "exec" => (&mut self.exec, true),
            "noexec" => (&mut self.exec, false),
            _ => return false,
        };
        *flag = Some(value);
        true
    }

    /// `MOUNT_ATTR_*` bits to set and to clear.
    fn bits(self) -> (u64, u64) {
        let mut bits = (0, 0);
        for (attribute, on) in [
            (READ_ONLY_MOUNT, self.read_only.filter(|on| *on)),
            (NOSUID_MOUNT, self.suid.map(|allowed| !allowed)),
            (NODEV_MOUNT, self.dev.map(|allowed| !allowed)),
            (NOEXEC_MOUNT, self.exec.map(|allowed| !allowed)),
        ] {
            match on {
                Some(true) => bits.0 |= attribute,
                Some(false) => bits.1 |= attribute,
                None => {}
            }
        }
        bits
    }
}

impl Volume {
    fn new(source: &str, target: &str) -> Result<Self, String> {
        if !source.starts_with(['/', '.']) {
            return Err(
                "the source is a path starting with / or .: there are no named volumes".to_owned(),
            );
        }
        Ok(Self {
            source: source.into(),
            target: inside(target)?,
            flags: MountFlags::default(),
            propagation: Propagation::Private,
            chown: false,
            relabel: false,
        })
    }

    fn set(&mut self, word: &str) -> bool {
        match word {
            "z" | "Z" => self.relabel = true,
            "U" => self.chown = true,
            // What every volume is here.
            "rbind" | "nocopy" | "consistent" | "cached" | "delegated" => {}
            word => match propagation(word) {
                Some(propagation) => self.propagation = propagation,
                None => return self.flags.set(word),
            },
        }
        true
    }

    pub(crate) fn to_spec(&self, maps: Option<&IdMaps>) -> Mount {
        let source = MountSource::Bind {
            path: self.source.clone(),
            recursive: true,
        };
        let (set, clear) = self.flags.bits();
        Mount {
            target: self.target.clone(),
            clear,
            recursive: true,
            propagation: self.propagation,
            follow: true,
            id_maps: maps.filter(|_| !self.chown).cloned(),
            chown: self.chown,
            ..Mount::fixed("/", source, set)
        }
    }
}

impl Tmpfs {
    fn new(target: &str) -> Result<Self, String> {
        Ok(Self {
            target: inside(target)?,
            flags: MountFlags::default(),
            parameters: Vec::new(),
        })
    }

    fn set(&mut self, word: &str) -> Result<(), String> {
        if self.flags.set(word) {
            return Ok(());
        }
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let valid = match key {
            "size" => {
                let percent = value.strip_suffix('%').and_then(|text| text.parse().ok());
                percent.is_some_and(|percent: u8| (1..=100).contains(&percent))
                    || size(value).is_ok_and(|bytes| bytes > 0)
            }
            "mode" => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777),
            "uid" | "gid" => id(value).is_some(),
            "nr_inodes" | "nr_blocks" => size(value).is_ok(),
            _ => {
                return Err(format!(
                    "'{key}' is no option of a tmpfs: size=, mode=, uid=, gid=, nr_inodes=, nr_blocks=, ro, rw, [no]exec, [no]suid, [no]dev"
                ));
            }
        };
        if !valid || value.starts_with('+') {
            return Err(format!("'{word}': not a valid {key}"));
        }
        self.parameters.retain(|(known, _)| known != key);
        self.parameters.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    pub(crate) fn to_spec(&self) -> Mount {
        let closed = |flag: Option<bool>| Some(flag.unwrap_or(false));
        let flags = MountFlags {
            read_only: self.flags.read_only,
            suid: closed(self.flags.suid),
            dev: closed(self.flags.dev),
            exec: closed(self.flags.exec),
        };
        let parameters = self.parameters.iter();
        let source = MountSource::New {
            kind: "tmpfs".to_owned(),
            parameters: parameters
                .map(|(key, value)| (key.clone(), Some(value.clone())))
                .collect(),
        };
        Mount {
            target: self.target.clone(),
            follow: true,
            ..Mount::fixed("/", source, flags.bits().0)
        }
    }
}

/// `SOURCE:TARGET[:OPTION,...]`.
pub fn volume(text: &str) -> Result<Volume, String> {
    let (source, target, options) = match text.split(':').collect::<Vec<_>>()[..] {
        [source, target] => (source, target, ""),
        [source, target, options] if !options.is_empty() => (source, target, options),
        _ => return Err("expected SOURCE:TARGET or SOURCE:TARGET:OPTIONS, such as ro".to_owned()),
    };
    let mut volume = Volume::new(source, target)?;
    for word in options.split(',').filter(|word| !word.is_empty()) {
        if !volume.set(word) {
            return Err(format!(
                "'{word}' is no option of a volume: ro, rw, U, [no]exec, [no]suid, [no]dev, [r]private, [r]slave, [r]shared, z, Z"
            ));
        }
    }
    Ok(volume)
}

/// `TARGET[:OPTION,...]`.
pub fn tmpfs(text: &str) -> Result<Tmpfs, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut tmpfs = Tmpfs::new(target)?;
    for word in options.split(',').filter(|word| !word.is_empty()) {
        tmpfs.set(word)?;
    }
    Ok(tmpfs)
}

/// `type=bind|tmpfs,source=…,target=…[,OPTION...]`.
pub fn mount(text: &str) -> Result<Mounted, String> {
    let (mut kind, mut source, mut target) = (None, None, None);
    let mut rest = Vec::new();
    for word in text.split(',') {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "type" => kind = Some(value),
            "source" | "src" => source = Some(value),
            "target" | "destination" | "dst" => target = Some(value),
            _ => rest.push((key, value, word)),
        }
    }
    let target = target.ok_or("target= is missing")?;
    match kind {
        Some("bind") => {
            let mut volume = Volume::new(source.ok_or("source= is missing")?, target)?;
            for (key, value, word) in rest {
                let known = match (key, value) {
                    ("bind-propagation", value) => propagation(value)
                        .map(|propagation| volume.propagation = propagation)
                        .is_some(),
                    ("ro" | "readonly", "false" | "0") | ("rw", "true" | "1") => volume.set("rw"),
                    ("ro" | "readonly", "true" | "1") | ("rw", "false" | "0") => volume.set("ro"),
                    ("U" | "chown", "" | "true" | "1") => volume.set("U"),
                    ("consistency", _) => true,
                    _ => volume.set(word),
                };
                if !known {
                    return Err(format!("'{word}' is no option of type=bind"));
                }
            }
            Ok(Mounted::Volume(volume))
        }
        Some("tmpfs") => {
            if source.is_some() {
                return Err("type=tmpfs has no source".to_owned());
            }
            let mut tmpfs = Tmpfs::new(target)?;
            for (key, value, word) in rest {
                match (key, value) {
                    ("tmpfs-size", value) => tmpfs.set(&format!("size={value}"))?,
                    ("tmpfs-mode", value) => tmpfs.set(&format!("mode={value}"))?,
                    ("ro" | "readonly", "true" | "1") => tmpfs.set("ro")?,
                    ("ro" | "readonly", "false" | "0") => tmpfs.set("rw")?,
                    _ => tmpfs.set(word)?,
                }
            }
            Ok(Mounted::Tmpfs(tmpfs))
        }
        _ => Err("type= is bind or tmpfs: there are no named volumes".to_owned()),
    }
}

/// Their mounts, those higher up first, so that none hides another.
pub(crate) fn to_spec(volumes: &[Volume], tmpfs: &[Tmpfs], maps: Option<&IdMaps>) -> Vec<Mount> {
    let volumes = volumes.iter().map(|volume| volume.to_spec(maps));
    let mut mounts: Vec<_> = volumes.chain(tmpfs.iter().map(Tmpfs::to_spec)).collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    mounts
}

/// A path that two of them want.
pub(crate) fn doubled<'a>(volumes: &'a [Volume], tmpfs: &'a [Tmpfs]) -> Option<&'a Path> {
    let volumes = volumes.iter().map(|volume| &volume.target);
    let mut seen = BTreeSet::new();
    volumes
        .chain(tmpfs.iter().map(|tmpfs| &tmpfs.target))
        .map(PathBuf::as_path)
        .find(|target| !seen.insert(*target))
}

fn propagation(word: &str) -> Option<Propagation> {
    Some(match word {
        "private" | "rprivate" => Propagation::Private,
        "slave" | "rslave" => Propagation::Slave,
        "shared" | "rshared" => Propagation::Shared,
        _ => return None,
    })
}

/// Absolute, below the root, in its shortest form.
fn inside(target: &str) -> Result<PathBuf, String> {
    let path = Path::new(target);
    let mut parts = path.components().skip(1).peekable();
    if !path.is_absolute()
        || target.contains('\0')
        || parts.peek().is_none()
        || parts.any(|part| part == Component::ParentDir)
    {
        return Err("the target is an absolute path inside, below / and without '..'".to_owned());
    }
    Ok(path.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_volume() {
        let parsed = volume("/a:/b/./c/:ro,nosuid,exec,rslave,U,z").unwrap();
        assert_eq!(parsed.target, Path::new("/b/c"));
        assert_eq!(
            parsed.flags.bits(),
            (READ_ONLY_MOUNT | NOSUID_MOUNT, NOEXEC_MOUNT)
        );
        assert_eq!(parsed.propagation, Propagation::Slave);
        assert!(parsed.chown && parsed.relabel);
        assert_eq!(volume("./a:/b:rw").unwrap().flags.bits(), (0, 0));
        for wrong in [
            "/a",
            "/a:b",
            "/a:/",
            "/a:/b/../..",
            "/a:/b:",
            "/a:/b:rx",
            "/a:/b:ro:x",
            "a:/b",
            ":/b",
            "/a:/b:size=1m",
        ] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tmpfs_is_closed_unless_it_is_opened() {
        let all = NOSUID_MOUNT | NODEV_MOUNT | NOEXEC_MOUNT;
        assert_eq!(tmpfs("/t").unwrap().to_spec().set, all);
        let open = tmpfs("/t:size=64m,mode=0700,exec,ro,uid=5").unwrap();
        assert_eq!(
            open.to_spec().set,
            READ_ONLY_MOUNT | NOSUID_MOUNT | NODEV_MOUNT
        );
        let parameters = [("size", "64m"), ("mode", "0700"), ("uid", "5")];
        assert_eq!(
            open.parameters,
            parameters.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
        for wrong in [
            "t",
            "/",
            "/t:size=",
            "/t:size=0",
            "/t:size=101%",
            "/t:mode=9",
            "/t:mode=+7",
            "/t:uid=4294967295",
            "/t:huge=always",
            "/t:U",
        ] {
            assert!(tmpfs(wrong).is_err(), "{wrong}");
        }
        assert!(tmpfs("/t:size=50%").is_ok());
    }

    #[test]
    fn a_mount_is_either() {
        let bind = mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rshared");
        let mut expected = volume("/a:/b:ro,shared").unwrap();
        assert_eq!(bind, Ok(Mounted::Volume(expected.clone())));
        expected.flags.read_only = Some(false);
        assert_eq!(
            mount("type=bind,source=/a,target=/b,ro=false,bind-propagation=shared"),
            Ok(Mounted::Volume(expected))
        );
        assert_eq!(
            mount("type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=700"),
            Ok(Mounted::Tmpfs(tmpfs("/t:size=1m,mode=700").unwrap()))
        );
        for wrong in [
            "",
            "type=bind",
            "type=bind,src=/a",
            "type=volume,src=/a,dst=/b",
            "type=tmpfs,src=/a,dst=/b",
            "type=bind,src=/a,dst=/b,volume-nocopy",
            "src=/a,dst=/b",
        ] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn higher_ones_come_first_and_none_twice() {
        let volumes = [volume("/x:/a/b/c").unwrap(), volume("/x:/a").unwrap()];
        let memory = [tmpfs("/a/b").unwrap()];
        let order: Vec<_> = to_spec(&volumes, &memory, None)
            .into_iter()
            .map(|mount| mount.target)
            .collect();
        assert_eq!(order, ["/a", "/a/b", "/a/b/c"].map(PathBuf::from));
        assert_eq!(doubled(&volumes, &memory), None);
        let again = [tmpfs("/a/").unwrap()];
        assert_eq!(doubled(&volumes, &again), Some(Path::new("/a")));
    }
}
