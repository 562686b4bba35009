//! The program's user, by the container's own /etc/passwd and /etc/group.
//!
//! The files are the image's, so they may be anything: they are opened below the container's
//! root without leaving it, must be regular files, and no more is read than they had when they
//! were opened (which is nothing of a procfs file, whose size is 0). A number needs no line.
#![forbid(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{SFlag, fstat},
};

use super::{Failure, build::io_failure};
use crate::spec::{Account, Capabilities, Process, Reference, User, Wanted, id};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// Of either file.
const LARGEST: i64 = 4 << 20;
/// A user without a line, or with an empty one, as login(1) does.
const HOMELESS: &str = "/";

/// Names of steps, which [`crate::record::Failed::explain`] knows.
pub(crate) const USER: &str = "find user";
pub(crate) const USERS_GROUP: &str = "find group";
pub(crate) const FILE: &str = "read accounts";

/// What a line of /etc/passwd says.
#[derive(Debug, PartialEq, Eq)]
struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// What a line of /etc/group says.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// The process with its user's numbers, home and capabilities. `root` is the container's.
pub(super) fn resolve(process: &Process, root: &OwnedFd) -> Result<Process, Failure> {
    let mut process = process.clone();
    let Some(account) = process.account.take() else {
        return Ok(process);
    };
    let (user, home) = look_up(&account, &Files::read(root)?)?;
    if user.uid != 0 {
        let bounding = process.capabilities.bounding;
        process.capabilities = Capabilities::of_user(bounding, account.capabilities);
    }
    process.user = User {
        umask: process.user.umask,
        ..user
    };
    if account.default_home {
        process
            .env
            .retain(|variable| !variable.starts_with("HOME="));
        process.env.push(format!("HOME={home}"));
    }
    Ok(process)
}

/// Both files' text; of one that is not there, none.
struct Files {
    passwd: String,
    group: String,
}

impl Files {
    fn read(root: &OwnedFd) -> Result<Self, Failure> {
        Ok(Self {
            passwd: read(root, PASSWD)?,
            group: read(root, GROUP)?,
        })
    }

    /// Lines that are none are nobody's.
    fn users(&self) -> impl Iterator<Item = Passwd> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some(Passwd {
                name,
                uid: id(fields.nth(1)?)?,
                gid: id(fields.next()?)?,
                home: fields.nth(1).unwrap_or_default().to_owned(),
            })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some(Group {
                name,
                gid: id(fields.nth(1)?)?,
                members: fields
                    .next()
                    .unwrap_or_default()
                    .split(',')
                    .map(|member| member.trim().to_owned())
                    .collect(),
            })
        })
    }
}

fn look_up(account: &Account, files: &Files) -> Result<(User, String), Failure> {
    let unknown = |step, name: &str| Failure::new(step, name, Errno::ENOENT);
    let wanted: Wanted = account
        .user
        .parse()
        .map_err(|_| Failure::new(USER, &account.user, Errno::EINVAL))?;
    let line = files.users().find(|line| match &wanted.user {
        Reference::Id(uid) => line.uid == *uid,
        Reference::Name(name) => line.name == *name,
    });
    let (uid, own_gid) = match (&line, &wanted.user) {
        (Some(line), _) => (line.uid, line.gid),
        (None, Reference::Id(uid)) => (*uid, 0),
        (None, Reference::Name(name)) => return Err(unknown(USER, name)),
    };
    let gid_of = |group: &Reference| match group {
        Reference::Id(gid) => Ok(*gid),
        Reference::Name(name) => files
            .groups()
            .find(|line| line.name == *name)
            .map(|line| line.gid)
            .ok_or_else(|| unknown(USERS_GROUP, name)),
    };
    // Docker's: who names a group gets that one, and of the others only what is asked for.
    let (gid, mut groups) = match &wanted.group {
        Some(group) => (gid_of(group)?, Vec::new()),
        None => (own_gid, memberships(files, line.as_ref())),
    };
    for group in &account.groups {
        let group: Reference = group
            .parse()
            .map_err(|_| Failure::new(USERS_GROUP, group, Errno::EINVAL))?;
        groups.push(gid_of(&group)?);
    }
    groups.sort_unstable();
    groups.dedup();
    let home = line
        .map(|line| line.home)
        .filter(|home| !home.is_empty())
        .unwrap_or_else(|| HOMELESS.to_owned());
    let user = User {
        uid,
        gid,
        groups,
        umask: None,
    };
    Ok((user, home))
}

