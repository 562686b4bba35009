//! The part of the cgroup tree that systemd has given to this process for its own.
//!
//! systemd's [CGROUP_DELEGATION](https://systemd.io/CGROUP_DELEGATION/): a unit with `Delegate=`
//! has a cgroup below which systemd touches nothing, and in which nobody else does. It is marked
//! by the extended attribute `trusted.delegate` (from 236 on), else `user.delegate` (from 251
//! on): 1 is yes. Only the cgroup the process is in counts, or the one above when it sits in
//! [`LEAF`] of it already: what a user's systemd was given further up is that systemd's.
//!
//! v2 lets a cgroup hand controllers down only while no process sits in it, so whoever takes the
//! cgroup over moves into a leaf first. Without a mark, or with somebody else beside it there,
//! the process has nothing of its own and the reason is told.

use std::{error::Error as _, fs, io, path::Path};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::{Error, Hierarchies, file, path, tree::children};

/// Where the agent and its monitors sit: `DelegateSubgroup=` of systemd 254 can say the same.
pub const LEAF: &str = "agent";

const MARKS: [&str; 2] = ["trusted.delegate", "user.delegate"];
const MADE: &str = "trusted.paddock";

/// Whether this process has a cgroup of its own, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delegation {
    /// Relative to every hierarchy's mount.
    Own { base: String, mark: &'static str },
    /// Its cgroups are made at the root.
    None { reason: String },
}

impl Delegation {
    /// Relative to every hierarchy's mount.
    pub fn base(&self) -> Option<&str> {
        match self {
            Self::Own { base, .. } => Some(base),
            Self::None { .. } => None,
        }
    }

    /// One line for people.
    pub fn reason(&self) -> String {
        match self {
            Self::Own { base, mark } => format!("/{base} is the agent's own ({mark} is 1)"),
            Self::None { reason } => reason.clone(),
        }
    }

    fn none(reason: impl Into<String>) -> Self {
        Self::None {
            reason: reason.into(),
        }
    }
}

impl Hierarchies {
    /// What the calling process was given; it stays where it is.
    pub fn delegation(&self) -> Delegation {
        match fs::read_to_string("/proc/self/cgroup") {
            Ok(text) => self.delegation_of(&text),
            Err(error) => Delegation::none(format!("/proc/self/cgroup: {error}")),
        }
    }

    /// As [`Self::delegation`], and takes it over: the calling process, which must not have
    /// threads, is in the [`LEAF`] then, with what it starts from now on.
    pub fn take_delegated(&self) -> Delegation {
        let found = self.delegation();
        let Some(base) = found.base() else {
            return found;
        };
        match self.enter_leaf(base) {
            Ok(None) => found,
            Ok(Some(beside)) => Delegation::none(format!(
                "/{base} is delegated, but processes {beside} sit in it beside the agent"
            )),
            Err(error) => Delegation::none(format!(
                "/{base} is delegated, but the agent cannot use it: {error}{}",
                error
                    .source()
                    .map_or_else(String::new, |cause| format!(": {cause}"))
            )),
        }
    }

    /// Gives it back as it was, once nothing but an agent's leaf is in it; a caller in the leaf
    /// sits in the delegated cgroup itself then.
    pub fn leave_delegated(&self, base: &str) {
        let Some(mount) = self.unified() else { return };
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let inside = self.own_path(&own) == Some(&format!("/{base}/{LEAF}"));
        let base = mount.join(base);
        let leaf = base.join(LEAF);
        // Containers or their monitors go on; systemd removes what is left after the last.
        let alone =
            is_delegated(&base) && children(&base).is_ok_and(|below| below == [leaf.clone()]);
        if !alone || !leaf.is_dir() {
            return;
        }
        let control = base.join("cgroup.subtree_control");
        let enabled = file::read(&control).unwrap_or_default();
        for controller in enabled.split_whitespace() {
            let _ = file::write(&control, &format!("-{controller}"));
        }
        if inside {
            let pid = std::process::id().to_string();
            let _ = file::write(&base.join("cgroup.procs"), &pid);
        }
        // An agent that was killed can have left processes in it.
        let _ = fs::remove_dir(&leaf);
    }

    fn delegation_of(&self, own: &str) -> Delegation {
        let (Some(mount), Some(own)) = (self.managed(), self.own_path(own)) else {
            return Delegation::none("no hierarchy says where the agent is");
        };
        let own = own.trim_start_matches('/');
        if own.is_empty() {
            return Delegation::none("the agent runs in the root cgroup");
        }
        if path::components(own).is_err() {
            return Delegation::none(format!("the agent runs outside of what it sees, in {own}"));
        }
        let above = own
            .strip_suffix(LEAF)
            .and_then(|path| path.strip_suffix('/'));
        let found = [Some(own), above].into_iter().flatten().find_map(|base| {
            mark(&mount.join(base)).map(|mark| Delegation::Own {
                base: base.to_owned(),
                mark,
            })
        });
        found.unwrap_or_else(|| Delegation::none(format!("nobody delegated /{own} to the agent")))
    }

