//! How many tasks a cgroup may hold; the files are the same on v1 and v2.
//!
//! A limit below the present count is taken: nothing is killed, nothing more can be forked.

use crate::{
    Error, Stats,
    change::{Change, exactly},
    readable::Readable,
};

use super::Place;

/// -1 is unlimited; 0 is a limit like any other: nothing can be forked.
pub(crate) fn plan(place: &Place, limit: i64) -> Result<Vec<Change>, Error> {
    let value = match limit {
        -1 => "max".to_owned(),
        0.. => limit.to_string(),
        _ => {
            return Err(Error::Limit {
                name: "pids",
                value: limit.to_string(),
                reason: "allowed are a count or -1 for unlimited".to_owned(),
            });
        }
    };
    Ok(vec![Change::new(place.file("pids.max"), value, exactly)?])
}

pub(crate) fn stats(files: &Readable, stats: &mut Stats) -> Result<(), Error> {
    stats.pids_current = files.number("pids.current")?;
    stats.pids_limit = files.text("pids.max")?.and_then(|text| text.parse().ok());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::execute, discovery::Version, fixture::Dir};

    #[test]
    fn minus_one_is_max_and_zero_is_zero() {
        let dir = Dir::new();
        dir.file("pids.max", "max\n");
        let place = Place {
            dir: dir.path().to_owned(),
            version: Version::V2,
        };
        for (limit, text) in [(64, "64"), (0, "0"), (-1, "max")] {
            let _ = execute(plan(&place, limit).unwrap()).unwrap();
            assert_eq!(dir.read("pids.max"), text);
        }
        assert!(plan(&place, -2).is_err());
    }
}
