//! Any cgroup v2 file by name: OCI's `unified`, podman's `--cgroup-conf`.
//!
//! For what the named limits do not cover. The name is one file of a controller that v2 has
//! here; `cgroup.*` moves processes and takes controllers away, so only its two counts may be
//! set. A value may be rounded or put in other words by the kernel; each number must stay.

use crate::{
    Error,
    change::{Change, exactly},
    parse,
};

use super::{Place, keyed, memory::same_bytes};

const OWN_FILES: [&str; 2] = ["cgroup.max.depth", "cgroup.max.descendants"];

/// The controller that a name belongs to; `None` for the core's own files.
pub(crate) fn controller(name: &str) -> Result<Option<&str>, Error> {
    let refused = |reason: &str| {
        Err(Error::Limit {
            name: "cgroup file",
            value: format!("{name:?}"),
            reason: reason.to_owned(),
        })
    };
    if OWN_FILES.contains(&name) {
        return Ok(None);
    }
    let good = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_' || c == '-';
    match name.split_once('.') {
        Some((controller, rest))
            if !controller.is_empty()
                && !rest.is_empty()
                && name.chars().all(good)
                && !name.contains("..") =>
        {
            if controller == "cgroup" {
                return refused("only cgroup.max.depth and cgroup.max.descendants may be set");
            }
            Ok(Some(controller))
        }
        _ => refused("expected a file's name such as memory.high"),
    }
}

pub(crate) fn plan(place: &Place, name: &str, value: &str) -> Result<Change, Error> {
    let path = place.file(name);
    let value = value.trim();
    if value.is_empty() || value.contains(['\n', '\0']) {
        return Err(Error::Limit {
            name: "cgroup file",
            value: format!("{name}={value:?}"),
            reason: "expected one line".to_owned(),
        });
    }
    if !path.exists() {
        return Err(Error::Limit {
            name: "cgroup file",
            value: name.to_owned(),
            reason: "this kernel's controller has no such file".to_owned(),
        });
    }
    let (first, rest) = value.split_once(' ').unwrap_or((value, ""));
    // A line of a device or resource: `8:0 rbps=1`, `sev 5`, `default 100`.
    let word = first != "max" && first.starts_with(|c: char| c.is_ascii_alphabetic());
    if !rest.is_empty() && (word || first.contains(':')) {
        let absent = unlimited(rest);
        return keyed::change(path, first, rest, &absent);
    }
    Change::new(path, value.to_owned(), same)
}

/// What stands for no line: each `key=value` is `max`, a bare value too.
fn unlimited(rest: &str) -> String {
    let words = rest
        .split_whitespace()
        .map(|word| match word.split_once('=') {
            Some((key, _)) => format!("{key}=max"),
            None => "max".to_owned(),
        });
    words.collect::<Vec<_>>().join(" ")
}

fn same(wrote: &str, shown: &str) -> bool {
    if exactly(wrote, shown) || same_bytes(wrote, shown) {
        return true;
    }
    if parse::size(wrote).is_ok_and(|bytes| same_bytes(&bytes.to_string(), shown)) {
        return true;
    }
    let list = |text| parse::number_list(text).ok();
    // `cpu.max` keeps a period that is not given.
    list(wrote).is_some_and(|wrote| list(shown) == Some(wrote))
        || shown.split_whitespace().next() == Some(wrote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::execute, discovery::Version, fixture::Dir};

    #[test]
    fn names_are_files_of_controllers() {
        assert_eq!(controller("memory.high").unwrap(), Some("memory"));
        assert_eq!(controller("cgroup.max.depth").unwrap(), None);
        for wrong in [
            "",
            "memory",
            ".high",
            "memory.",
            "../memory.high",
            "a/memory.high",
            "memory..high",
            "cgroup.procs",
            "cgroup.subtree_control",
            "memory.high\n",
        ] {
            assert!(controller(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn values_are_compared_by_what_they_mean() {
        let dir = Dir::new();
        for (name, now, value, former) in [
            ("memory.high", "max\n", "64m", "max"),
            ("cpu.max", "max 100000\n", "50000 100000", "max 100000"),
            ("io.max", "", "8:0 rbps=5", "8:0 rbps=max"),
            ("misc.max", "sev 9\n", "sev 5", "sev 9"),
        ] {
            dir.file(name, now);
            let place = Place {
                dir: dir.path().to_owned(),
                version: Version::V2,
            };
            let change = plan(&place, name, value).unwrap();
            assert_eq!(change.former, former, "{name}");
            let _ = execute(vec![change]);
        }
        assert!(same("64m", "67108864"));
        assert!(!same("64m", "67108865"));
        assert!(!same("64m", "max") && !same("max", "64"));
        assert!(same("50000", "50000 100000"));
    }
}
