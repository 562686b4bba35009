//! The words of a mount's `options`: attributes, propagation, and what is the file system's.
//!
//! runtime-spec config.md's table. The kernel's bits are mount_setattr(2)'s.

use nix::libc;
use oci_spec::runtime::Mount;
use paddock_runtime::spec::Propagation;

use crate::{config::shorten, error::Error};

const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

/// What a mount's options say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `Some(true)`: with what is mounted below.
    pub bind: Option<bool>,
    pub set: u64,
    pub clear: u64,
    pub recursive: bool,
    pub propagation: Option<Propagation>,
    pub copy_up: bool,
    /// The file system's own.
    pub data: Vec<(String, Option<String>)>,
}

pub(super) fn parse(mount: &Mount) -> Result<Options, Error> {
    let mut options = Options::default();
    for word in mount.options().iter().flatten() {
        options.word(word).map_err(|why| {
            Error::config(format!(
                "mount {}: option {:?}: {why}",
                mount.destination().display(),
                shorten(word)
            ))
        })?;
    }
    Ok(options)
}

/// And whether what is mounted below is meant, too.
pub(super) fn propagation(word: &str) -> Option<(Propagation, bool)> {
    Some(match word {
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

/// Bits to set and to clear.
fn attribute(word: &str) -> Option<(u64, u64)> {
    Some(match word {
        "ro" => (libc::MOUNT_ATTR_RDONLY, 0),
        "rw" => (0, libc::MOUNT_ATTR_RDONLY),
        "nosuid" => (libc::MOUNT_ATTR_NOSUID, 0),
        "suid" => (0, libc::MOUNT_ATTR_NOSUID),
        "nodev" => (libc::MOUNT_ATTR_NODEV, 0),
        "dev" => (0, libc::MOUNT_ATTR_NODEV),
        "noexec" => (libc::MOUNT_ATTR_NOEXEC, 0),
        "exec" => (0, libc::MOUNT_ATTR_NOEXEC),
        "nodiratime" => (libc::MOUNT_ATTR_NODIRATIME, 0),
        "diratime" => (0, libc::MOUNT_ATTR_NODIRATIME),
        "noatime" => (libc::MOUNT_ATTR_NOATIME, ATIME),
        "strictatime" => (libc::MOUNT_ATTR_STRICTATIME, ATIME),
        // The kernel's default, which is no bit.
        "relatime" | "atime" | "nostrictatime" | "norelatime" => (libc::MOUNT_ATTR_RELATIME, ATIME),
        "nosymfollow" => (libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
        "symfollow" => (0, libc::MOUNT_ATTR_NOSYMFOLLOW),
        _ => return None,
    })
}

impl Options {
    fn word(&mut self, word: &str) -> Result<(), &'static str> {
        if let Some((propagation, _)) = propagation(word) {
            self.propagation = Some(propagation);
            return Ok(());
        }
        if let Some(bits) = attribute(word) {
            self.add(bits);
            return Ok(());
        }
        if let Some(bits) = word.strip_prefix('r').and_then(attribute) {
            self.recursive = true;
            self.add(bits);
            return Ok(());
        }
        match word {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "defaults" | "async" | "noiversion" | "nolazytime" | "nomand" | "loud" | "silent" => {}
            "tmpcopyup" => self.copy_up = true,
            "remount" => return Err("there is nothing yet to mount again"),
            "idmap" | "ridmap" => return Err("id-mapped mounts are not supported"),
            "" => return Err("is empty"),
            _ => {
                let (key, value) = match word.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (word, None),
                };
                self.data.push((key.to_owned(), value));
            }
        }
        Ok(())
    }

    /// The last word counts.
    fn add(&mut self, (set, clear): (u64, u64)) {
        self.set = self.set & !clear | set;
        self.clear = self.clear & !set | clear;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Result<Options, &'static str> {
        let mut options = Options::default();
        words
            .iter()
            .try_for_each(|word| options.word(word))
            .map(|()| options)
    }

    #[test]
    fn the_last_word_counts() {
        let both = options(&["ro", "rw", "nosuid"]).unwrap();
        assert_eq!(
            (both.set, both.clear),
            (libc::MOUNT_ATTR_NOSUID, libc::MOUNT_ATTR_RDONLY)
        );
        let atime = options(&["noatime", "strictatime"]).unwrap();
        assert_eq!(
            (atime.set, atime.clear),
            (libc::MOUNT_ATTR_STRICTATIME, ATIME)
        );
    }

    #[test]
    fn an_r_means_what_is_below_too() {
        let below = options(&["rbind", "rro", "rslave"]).unwrap();
        assert_eq!(below.bind, Some(true));
        assert!(below.recursive && below.set == libc::MOUNT_ATTR_RDONLY);
        assert_eq!(below.propagation, Some(Propagation::Slave));
        assert!(!options(&["rbind", "ro"]).unwrap().recursive);
    }

    #[test]
    fn the_rest_is_the_file_systems() {
        let data = options(&["mode=755", "newinstance", "size=64k"])
            .unwrap()
            .data;
        let expected = [
            ("mode".to_owned(), Some("755".to_owned())),
            ("newinstance".to_owned(), None),
            ("size".to_owned(), Some("64k".to_owned())),
        ];
        assert_eq!(data, expected);
        assert!(options(&["idmap"]).is_err() && options(&[""]).is_err());
    }
}