    /// Of the hierarchy in which systemd keeps its units: v2's, else its own of v1.
    pub(crate) fn managed(&self) -> Option<&Path> {
        self.unified()
            .or_else(|| self.locate("name=systemd").map(|(_, mount)| mount))
    }

    /// The calling process' path there, from `/proc/self/cgroup`.
    fn own_path<'a>(&self, text: &'a str) -> Option<&'a str> {
        let wanted = if self.unified().is_some() {
            ""
        } else {
            "name=systemd"
        };
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            (controllers == wanted).then_some(path)
        })
    }

    /// Who else sits in the cgroup, if v2 has controllers that this keeps from being enabled;
    /// then the caller is back where it was.
    fn enter_leaf(&self, base: &str) -> Result<Option<String>, Error> {
        let Some(mount) = self.unified() else {
            return Ok(None);
        };
        let base = mount.join(base);
        let leaf = base.join(LEAF);
        let made = match fs::create_dir(&leaf) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(source) => {
                return Err(Error::Io {
                    op: "create cgroup",
                    path: leaf,
                    source,
                });
            }
        };
        let pid = std::process::id().to_string();
        let unmake = || {
            if made {
                let _ = fs::remove_dir(&leaf);
            }
        };
        file::write(&leaf.join("cgroup.procs"), &pid).inspect_err(|_| unmake())?;
        let beside = file::read(&base.join("cgroup.procs"))?;
        let hands_down = file::read(&base.join("cgroup.controllers"))?;
        if beside.is_empty() || hands_down.is_empty() {
            return Ok(None);
        }
        file::write(&base.join("cgroup.procs"), &pid)?;
        unmake();
        Ok(Some(beside.replace('\n', ", ")))
    }
}

/// Whether it was given to somebody by systemd.
pub(crate) fn is_delegated(dir: &Path) -> bool {
    mark(dir).is_some()
}

/// In a v1 hierarchy that systemd leaves alone, the delegated path is there only if it is made.
pub(crate) fn mark_made(dir: &Path) {
    // Without it an empty cgroup stays behind, and nothing else is wrong.
    let _ = setxattr(dir, MADE, b"1", XattrFlags::empty());
}

pub(crate) fn is_made(dir: &Path) -> bool {
    getxattr(dir, MADE, &mut [0; 8]).is_ok()
}

/// The mark that says yes; the trusted one decides where it is.
fn mark(dir: &Path) -> Option<&'static str> {
    let read = |name: &'static str| {
        let mut value = [0; 8];
        let length = getxattr(dir, name, &mut value).ok()?;
        Some((name, value.get(..length) == Some(b"1")))
    };
    MARKS
        .into_iter()
        .find_map(read)
        .and_then(|(name, yes)| yes.then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Dir;

    fn reason(hierarchies: &Hierarchies, own: &str) -> String {
        hierarchies.delegation_of(own).reason()
    }

    #[test]
    fn what_nobody_marked_is_nobodys_to_take() {
        let dir = Dir::new();
        dir.file("system.slice/x.service/cgroup.procs", "");
        let v2 = Hierarchies::fixture(&[], Some((dir.path(), &[])));
        let said = reason(&v2, "1:name=systemd:/\n0::/system.slice/x.service\n");
        assert_eq!(
            said,
            "nobody delegated /system.slice/x.service to the agent"
        );
        assert_eq!(reason(&v2, "0::/\n"), "the agent runs in the root cgroup");
        let outside = reason(&v2, "0::/../a\n");
        assert!(outside.contains("outside"), "{outside}");
    }

    #[test]
    fn without_v2_systemd_has_a_hierarchy_of_its_own() {
        let dir = Dir::new();
        let v1: &[&str] = &["name=systemd"];
        let v1 = Hierarchies::fixture(&[(dir.path(), v1)], None);
        let said = reason(&v1, "2:pids:/\n1:name=systemd:/a.service\n");
        assert_eq!(said, "nobody delegated /a.service to the agent");
        let without = Hierarchies::fixture(&[(dir.path(), &["pids"])], None);
        let said = reason(&without, "2:pids:/a\n");
        assert_eq!(said, "no hierarchy says where the agent is");
    }
}
