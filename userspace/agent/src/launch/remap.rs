//! Ids of the host's for a container's user namespace: `--userns-remap auto|USER|UID[:SIZE]`.
//!
//! `auto` gives every container 65536 ids that no other container of this instance has: out of
//! the ranges of user `paddock` in /etc/subuid and /etc/subgid, or, without any, from 165536 on
//! beside everybody's ranges there. What was chosen is in the container's `config.json`, which
//! is also what says that it is taken.

use std::{
    fs, io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use paddock_runtime::spec::{IdMap, IdMaps, id};

use super::{
    Error,
    files::{self, Config},
};

/// Ids of a container with `auto`, or with a bare UID.
const SIZE: u32 = 65_536;
/// Docker's first subordinate id after the first user's.
const FIRST: u32 = 165_536;
/// Whose ranges `auto` takes from.
const OWNER: &str = "paddock";
const SUBUID: &str = "/etc/subuid";
const SUBGID: &str = "/etc/subgid";
const PASSWD: &str = "/etc/passwd";

/// Held from the choice until it is written down.
pub(super) struct Choice {
    pub(super) maps: IdMaps,
    _exclusive: MutexGuard<'static, ()>,
}

/// `size` ids from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    size: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Auto,
    User(String),
    Range(Range),
}

static CHOOSING: Mutex<()> = Mutex::new(());

/// For `check`, before anything is made.
pub(super) fn check(text: &str) -> Result<(), Error> {
    parse(text).map(drop)
}

/// `containers` is the directory of all of this instance's.
pub(super) fn choose(text: &str, containers: &Path) -> Result<Choice, Error> {
    let wanted = parse(text)?;
    let exclusive = CHOOSING.lock().unwrap_or_else(PoisonError::into_inner);
    let maps = match wanted {
        Wanted::Range(range) => IdMaps {
            uids: vec![range.map(0)],
            gids: vec![range.map(0)],
        },
        Wanted::User(user) => IdMaps {
            uids: of_user(&user, SUBUID)?,
            gids: of_user(&user, SUBGID)?,
        },
        Wanted::Auto => auto(
            &subordinate(SUBUID)?,
            &subordinate(SUBGID)?,
            &taken(containers),
        )?,
    };
    Ok(Choice {
        maps,
        _exclusive: exclusive,
    })
}

impl Range {
    fn new(first: u32, size: u32) -> Option<Self> {
        // The last id, 2^32 - 1, is nobody's.
        let valid = size > 0 && first.checked_add(size).is_some();
        valid.then_some(Self { first, size })
    }

    fn overlaps(self, other: Self) -> bool {
        let end = |range: Self| u64::from(range.first) + u64::from(range.size);
        u64::from(self.first) < end(other) && u64::from(other.first) < end(self)
    }

    fn map(self, inside: u32) -> IdMap {
        IdMap {
            inside,
            outside: self.first,
            size: self.size,
        }
    }
}

fn parse(text: &str) -> Result<Wanted, Error> {
    let refused = |why: &str| {
        let shown: String = text
            .chars()
            .take(64)
            .flat_map(char::escape_default)
            .collect();
        Error::invalid(format!(
            "--userns-remap '{shown}': {why}; expected auto, a user of /etc/subuid, or UID[:SIZE]"
        ))
    };
    if text == "auto" {
        return Ok(Wanted::Auto);
    }
    let (first, size) = match text.split_once(':') {
        Some((first, size)) => (first, Some(size)),
        None => (text, None),
    };
    if !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) {
        let first = id(first).ok_or_else(|| refused("no such id"))?;
        let size = match size {
            Some(size) => id(size).ok_or_else(|| refused("SIZE is no number of ids"))?,
            None => SIZE,
        };
        if first == 0 {
            return Err(refused(
                "0 is the host's root (--userns private keeps the ids)",
            ));
        }
        return Range::new(first, size)
            .map(Wanted::Range)
            .ok_or_else(|| refused("the ids do not fit below 4294967295"));
    }
    let name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if size.is_some() || text.is_empty() || text.starts_with('-') || !text.chars().all(name) {
        return Err(refused("no user's name"));
    }
    Ok(Wanted::User(text.to_owned()))
}

/// subuid(5): `OWNER:FIRST:COUNT`, the owner by name or number.
fn subordinate(path: &str) -> Result<Vec<(String, Range)>, Error> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(Error::io("read", path))?,
    };
    Ok(ranges(&text))
}

/// Lines that are none are nobody's.
fn ranges(text: &str) -> Vec<(String, Range)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?.to_owned();
            let range = Range::new(id(fields.next()?)?, id(fields.next()?)?)?;
            (fields.next().is_none() && range.first > 0).then_some((owner, range))
        })
        .collect()
}

