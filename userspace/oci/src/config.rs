//! A bundle's config.json: size and depth bounded, unknown fields ignored, types strict.

use std::{fs::File, io::Read as _, path::Path};

use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;

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
    let value = serde_json::from_slice(&text).map_err(|error| {
        Error::usage(format!(
            "{}: {}",
            path.display(),
            shorten(&error.to_string())
        ))
    })?;
    Ok((value, text))
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
        serde_json::from_str(text).map_err(|error| error.to_string())
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
