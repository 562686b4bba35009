//! An OCI image layout: `oci-layout`, `index.json`, blobs by digest.

use super::{Blob, Files, Found, Place, files::blob_path};
use crate::{
    error::{Error, shown},
    layer::Expected,
    manifest::{Descriptor, Document, ImageConfig, Index, Manifest, choose, parse},
};

const TAG: &str = "org.opencontainers.image.ref.name";
/// An index may name an index; nobody nests deeper.
const MOST_NESTED: usize = 4;

pub(crate) fn find(files: &Files, tag: Option<&str>) -> Result<Found, Error> {
    let what = files.what();
    let index: Index = parse(what, &files.bytes("index.json")?)?;
    let mut entry = tagged(what, &index, tag)?.clone();
    let mut nested = 0;
    let manifest: Manifest = loop {
        match parse(what, &files.blob(&entry)?)? {
            Document::Manifest(manifest) => break manifest,
            Document::Index(_) if nested == MOST_NESTED => {
                return Err(Error::broken(what, "an index in an index, too deep"));
            }
            Document::Index(index) => {
                nested += 1;
                entry = choose(what, &index.manifests.iter().collect::<Vec<_>>())?.clone();
            }
        }
    };
    let config = files.blob(&manifest.config)?;
    let layers = expected(what, &manifest, &config)?;
    let layers = layers
        .into_iter()
        .zip(&manifest.layers)
        .map(|(expected, layer)| {
            let part = files.part(&blob_path(&layer.digest))?;
            Ok(Blob {
                expected,
                place: Place::Here(part),
            })
        });
    Ok(Found {
        config,
        layers: layers.collect::<Result<_, Error>>()?,
    })
}

/// What each layer is to be, by manifest and config.
pub(crate) fn expected(
    what: &str,
    manifest: &Manifest,
    config: &[u8],
) -> Result<Vec<Expected>, Error> {
    let config: ImageConfig = parse(what, config)?;
    config.check(what)?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(Error::broken(
            what,
            format!(
                "its manifest has {} layers, its config {}",
                manifest.layers.len(),
                diff_ids.len()
            ),
        ));
    }
    let both = manifest.layers.iter().zip(diff_ids);
    Ok(both
        .map(|(layer, diff_id)| Expected {
            blob: Some((layer.digest, layer.size)),
            diff_id: Some(diff_id),
        })
        .collect())
}

fn tagged<'a>(what: &str, index: &'a Index, tag: Option<&str>) -> Result<&'a Descriptor, Error> {
    let fits = |entry: &&Descriptor| tag.is_none() || name(entry) == tag;
    let all: Vec<&Descriptor> = index.manifests.iter().filter(fits).collect();
    let mut tags: Vec<&str> = index.manifests.iter().filter_map(name).collect();
    tags.sort_unstable();
    tags.dedup();
    let list = || {
        let shown = tags.iter().take(20).map(|tag| shown(tag.as_bytes()));
        shown.collect::<Vec<_>>().join(", ")
    };
    match (all.as_slice(), tag) {
        ([], Some(tag)) => Err(Error::broken(
            what,
            format!("has no tag '{}', but: {}", shown(tag.as_bytes()), list()),
        )),
        ([], None) => Err(Error::broken(what, "has no image")),
        ([only], _) => Ok(only),
        (_, None) if tags.len() > 1 => Err(Error::broken(
            what,
            format!("has several images: choose one by :TAG, of {}", list()),
        )),
        (several, _) => choose(what, several),
    }
}

fn name(entry: &Descriptor) -> Option<&str> {
    entry.annotations.as_ref()?.get(TAG).map(String::as_str)
}
