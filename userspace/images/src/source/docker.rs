//! What `docker save` writes: a tar with `manifest.json`, which names a config and the layers.

use serde::Deserialize;

use super::{Blob, Files, Found, Place};
use crate::{
    docker_name,
    error::{Error, shown},
    layer::Expected,
    manifest::{ImageConfig, parse},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(crate) fn find(files: &Files, name: Option<&str>) -> Result<Found, Error> {
    let what = files.what();
    let all: Vec<Saved> = parse(what, &files.bytes("manifest.json")?)?;
    let saved = chosen(what, &all, name)?;
    let config = files.bytes(&saved.config)?;
    let parsed: ImageConfig = parse(what, &config)?;
    parsed.check(what)?;
    let diff_ids = parsed.rootfs.diff_ids;
    if diff_ids.len() != saved.layers.len() {
        return Err(Error::broken(
            what,
            format!(
                "its manifest has {} layers, its config {}",
                saved.layers.len(),
                diff_ids.len()
            ),
        ));
    }
    let layers = saved.layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
        Ok(Blob {
            expected: Expected {
                blob: None,
                diff_id: Some(diff_id),
            },
            place: Place::Here(files.part(layer)?),
        })
    });
    Ok(Found {
        layers: layers.collect::<Result<_, Error>>()?,
        config,
    })
}

fn chosen<'a>(what: &str, all: &'a [Saved], name: Option<&str>) -> Result<&'a Saved, Error> {
    let tags = |saved: &'a Saved| saved.repo_tags.iter().flatten();
    let Some(name) = name else {
        return match all {
            [only] => Ok(only),
            [] => Err(Error::broken(what, "has no image")),
            several => Err(Error::broken(
                what,
                format!(
                    "has several images: choose one by :NAME, of {}",
                    list(several)
                ),
            )),
        };
    };
    let full = |name: &str| docker_name::parse(name).map(|name| name.whole()).ok();
    let wanted = full(name);
    let is = |tag: &String| tag == name || (wanted.is_some() && full(tag) == wanted);
    all.iter().find(|saved| tags(saved).any(is)).ok_or_else(|| {
        Error::broken(
            what,
            format!(
                "has no image '{}', but: {}",
                shown(name.as_bytes()),
                list(all)
            ),
        )
    })
}

fn list(all: &[Saved]) -> String {
    let tags = all
        .iter()
        .flat_map(|saved| saved.repo_tags.iter().flatten());
    let tags: Vec<_> = tags.take(20).map(|tag| shown(tag.as_bytes())).collect();
    tags.join(", ")
}
