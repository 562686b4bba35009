//! Files with a line a device or resource: `rdma.max`, `misc.max` and the like.
//!
//! A write sets one line and leaves the rest, so what is read back is that line. v1 and v2
//! have the same two files here.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{Error, RdmaLimit, change::Change, file};

use super::{Offer, Place};

/// The line of `path` that begins with `key`, with what stands for it when there is none.
pub(crate) fn change(path: PathBuf, key: &str, value: &str, absent: &str) -> Result<Change, Error> {
    let text = file::read(&path)?;
    let former = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(key))
        .map_or_else(|| format!("{key} {absent}"), str::to_owned);
    Ok(Change {
        path,
        value: format!("{key} {value}"),
        shown: text,
        former,
        kept: has_line,
    })
}

/// Each word of what was written is in the line of the same key; a line that is not there says
/// that all is unlimited.
pub(crate) fn has_line(wrote: &str, shown: &str) -> bool {
    let mut words = wrote.split_whitespace();
    let key = words.next();
    let mut lines = shown.lines();
    let Some(line) = lines.find(|line| line.split_whitespace().next() == key) else {
        return words.all(|word| word == "0" || word == "max" || word.ends_with("=max"));
    };
    words.all(|word| line.split_whitespace().any(|shown| shown == word))
}

const RDMA: Offer = Offer {
    limit: "rdma",
    controller: "rdma",
    v1: Some("rdma.max"),
    v2: Some("rdma.max"),
};
const MISC: Offer = Offer {
    limit: "misc",
    controller: "misc",
    v1: Some("misc.max"),
    v2: Some("misc.max"),
};

pub(crate) fn plan_rdma(
    place: &Place,
    limits: &BTreeMap<String, RdmaLimit>,
) -> Result<Vec<Change>, Error> {
    let path = place.offers(RDMA)?;
    let number = |limit: Option<u32>| limit.map_or_else(|| "max".to_owned(), |n| n.to_string());
    let changes = limits.iter().map(|(device, limit)| {
        let value = format!(
            "hca_handle={} hca_object={}",
            number(limit.hca_handles),
            number(limit.hca_objects)
        );
        let key = key("rdma", device)?;
        change(path.clone(), key, &value, "hca_handle=max hca_object=max")
    });
    changes.collect()
}

pub(crate) fn plan_misc(
    place: &Place,
    limits: &BTreeMap<String, i64>,
) -> Result<Vec<Change>, Error> {
    let path = place.offers(MISC)?;
    let changes = limits.iter().map(|(resource, limit)| {
        let value = match limit {
            -1 => "max".to_owned(),
            number => number.to_string(),
        };
        change(path.clone(), key("misc", resource)?, &value, "max")
    });
    changes.collect()
}

/// One word, since it is one of a line.
fn key<'a>(name: &'static str, text: &'a str) -> Result<&'a str, Error> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text);
    }
    Err(Error::Limit {
        name,
        value: format!("{text:?}"),
        reason: "expected a name without spaces".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{discovery::Version, fixture::Dir};

    #[test]
    fn lines_are_told_apart_by_their_key() {
        let shown = "8:0 rbps=1 wbps=max\n8:16 rbps=2 wbps=3";
        assert!(has_line("8:16 rbps=2", shown));
        assert!(!has_line("8:16 rbps=1", shown));
        assert!(has_line("8:32 rbps=max", shown));
        assert!(!has_line("8:32 rbps=7", shown));
        assert!(has_line("8:32 0", ""));
    }

    #[test]
    fn rdma_and_misc_write_their_line() {
        let dir = Dir::new();
        dir.file("rdma.max", "mlx5_0 hca_handle=7 hca_object=max\n");
        dir.file("misc.max", "sev max\n");
        let place = Place {
            dir: dir.path().to_owned(),
            version: Version::V2,
        };
        let limit = RdmaLimit {
            hca_handles: Some(2),
            hca_objects: None,
        };
        let rdma = plan_rdma(&place, &BTreeMap::from([("mlx5_0".to_owned(), limit)])).unwrap();
        assert_eq!(rdma[0].value, "mlx5_0 hca_handle=2 hca_object=max");
        assert_eq!(rdma[0].former, "mlx5_0 hca_handle=7 hca_object=max");
        let misc = plan_misc(&place, &BTreeMap::from([("sev".to_owned(), 4)])).unwrap();
        assert_eq!(
            (misc[0].value.as_str(), misc[0].former.as_str()),
            ("sev 4", "sev max")
        );
        assert!(plan_misc(&place, &BTreeMap::from([("a b".to_owned(), 4)])).is_err());
    }
}