fn memberships(files: &Files, line: Option<&Passwd>) -> Vec<u32> {
    let Some(line) = line else {
        return Vec::new();
    };
    files
        .groups()
        .filter(|group| group.members.contains(&line.name))
        .map(|group| group.gid)
        .collect()
}

fn read(root: &OwnedFd, path: &str) -> Result<String, Failure> {
    let fail = |errno| Failure::new(FILE, path, errno);
    // Only names it: opening a fifo waits, and opening a device may do anything.
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let named = match openat2(root, path, how) {
        Err(Errno::ENOENT) => return Ok(String::new()),
        other => other.map_err(fail)?,
    };
    let stat = fstat(&named).map_err(fail)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(fail(Errno::EINVAL));
    }
    if stat.st_size > LARGEST {
        return Err(fail(Errno::EFBIG));
    }
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    let mut bytes = Vec::new();
    File::open(format!("/proc/self/fd/{}", named.as_raw_fd()))
        .and_then(|file| file.take(size).read_to_end(&mut bytes))
        .map_err(|source: io::Error| io_failure(FILE, path, &source))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files {
            passwd: "root:x:0:0:root:/root:/bin/sh\nbroken:x:nope:0::/:\n\
                app:x:1000:1001:An App:/srv/app:/bin/sh\nbare:x:7:8\n\
                wide:x:4294967296:0::/:\n"
                .into(),
            group: "root:x:0:\naudio:x:29:app,other\nvideo:x:44:app\nbig:x:99999999999:app\n"
                .into(),
        }
    }

    type Found = (u32, u32, Vec<u32>, String);

    fn found(user: &str, more: &[&str]) -> Result<Found, (&'static str, Errno)> {
        let account = Account {
            user: user.into(),
            groups: more.iter().map(ToString::to_string).collect(),
            ..Account::default()
        };
        look_up(&account, &files())
            .map(|(user, home)| (user.uid, user.gid, user.groups, home))
            .map_err(|failure| (failure.step, failure.errno))
    }

    #[test]
    fn a_name_brings_its_group_its_groups_and_its_home() {
        let app = Ok((1000, 1001, vec![29, 44], "/srv/app".to_owned()));
        assert_eq!(found("app", &[]), app);
        // As with docker a number that has a line is that user.
        assert_eq!(found("1000", &[]), app);
        assert_eq!(found("bare", &[]), Ok((7, 8, vec![], "/".into())));
    }

    #[test]
    fn a_number_needs_no_line_and_a_name_does() {
        assert_eq!(found("4242", &[]), Ok((4242, 0, vec![], "/".into())));
        assert_eq!(found("4242:17", &[]), Ok((4242, 17, vec![], "/".into())));
        assert_eq!(found("nobody", &[]), Err((USER, Errno::ENOENT)));
        assert_eq!(found("app:none", &[]), Err((USERS_GROUP, Errno::ENOENT)));
    }

    #[test]
    fn a_named_group_replaces_all_and_more_can_be_added() {
        let home = "/srv/app".to_owned();
        assert_eq!(
            found("app:video", &[]),
            Ok((1000, 44, vec![], home.clone()))
        );
        assert_eq!(
            found("app:0", &["audio", "7", "7"]),
            Ok((1000, 0, vec![7, 29], home))
        );
        assert_eq!(found("app", &["none"]), Err((USERS_GROUP, Errno::ENOENT)));
    }

    #[test]
    fn a_line_with_a_number_that_is_no_id_is_nobody() {
        for user in ["broken", "wide"] {
            assert_eq!(found(user, &[]), Err((USER, Errno::ENOENT)));
        }
        assert_eq!(found("root:big", &[]), Err((USERS_GROUP, Errno::ENOENT)));
    }
}
