//! A bundle's config.json: size and depth bounded, unknown fields ignored, types strict.

use std::{fs::File, io::Read as _, path::Path};

use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;

/// podman's are some 20 kB; a large one has thousands of mounts.
const LIMIT: u64 = 16 << 20;

/// Parsed, and as it was written.
pub(crate) fn load(path: &Path) -> Result<(Spec, Vec<u8>), Error> {
    let (spec, text): (Spec, _) = read(path)?;
    if !spec.version().starts_with("1.") {
        return Err(Error::config(format!(
            "ociVersion {:?}: this runtime speaks 1.x",
            shorten(spec.version())
        )));
    }
    Ok((spec, text))
}

/// Any JSON file of the caller's. serde_json goes 128 levels deep and no further.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<(T, Vec<u8>), Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut text = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(Error::io("read", path))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > LIMIT {
        return Err(Error::usage(format!(
            "{}: larger than {} MiB",
            path.display(),
            LIMIT >> 20
        )));
    }
    let value = parse(&text).map_err(|error| {
        Error::usage(format!(
            "{}: {}",
            path.display(),
            shorten(&error.to_string())
        ))
    })?;
    Ok((value, text))
}

/// Flags of `process.scheduler` that `oci-spec` knows by other names than the specification's.
const RENAMED: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// A container's file, or a process'.
fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let is_there = |name: &str| {
        let mut parts = text.windows(name.len());
        parts.any(|part| part == name.as_bytes())
    };
    if !RENAMED.iter().any(|(name, _)| is_there(name)) {
        return serde_json::from_slice(text);
    }
    let mut value: Value = serde_json::from_slice(text)?;
    for at in ["/process/scheduler/flags", "/scheduler/flags"] {
        let flags = value.pointer_mut(at).and_then(Value::as_array_mut);
        for flag in flags.into_iter().flatten() {
            if let Some((_, known)) = RENAMED.iter().find(|(name, _)| flag == name) {
                *flag = Value::from(*known);
            }
        }
    }
    serde_json::from_value(value)
}

/// What is quoted of somebody's input must not flood the log.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Spec, String> {
        super::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn scheduler_flags_are_the_specifications() {
        let of = |flag: &str| {
            let scheduler = format!(r#"{{"policy":"SCHED_FIFO","flags":["{flag}"]}}"#);
            parse(&format!(
                r#"{{"ociVersion":"1.2.0","process":{{"cwd":"/","user":{{"uid":0,"gid":0}},
                    "args":["{flag}"],"scheduler":{scheduler}}}}}"#
            ))
        };
        for flag in [
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ] {
            let spec = of(flag).unwrap();
            let process = spec.process().as_ref().unwrap();
            // What is no flag stays as it is.
            assert_eq!(process.args().as_deref(), Some(&[flag.to_owned()][..]));
            let scheduler = process.scheduler().as_ref().unwrap();
            assert_eq!(scheduler.flags().as_ref().unwrap().len(), 1);
        }
        assert!(of("SCHED_FLAG_NOVEL").is_err());
    }

    #[test]
    fn unknown_fields_are_ignored_and_wrong_types_are_not() {
        assert!(parse(r#"{"ociVersion":"1.0.0","novel":{"a":[1]}}"#).is_ok());
        assert!(parse(r#"{"ociVersion":"1.0.0","hostname":7}"#).is_err());
        assert!(parse(r#"{"ociVersion":"1.0.0","linux":7}"#).is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let known = format!(r#"{{"ociVersion":"1.0.0","mounts":{deep}}}"#);
        assert!(parse(&known).is_err());
    }

    #[test]
    fn quotes_are_short() {
        assert_eq!(shorten("abc"), "abc");
        assert_eq!(shorten(&"é".repeat(1000)).chars().count(), 201);
    }
}
