//! How an image is named: a place on disk or in a registry.
//!
//! `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`, or docker's names:
//! `alpine` is `docker.io/library/alpine:latest`. The canonical text is the image's name in
//! the store, so one image has one name however it was typed.

use std::{
    fmt,
    path::{Path, PathBuf, absolute},
    str::FromStr,
};

use crate::{
    docker_name,
    error::{Error, shown},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// An OCI image layout.
    Oci {
        dir: PathBuf,
        tag: Option<String>,
    },
    /// The same in a tar, perhaps compressed.
    OciArchive {
        file: PathBuf,
        tag: Option<String>,
    },
    /// What `docker save` writes.
    DockerArchive {
        file: PathBuf,
        name: Option<String>,
    },
    Registry(oci_client::Reference),
}

impl Reference {
    /// The name as docker would show it: `alpine:latest`.
    pub fn familiar(name: &str) -> &str {
        let short = name.strip_prefix("docker.io/").unwrap_or(name);
        short.strip_prefix("library/").unwrap_or(short)
    }

    /// A name for an image that is made here: a tag, no digest.
    pub fn tag(text: &str) -> Result<Self, Error> {
        match text.parse()? {
            Self::Registry(name) if name.digest().is_none() => Ok(Self::Registry(name)),
            _ => Err(wrong(text, "expected a name like base or base:1.0")),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(place) = text.strip_prefix("oci:") {
            let (dir, tag) = place_and_tag(text, place)?;
            return Ok(Self::Oci { dir, tag });
        }
        if let Some(place) = text.strip_prefix("oci-archive:") {
            let (file, tag) = place_and_tag(text, place)?;
            return Ok(Self::OciArchive { file, tag });
        }
        if let Some(place) = text.strip_prefix("docker-archive:") {
            let (file, name) = docker_place(text, place)?;
            return Ok(Self::DockerArchive { file, name });
        }
        // 255 for the name, 127 for the tag, 71 for a digest, and the registry.
        if text.len() > 700 {
            return Err(wrong(text, "too long for the name of an image"));
        }
        let name = docker_name::parse(text).map_err(|reason| wrong(text, reason))?;
        Ok(Self::Registry(name))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = |f: &mut fmt::Formatter<'_>, kind, path: &Path, tag: &Option<String>| {
            write!(f, "{kind}:{}", path.display())?;
            tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
        };
        match self {
            Self::Oci { dir, tag } => local(f, "oci", dir, tag),
            Self::OciArchive { file, tag } => local(f, "oci-archive", file, tag),
            Self::DockerArchive { file, name } => local(f, "docker-archive", file, name),
            Self::Registry(name) => f.write_str(&name.whole()),
        }
    }
}

fn wrong(text: &str, reason: &str) -> Error {
    Error::Reference {
        text: shown(text.as_bytes()),
        reason: reason.to_owned(),
    }
}

/// A colon may be the path's own: what is there as it stands counts.
fn place_and_tag(text: &str, place: &str) -> Result<(PathBuf, Option<String>), Error> {
    match place.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !Path::new(place).exists() => {
            Ok((to_path(text, path)?, Some(tag.to_owned())))
        }
        _ => Ok((to_path(text, place)?, None)),
    }
}

/// The name has colons and slashes of its own: the shortest part that is there is the file.
fn docker_place(text: &str, place: &str) -> Result<(PathBuf, Option<String>), Error> {
    if Path::new(place).exists() {
        return Ok((to_path(text, place)?, None));
    }
    let parts = place.match_indices(':').map(|(at, _)| place.split_at(at));
    for (path, name) in parts {
        if Path::new(path).exists() {
            return Ok((to_path(text, path)?, Some(name[1..].to_owned())));
        }
    }
    Ok((to_path(text, place)?, None))
}

fn to_path(text: &str, path: &str) -> Result<PathBuf, Error> {
    if path.is_empty() || path.contains('\0') {
        return Err(wrong(text, "expected a path after the first colon"));
    }
    absolute(path).map_err(|error| wrong(text, &crate::error::words(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn names_are_dockers() {
        assert_eq!(canonical("alpine"), "docker.io/library/alpine:latest");
        assert_eq!(canonical("me/box:1"), "docker.io/me/box:1");
        assert_eq!(canonical("localhost:5000/x"), "localhost:5000/x:latest");
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(
            canonical(&format!("quay.io/a/b@{digest}")),
            format!("quay.io/a/b@{digest}")
        );
        assert_eq!(
            Reference::familiar("docker.io/library/alpine:3"),
            "alpine:3"
        );
        assert_eq!(Reference::familiar("docker.io/me/box:1"), "me/box:1");
        assert_eq!(Reference::familiar("quay.io/a/b:1"), "quay.io/a/b:1");
    }

    #[test]
    fn places_have_tags() {
        assert_eq!(canonical("oci:/x/y:1.0"), "oci:/x/y:1.0");
        assert_eq!(canonical("oci-archive:/x:y/z"), "oci-archive:/x:y/z");
        assert_eq!(
            canonical("docker-archive:/dev/null:a/b:1"),
            "docker-archive:/dev/null:a/b:1"
        );
        assert!(canonical("oci:x").starts_with("oci:/"));
    }

    #[test]
    fn the_rest_is_one_line() {
        let long = "a".repeat(10_000);
        for text in ["", "A", "a b", "oci:", "x@sha256:12", "../x", "a\nb", &long] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(!error.contains('\n') && error.len() < 300, "{error}");
        }
        assert!(Reference::tag("base").is_ok() && Reference::tag("oci:/x").is_err());
    }
}