/// All of a user's ranges, one after the other inside.
fn of_user(user: &str, path: &str) -> Result<Vec<IdMap>, Error> {
    let passwd = fs::read_to_string(PASSWD).unwrap_or_default();
    let number = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(1))?
    });
    let mut inside = 0_u32;
    let mut maps = Vec::new();
    for (owner, range) in subordinate(path)? {
        if owner == user || Some(owner.as_str()) == number {
            maps.push(range.map(inside));
            inside = inside.checked_add(range.size).ok_or_else(|| {
                Error::invalid(format!(
                    "--userns-remap: {user} has more ids in {path} than there are"
                ))
            })?;
        }
    }
    if maps.is_empty() {
        return Err(Error::invalid(format!(
            "--userns-remap: {user} has no ids in {path}: add a line such as '{user}:{FIRST}:{SIZE}', or use auto or UID:SIZE"
        )));
    }
    Ok(maps)
}

/// The maps of all containers that are there, running or not.
fn taken(containers: &Path) -> Vec<IdMaps> {
    let Ok(entries) = fs::read_dir(containers) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| files::read::<Config>(&entry.path(), "config.json")?.id_maps)
        .collect()
}

fn auto(
    uids: &[(String, Range)],
    gids: &[(String, Range)],
    taken: &[IdMaps],
) -> Result<IdMaps, Error> {
    let used = |maps: fn(&IdMaps) -> &Vec<IdMap>| -> Vec<Range> {
        let all = taken.iter().flat_map(maps);
        all.filter_map(|map| Range::new(map.outside, map.size))
            .collect()
    };
    let uid = free(uids, &used(|maps| &maps.uids));
    let gid = free(gids, &used(|maps| &maps.gids));
    let (Some(uid), Some(gid)) = (uid, gid) else {
        return Err(Error::invalid(format!(
            "--userns-remap auto: no {SIZE} free ids are left: remove containers, or give {OWNER} more in {SUBUID} and {SUBGID}"
        )));
    };
    Ok(IdMaps {
        uids: vec![uid.map(0)],
        gids: vec![gid.map(0)],
    })
}

/// The first free block of the pool.
fn free(subordinate: &[(String, Range)], used: &[Range]) -> Option<Range> {
    let of = |ours: bool| {
        let ranges = subordinate.iter();
        ranges
            .filter(move |(owner, _)| (owner == OWNER) == ours)
            .map(|(_, range)| *range)
    };
    let mut pools: Vec<Range> = of(true).collect();
    let mut used = used.to_vec();
    if pools.is_empty() {
        pools.extend(Range::new(FIRST, u32::MAX - FIRST));
        used.extend(of(false));
    }
    pools
        .into_iter()
        .flat_map(|pool| {
            (0..pool.size / SIZE).map(move |index| Range {
                first: pool.first + index * SIZE,
                size: SIZE,
            })
        })
        .find(|block| !used.iter().any(|range| range.overlaps(*block)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(subordinate: &str, used: &[(u32, u32)]) -> Option<u32> {
        let used: Vec<_> = used
            .iter()
            .map(|(first, size)| Range::new(*first, *size).unwrap())
            .collect();
        free(&ranges(subordinate), &used).map(|range| range.first)
    }

    #[test]
    fn what_is_wanted_is_parsed_strictly() {
        let range = |first, size| Wanted::Range(Range { first, size });
        assert_eq!(parse("auto").unwrap(), Wanted::Auto);
        assert_eq!(
            parse("dockremap").unwrap(),
            Wanted::User("dockremap".into())
        );
        assert_eq!(parse("165536").unwrap(), range(165_536, 65_536));
        assert_eq!(parse("1000:1").unwrap(), range(1000, 1));
        for text in [
            "",
            "0",
            "0:65536",
            "1:",
            ":1",
            "1:0",
            "-1",
            "1:-1",
            "4294967295",
            "4294967290:6",
            "1:4294967295",
            "1e3:1",
            "a:1",
            "a b",
            "a\n",
            "1:2:3",
            "../x",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
        }
        assert_eq!(parse("4294967290:5").unwrap(), range(4_294_967_290, 5));
    }

    #[test]
    fn every_container_has_its_own_block() {
        assert_eq!(first("", &[]), Some(165_536));
        assert_eq!(first("", &[(165_536, 65_536)]), Some(231_072));
        assert_eq!(first("", &[(165_537, 1), (300_000, 1)]), Some(231_072));
        // Somebody else's ranges are not touched.
        assert_eq!(first("dockremap:165536:65536\n", &[]), Some(231_072));
        assert_eq!(first("me:100000:65536\n", &[]), Some(165_536));
    }

    #[test]
    fn a_range_of_our_own_is_all_there_is() {
        let own = "me:165536:65536\npaddock:500000:131072\nbroken\npaddock:x:1\n";
        assert_eq!(first(own, &[]), Some(500_000));
        assert_eq!(first(own, &[(500_000, 1)]), Some(565_536));
        assert_eq!(first(own, &[(500_000, 131_072)]), None);
        assert_eq!(first("paddock:500000:65535\n", &[]), None);
    }
}
